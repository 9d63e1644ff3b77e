"""Everything that can go wrong, in full counts: kills, full disks, hostile and mutated inputs, random networks, growth.

    python benchmarks/hardening.py [--part kill,disk,hostile,fuzz,networks,growth] [--count N] [--seed 0] [--resume]
                                   [--out docs/hardening.md]

The scenarios are those of `tests/scenarios`, of which the tests run a sample. Rows are written as they are finished, into `--out`
and as JSON beside it, so an interrupted run continues with `--resume`; rows of parts that are not run stay as they were.
"""

import argparse
import importlib.metadata
import json
import platform
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from scenarios.result import Result  # noqa: E402 (found through the line above)
from scenarios.server import Server  # noqa: E402

from mncompress.files import write_json, write_text  # noqa: E402

COUNTS = {"kill": 50, "disk": 40, "hostile": 1, "fuzz": 10_000, "networks": 2000, "growth": 1}
MODULES = {"disk": "places"}
TITLES = {
    "kill": "Commands killed at random moments",
    "disk": "Full disks, folders that cannot be written, two processes, Ctrl-C",
    "hostile": "Hostile ONNX files",
    "fuzz": "Mutated inputs",
    "networks": "Random networks",
    "growth": "Growth of memory and time",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", default=",".join(COUNTS), help="comma-separated")
    parser.add_argument("--count", type=int, help="cases, instead of the full count of each part")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "docs/hardening.md")
    parser.add_argument("--resume", action="store_true", help="keep the rows of the parts that are there already")
    options = parser.parse_args()
    for part in options.part.split(","):
        if part not in COUNTS:
            parser.error(f"unknown part {part!r}; choose from {', '.join(COUNTS)}")
        count = options.count or COUNTS[part]
        if options.resume and load(options.out).get(part, {}).get("finished"):
            continue
        failures = run_part(part, count, options.seed, options.out)
        print(f"{part}: {failures} failures", flush=True)


def run_part(part: str, count: int, seed: int, out: Path) -> int:
    """Run a part and write its rows; returns the number of failures."""
    started, rows = time.time(), []
    module = importlib.import_module(f"scenarios.{MODULES.get(part, part)}")
    for result in results(module, count, seed):
        rows.append(asdict(result))
        print(f"{part}: {result.what}: {result.cases} cases, {len(result.failures)} failures; {result.measured}", flush=True)
        for failure in result.failures:
            print(f"    {failure}", flush=True)
        save(out, part, {"rows": rows, "seed": seed, "count": count, "minutes": (time.time() - started) / 60, "finished": False,
                         "date": time.strftime("%Y-%m-%d"), "environment": describe()})
    save(out, part, load(out)[part] | {"finished": True, "minutes": (time.time() - started) / 60})
    return sum(len(row["failures"]) for row in rows)


def results(module: Any, count: int, seed: int) -> Iterator[Result]:
    with tempfile.TemporaryDirectory() as scratch, Server() as server:
        yield from module.run(server, Path(scratch), count, seed)


def describe() -> str:
    versions = {name: importlib.metadata.version(name) for name in ("mncompress", "torch", "onnxruntime-gpu")}
    return f"{platform.system()}, Python {platform.python_version()}, " + ", ".join(f"{k} {v}" for k, v in versions.items())


def load(out: Path) -> dict[str, Any]:
    path = out.with_suffix(".json")
    return json.loads(path.read_text()) if path.is_file() else {}


def save(out: Path, part: str, found: dict[str, Any]) -> None:
    """Write the JSON file and the table, with this part's rows exchanged."""
    parts = {**load(out), part: found}
    write_json(out.with_suffix(".json"), parts)
    write_text(out, render(parts))


def render(parts: dict[str, Any]) -> str:
    """The page."""
    lines = ["# Hardening", "", "What `benchmarks/hardening.py` found last; the tests run a seeded sample of the same scenarios "
             "(`tests/scenarios`).", "A failure is listed under its table with what makes it again."]
    for part in (part for part in COUNTS if part in parts):
        found = parts[part]
        state = "" if found["finished"] else ", **not finished**"
        lines += ["", f"## {TITLES[part]}", "",
                  f"`--part {part} --count {found['count']} --seed {found['seed']}`{of_full(part, found['count'])}, "
                  f"{found['date']}, {found['minutes']:.0f} minutes on {found['environment']}{state}.", "",
                  "| what | cases | failures | |", "|---|---:|---:|---|"]
        lines += [f"| {row['what']} | {row['cases']} | {len(row['failures'])} | {row['measured']} |" for row in found["rows"]]
        failures = [f"- {row['what']}: {failure}" for row in found["rows"] for failure in row["failures"]]
        lines += ["", *(" ".join(failure.split()).replace("|", "\\|") for failure in failures)] if failures else []
    return "\n".join(lines) + "\n"


def of_full(part: str, count: int) -> str:
    """What to say where fewer cases than the full count were run."""
    return f" ({count} of the full {COUNTS[part]})" if count < COUNTS[part] else ""


if __name__ == "__main__":
    main()
