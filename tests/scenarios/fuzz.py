"""Mutated inputs of every command: no crash, no traceback, no hang, memory bounded, nothing written elsewhere, nothing run.

A case is made from the seed and its number alone, so `run_case(server, inputs, seed, number)` makes a failure again. It passes if
the command succeeds, or refuses its input in one line of its own. Commands see limits of memory and time, and end at once when
they are about to run something or to write outside their output folder (`server`); what libraries write from native code
shows in a listing of the sandbox.
"""

import random
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from scenarios import mutate
from scenarios.data import make_inputs
from scenarios.result import Result
from scenarios.server import BUG, ESCAPED, EXECUTED, Outcome, Server

TIMEOUT, MEMORY = 60.0, 6 * 2**30
"""Seconds and bytes beyond which a case hangs or grows without bound; an archive may hold up to 2 GiB of zeros."""
RECIPE = """data = "data.npz"
activation = "meta"
inner = "tanh"
inner_width = 3
inner_layers = 2
ends = "gated"
shared = false
hidden = [3, 3]
output_activation = false
residual = true
init = "matched"
batch_size = 16
lr = 0.01
activation_lr = 1.0
schedule = "cosine"
warmup = 0
weight_decay = 0.0
batch_norm = false
select = "best"
patience = 0
seed = 1
order = "own"
keep = 0
device = "cpu"
"""


@dataclass(frozen=True)
class Kind:
    """A kind of input: which file is mutated how, and who reads it."""

    name: str
    weight: float
    files: tuple[str, ...]
    mutate: Callable[[random.Random, bytes], bytes]
    commands: tuple[tuple[str, ...], ...]


INSPECT = (("inspect", "compressed", "--out", "out"),)
RESUME = ("train", "--resume", "--epochs", "5", "--out", "run", "--quiet")
READ_RUN = (RESUME, RESUME, ("inspect", "run", "--out", "out"), ("compress", "run", "--out", "out", "--max-drop", "50"))
KINDS = (
    Kind("checkpoint", 2.0, ("run/replicates.safetensors", "run/model.safetensors", "run/checkpoint.safetensors"),
         mutate.mutate_safetensors, READ_RUN),
    Kind("config", 2.0, ("run/config.json",), mutate.mutate_json, READ_RUN),
    Kind("metrics", 0.4, ("run/metrics.csv",), mutate.mutate_csv, (RESUME,)),
    Kind("curves", 0.4, ("compressed/activations.safetensors",), mutate.mutate_safetensors, INSPECT),
    Kind("report", 0.4, ("compressed/report.json",), mutate.mutate_json, INSPECT),
    Kind("npz", 2.0, ("data.npz",), mutate.mutate_npz, (
        ("train", "--data", "data.npz", "--hidden", "2", "--activation", "vaf", "--epochs", "1", "--batch-size", "32",
         "--device", "cpu", "--out", "out"), ("evaluate", "compressed/compressed.onnx", "--data", "data.npz"))),
    Kind("recipe", 1.5, ("recipe.toml",), mutate.mutate_toml, (
        ("train", "recipe.toml", "--epochs", "1", "--replicates", "2", "--out", "out"),)),
    Kind("onnx", 3.0, ("compressed/compressed.onnx", "compressed/original.onnx", "compressed/portable.onnx"), mutate.mutate_onnx, (
        *((("evaluate", "FILE", "--data", "data.npz"),) * 15), ("benchmark", "FILE", "--batch-sizes", "1", "--quiet"))),
    Kind("plan", 1.0, ("compressed/plan.json",), mutate.mutate_json, (
        ("compress", "run", "--plan", "compressed/plan.json", "--out", "out"),)),
)


def run(server: Server, scratch: Path, count: int, seed: int) -> Iterator[Result]:
    """`count` mutated inputs over all kinds; one result for each."""
    inputs = prepare(server, scratch)
    for kind in KINDS:
        cases = max(1, round(count * kind.weight / sum(other.weight for other in KINDS)))
        failures, ends, peak = [], Counter[str](), 0.0
        for number in range(cases):
            outcome, text, reason = run_case(server, inputs, kind, seed, number)
            ends["succeeded" if outcome.code == 0 else "refused"] += not reason
            peak = max(peak, outcome.peak_mib)
            if reason:
                failures.append(f"seed {seed} case {number} ({text}): {reason}")
        yield Result("fuzz", kind.name, cases, tuple(failures),
                     f"{ends['refused']} refused, {ends['succeeded']} harmless; at most {peak:.0f} MiB")


def prepare(server: Server, scratch: Path) -> Path:
    """Good inputs to mutate; `case` is emptied and filled again for each."""
    inputs = make_inputs(server, scratch / "inputs")
    (inputs / "recipe.toml").write_text(RECIPE)
    config = inputs / "run/config.json"
    config.write_text(config.read_text().replace("../data.npz", "data.npz"))
    return inputs


def run_case(server: Server, inputs: Path, kind: Kind, seed: int, number: int) -> tuple[Outcome, str, str | None]:
    """Mutate one input and run one command on it: how that ended, what it was, and what is wrong, or None."""
    rng = random.Random(f"{seed} {kind.name} {number}")
    file, command = rng.choice(kind.files), rng.choice(kind.commands)
    content = kind.mutate(rng, (inputs / file).read_bytes())
    case = inputs / "case"
    shutil.rmtree(case)
    shutil.copytree(inputs, case / "box", ignore=shutil.ignore_patterns("case"))
    (case / "box" / file).write_bytes(content)
    before = {path for path in case.rglob("*")}
    args = [file if arg == "FILE" else arg for arg in command]
    box = case / "box"
    outcome = server.run(args, box, timeout=TIMEOUT, memory=MEMORY, tmp=str(case / "tmp"),
                         writable=[str(case / "tmp"), str(box / ("run" if "--resume" in command else "out"))])
    reason = _check(outcome)
    new = [path for path in case.rglob("*") if path not in before and not {"out", "run", "tmp"} & set(path.relative_to(case).parts)
           and path.name not in (".out.lock",)]
    return outcome, f"{' '.join(args)} with {file} mutated", reason or (f"{new[0]} was written" if new else None)


def _check(outcome: Outcome) -> str | None:
    last = " ".join(outcome.stderr[-500:].split())
    if outcome.timed_out:
        return f"it hangs; {last}"
    if outcome.code < 0:
        return f"it crashed with signal {-outcome.code}; {last}"
    names = {BUG: "a traceback", ESCAPED: "a file written elsewhere", EXECUTED: "something run"}
    if outcome.code in names:
        return f"{names[outcome.code]}; {last}"
    is_usage = outcome.code == 2 and "Error: " in outcome.stderr and "Traceback" not in outcome.stderr
    if outcome.code == 0 or outcome.error or is_usage:
        return None
    return f"exit code {outcome.code}; {last}"
