"""Compiles fuzz.cpp for 64-bit ARM and runs it here, on an emulated processor: the NEON kernels against plain formulas.

    python tests/native/neon.py [calls] [seed]

It needs the packages ziglang, a cross compiler, and unicorn, a processor without an operating system. Of the latter there is
just what a static program asks for that computes and prints: memory, output and an end. It has no threads, so the made-up
runtime of fuzz.cpp is left out.
"""

import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import unicorn
from unicorn import arm64_const as arm

FOLDER = Path(__file__).resolve().parent
NATIVE = FOLDER.parents[1] / "mncompress" / "native"
PAGE = 4096
STACK, STACK_SIZE = 0x7000_0000_0000, 8 << 20
MAPPINGS = 0x5000_0000_0000
NOT_IMPLEMENTED = -38
EVERYTHING = unicorn.UC_PROT_ALL


def compile_program(target: Path) -> None:
    """A static program for Linux on aarch64."""
    sources = [FOLDER / "fuzz.cpp", *sorted(NATIVE.glob("kernels*.cpp"))]
    subprocess.run([sys.executable, "-m", "ziglang", "c++", "-target", "aarch64-linux-musl", "-static", "-O2", "-std=c++17", "-w",
                    f"-I{NATIVE}", *sources, "-o", target], check=True)


class Machine:
    """A processor with a program in its memory."""

    def __init__(self, program: bytes, arguments: list[str]) -> None:
        self.cpu = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)
        self.cpu.reg_write(arm.UC_ARM64_REG_CPACR_EL1, 3 << 20)  # floating point and NEON
        self.next_mapping = MAPPINGS
        self.status: int | None = None
        self.entry = self._load(program)
        self.cpu.reg_write(arm.UC_ARM64_REG_SP, self._make_stack(arguments))
        self.cpu.hook_add(unicorn.UC_HOOK_INTR, self._call)

    def _load(self, program: bytes) -> int:
        """Copy the segments of an ELF file; returns its entry."""
        entry, headers = struct.unpack_from("<QQ", program, 24)
        self.header_size, self.header_count = struct.unpack_from("<HH", program, 54)
        self.header_address = 0
        segments = [struct.unpack_from("<IIQQQQQQ", program, headers + i * self.header_size) for i in range(self.header_count)]
        loaded = [segment for segment in segments if segment[0] == 1]
        low = min(segment[3] for segment in loaded) // PAGE * PAGE
        high = -(-max(segment[3] + segment[6] for segment in loaded) // PAGE) * PAGE
        self.cpu.mem_map(low, high - low, EVERYTHING)
        for _, _, offset, address, _, stored, _, _ in loaded:
            self.cpu.mem_write(address, program[offset:offset + stored])
            if offset <= headers < offset + stored:
                self.header_address = address + headers - offset
        return entry

    def _make_stack(self, arguments: list[str]) -> int:
        """The stack as the kernel leaves it: arguments, no environment, and the auxiliary vector."""
        self.cpu.mem_map(STACK, STACK_SIZE, EVERYTHING)
        top = STACK + STACK_SIZE - PAGE
        texts = b"".join(argument.encode() + b"\0" for argument in arguments)
        self.cpu.mem_write(top, texts)
        offsets = [len("\0".join(arguments[:i]).encode()) + (i > 0) for i in range(len(arguments))]
        random_bytes = 25
        auxiliary = {3: self.header_address, 4: self.header_size, 5: self.header_count, 6: PAGE, random_bytes: top + 2048, 0: 0}
        words = [len(arguments), *(top + offset for offset in offsets), 0, 0]
        words += [word for pair in auxiliary.items() for word in pair]
        pointer = (top - 8 * len(words)) // 16 * 16
        self.cpu.mem_write(pointer, struct.pack(f"<{len(words)}Q", *words))
        return pointer

    def _call(self, *_: object) -> None:
        """A system call."""
        number = self.cpu.reg_read(arm.UC_ARM64_REG_X8)
        service = {64: self._write, 66: self._write_vectors, 93: self._exit, 94: self._exit, 222: self._map, 226: self._protect,
                   29: self._ignore, 96: self._ignore, 135: self._ignore, 215: self._ignore,
                   130: self._abort, 131: self._abort}.get(number)
        arguments = [self.cpu.reg_read(arm.UC_ARM64_REG_X0 + i) for i in range(6)]
        result = service(*arguments) if service else NOT_IMPLEMENTED
        self.cpu.reg_write(arm.UC_ARM64_REG_X0, result % 2**64)

    def _ignore(self, *_: int) -> int:
        return 0

    def _write(self, file: int, address: int, size: int, *_: int) -> int:
        stream = sys.stdout if file == 1 else sys.stderr
        stream.write(bytes(self.cpu.mem_read(address, size)).decode() if size else "")
        return size

    def _write_vectors(self, file: int, vectors: int, count: int, *_: int) -> int:
        pairs = struct.iter_unpack("<QQ", bytes(self.cpu.mem_read(vectors, 16 * count)))
        return sum(self._write(file, address, size) for address, size in pairs)

    def _map(self, _: int, size: int, protection: int, *__: int) -> int:
        address, size = self.next_mapping, -(-size // PAGE) * PAGE
        self.cpu.mem_map(address, size, protection)
        self.next_mapping += size + PAGE
        return address

    def _protect(self, address: int, size: int, protection: int, *_: int) -> int:
        self.cpu.mem_protect(address, -(-size // PAGE) * PAGE, protection)
        return 0

    def _exit(self, status: int, *_: int) -> int:
        self.status = status
        self.cpu.emu_stop()
        return 0

    def _abort(self, *_: int) -> int:
        return self._exit(134)

    def run(self) -> int:
        """The program's exit status."""
        try:
            self.cpu.emu_start(self.entry, 0)
        except unicorn.UcError as error:
            print(f"{error} at {self.cpu.reg_read(arm.UC_ARM64_REG_PC):#x}", file=sys.stderr)
            return 1
        return 1 if self.status is None else self.status


def main() -> int:
    """Compile, run, and give the program's exit status."""
    calls, seed = [*sys.argv[1:], *("2000", "0")[len(sys.argv) - 1:]][:2]
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder, "fuzz")
        compile_program(program)
        return Machine(program.read_bytes(), ["fuzz", calls, seed]).run()


if __name__ == "__main__":
    sys.exit(main())
