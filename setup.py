"""Builds the kernel library of mncompress.native where there is a C++ compiler; without one the package works, slower.

The library is no Python module: it exports C functions, depends on neither Python nor ONNX Runtime, and one file serves all
their versions. Everything else about the package is in pyproject.toml.
"""

import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

FOLDER = Path("mncompress/native")
NAMES = {"win32": "mncompress_ops.dll", "darwin": "libmncompress_ops.dylib"}
LIBRARY = NAMES.get(sys.platform, "libmncompress_ops.so")
"""The name that `mncompress.native.library_path` looks for."""
FLAGS = {"msvc": ["/O2", "/std:c++17", "/EHsc"]}
POSIX_FLAGS = ["-O3", "-std=c++17", "-fvisibility=hidden", "-g0",
               "-Wno-uninitialized", "-Wno-maybe-uninitialized"]  # GCC 12 finds its own AVX-512 headers at fault


class BuildLibrary(build_ext):
    """Compiles the extension as a plain shared library, and goes on where that fails."""

    def get_ext_filename(self, fullname: str) -> str:
        """That of a plain library, without Python's version in it."""
        return str(Path(*fullname.split(".")).with_name(LIBRARY))

    def get_export_symbols(self, ext: Extension) -> list[str]:
        """None but what the sources export themselves: there is no PyInit function."""
        return []

    def build_extension(self, ext: Extension) -> None:
        """Compile, or say in one line that it was skipped."""
        ext.extra_compile_args = FLAGS.get(self.compiler.compiler_type, POSIX_FLAGS)
        try:
            super().build_extension(ext)
        except Exception as error:
            print(f"mncompress: the native kernels were not built ({error}); everything works without them, networks with "
                  "splines run slower. Install a C++17 compiler and install again to have them.", file=sys.stderr)


class AnyPython(bdist_wheel):
    """A wheel for any Python 3: for this platform where it holds the library, for any platform where it does not."""

    def get_tag(self) -> tuple[str, str, str]:
        """The platform is all that the library depends on; asked for when everything is built."""
        is_built = Path(self.get_finalized_command("build").build_lib, FOLDER, LIBRARY).exists()
        return "py3", "none", super().get_tag()[2] if is_built else "any"


sources = sorted(path.as_posix() for path in FOLDER.glob("*.cpp"))
setup(
    ext_modules=[Extension("mncompress.native.mncompress_ops", sources, depends=[path.as_posix() for path in FOLDER.glob("*.h")],
                           libraries=["dl"] if sys.platform == "linux" else [], language="c++", optional=True)],
    cmdclass={"build_ext": BuildLibrary, "bdist_wheel": AnyPython},
)
