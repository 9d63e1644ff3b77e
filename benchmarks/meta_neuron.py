"""Which ends let a meta-neuron learn as much as a variable activation subnetwork (vaf)?

    python benchmarks/meta_neuron.py --data-dir DATA_DIR [--replicates 32] [--epochs 20] [--out docs/experiments/meta-neuron]

Trains 784-7-10 networks on MNIST with relu, tanh and sigmoid inside, for every variant of `VARIANTS`, and writes OUT.csv (a row
per network: accuracy on the test split after the last epoch) and OUT.md (means with 95 % Student intervals). Rows that are in
OUT.csv already are not trained again.
"""

import argparse
import csv
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

import mncompress as mn
from mncompress.data import load_dataset
from mncompress.files import write_text
from mncompress.training import evaluate_run, train_stacks

ACTS = ("relu", "tanh", "sigmoid")
VARIANTS: dict[str, dict[str, object]] = {
    "fixed": {"activation": "fixed:{}"},
    "vaf": {"activation": "vaf"},
    "meta, activated ends (paper)": {"activation": "meta"},
    "meta, gated": {"activation": "meta", "ends": "gated"},
    "meta, gated, activation lr x 5": {"activation": "meta", "ends": "gated", "activation_lr": 5.0},
    "vaf, activation lr x 5": {"activation": "vaf", "activation_lr": 5.0},
    "meta, activated ends, activation lr x 5": {"activation": "meta", "activation_lr": 5.0},
    "meta, leaky": {"activation": "meta", "ends": "leaky"},
    "meta, learned skip": {"activation": "meta", "ends": "skip"},
    "fixed, batch-normalized": {"activation": "fixed:{}", "batch_norm": True},
    "vaf, batch-normalized": {"activation": "vaf", "batch_norm": True},
    "meta, activated ends, batch-normalized": {"activation": "meta", "batch_norm": True},
    "meta, gated, batch-normalized": {"activation": "meta", "ends": "gated", "batch_norm": True},
}
Rows = dict[tuple[str, str], list[float]]


def make_config(variant: str, act: str, base: mn.TrainConfig) -> mn.TrainConfig:
    changes = {key: value.format(act) if isinstance(value, str) else value for key, value in VARIANTS[variant].items()}
    return replace(base, inner=act, **changes)


def read_rows(path: Path) -> Rows:
    rows: Rows = {}
    if path.exists():
        with path.open(newline="") as file:
            for row in csv.DictReader(file):
                rows.setdefault((row["inner"], row["variant"]), []).append(float(row["test_accuracy"]))
    return rows


def write_rows(path: Path, rows: Rows) -> None:
    lines = ["inner,variant,replicate,test_accuracy"]
    lines += [f'{act},"{variant}",{k},{value:.4f}' for (act, variant), values in rows.items() for k, value in enumerate(values)]
    write_text(path, "\n".join(lines) + "\n")


def interval(values: list[float]) -> tuple[float, float]:
    """Mean and the half width of its 95 % Student interval."""
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / len(values) ** 0.5
    return float(np.mean(values)), float(half)


def make_table(rows: Rows, base: mn.TrainConfig) -> str:
    lines = [f"Test accuracy in per cent of MNIST 784-7-10 networks after {base.epochs} epochs, batch {base.batch_size}, Adam "
             f"{base.lr:g}: mean and 95 % interval of the mean over {base.replicates} networks; below, Welch's interval of the "
             "difference to the vaf.", "", "| variant | " + " | ".join(f"{act} inside" for act in ACTS) + " |", "|---" * 4 + "|"]
    for variant in VARIANTS:
        cells = []
        for act in ACTS:
            values = rows.get((act, variant))
            if values is None:
                cells.append("not run")
                continue
            mean, half = interval(values)
            against = ""
            if variant != "vaf" and (act, "vaf") in rows:
                difference = stats.ttest_ind(values, rows[act, "vaf"], equal_var=False).confidence_interval()
                against = f" ({100 * difference.low:+.2f} to {100 * difference.high:+.2f})"
            cells.append(f"{100 * mean:.2f} ± {100 * half:.2f}{against}")
        lines.append(f"| {variant} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--replicates", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=Path("docs/experiments/meta-neuron"))
    options = parser.parse_args()
    base = mn.TrainConfig(data="mnist", data_dir=options.data_dir, hidden=(7,), epochs=options.epochs,
                          replicates=options.replicates, device=options.device)
    test = load_dataset("mnist", data_dir=options.data_dir, seed=base.seed).test
    table, text = options.out.with_suffix(".csv"), options.out.with_suffix(".md")
    rows = read_rows(table)
    for variant in VARIANTS:
        for act in ACTS:
            if (act, variant) in rows:
                continue
            started = time.perf_counter()
            run, = train_stacks([make_config(variant, act, base)])
            rows[act, variant] = evaluate_run(run, test, options.device)[1].tolist()
            mean, half = interval(rows[act, variant])
            print(f"{act:8} {variant:40} {mean:.4f} +- {half:.4f}  {time.perf_counter() - started:.0f} s", flush=True)
            write_rows(table, rows)
            write_text(text, make_table(rows, base))


if __name__ == "__main__":
    main()
