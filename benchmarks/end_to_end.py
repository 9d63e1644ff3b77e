"""Train, compress, export and measure a set of networks, and print what it cost as a Markdown table.

    python benchmarks/end_to_end.py --data-dir DATA_DIR [--only NAME ...]

DATA_DIR holds torchvision's MNIST; without it the MNIST networks are left out, and the output says so. Everything runs on
one CPU thread. Latencies come from one interleaved run per network; see `mncompress.benchmark`.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import mncompress as mn
from mncompress import pipeline
from mncompress.types import ACTS, Report

MNIST = mn.TrainConfig(data="mnist", hidden=(7,), epochs=6, device="cpu")
REGRESSION = mn.TrainConfig(activation="vaf", inner="tanh", hidden=(8, 8), epochs=150, batch_size=32, device="cpu")
EXACT, DROP = mn.Budget(preset="exact"), mn.Budget(max_drop=0.1)


@dataclass(frozen=True)
class Case:
    """A network and the budgets to compress it with."""

    name: str
    config: mn.TrainConfig
    budgets: tuple[mn.Budget, ...] = (DROP,)


def make_cases(diabetes: Path) -> Iterator[Case]:
    for family in ("meta", "vaf"):
        for inner in ("relu", "tanh"):
            budgets = (DROP, EXACT) if inner == "relu" else (DROP,)
            yield Case(f"mnist 784-7-10 {family} {inner}", replace(MNIST, activation=family, inner=inner), budgets)
    for family in ("agsig", "frelu", "fixed:relu", "warp:relu", "warp:tanh"):
        yield Case(f"mnist 784-7-10 {family}", replace(MNIST, activation=family), (DROP, EXACT))
    for inner in ACTS:
        if inner not in ("relu", "tanh"):
            yield Case(f"mnist 784-7-10 vaf {inner}", replace(MNIST, activation="vaf", inner=inner))
    deep = replace(MNIST, activation="meta", inner="relu", inner_layers=3, hidden=(16, 16, 16), residual=True)
    yield Case("mnist 784-16-16-16-10 residual meta relu, 3 inner layers", deep, (DROP, EXACT))
    yield Case("mnist 784-16-16-16-10 residual vaf tanh", replace(deep, activation="vaf", inner="tanh", inner_layers=1))
    for width in (64, 128, 256):
        wide = replace(MNIST, inner="tanh", inner_width=16, hidden=(width,), epochs=3)
        yield Case(f"mnist 784-{width}-10 meta tanh, inner width 16", replace(wide, activation="meta"))
        yield Case(f"mnist 784-{width}-10 vaf tanh, inner width 16", replace(wide, activation="vaf"))
    for name in ("gaussian", "bessel", "exp_sin", "product"):
        yield Case(f"function:{name} 8-8 vaf tanh", replace(REGRESSION, data=f"function:{name}"))
    yield Case("diabetes 10-8-8-1 vaf tanh", replace(REGRESSION, data=str(diabetes), epochs=30))


def write_diabetes(path: Path) -> None:
    x, y = load_diabetes(return_X_y=True, scaled=False)
    x_train, x_test, y_train, y_test = train_test_split(x.astype(np.float32), y.astype(np.float32), random_state=0)
    np.savez(path, x_train=x_train, x_test=x_test, y_train=y_train, y_test=y_test)


def describe(case: Case, budget: mn.Budget, report: Report, seconds: float) -> str:
    if report.accuracy_drop is None:
        before, after = (np.sqrt(model.loss) for model in (report.original, report.compressed))
        quality = f"{before:.4g} | {after:.4g} | {report.rmse_increase_percent:+.2f} % |"
    else:
        quality = (f"{report.original.accuracy:.4f} | {report.compressed.accuracy:.4f} | {0.0 - report.accuracy_drop:+.2f} | "
                   f"{report.argmax_flips}")
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items() if count)
    bound = "none" if report.logit_error_bound is None else f"{report.logit_error_bound:.2g}"
    certified = "" if report.certified_unchanged is None else f"{100 * report.certified_unchanged:.1f} %"
    speed = " / ".join(f"{s.ratio:.2f}" for s in report.speedups if s.provider == "cpu")
    twin = " / ".join(f"{row.ratio_to_relu_twin:.2f}" for row in report.latency
                      if (row.model, row.provider) == ("compressed", "cpu"))
    return (f"| {case.name} | {budget.preset if budget.preset == 'exact' else f'drop {budget.max_drop:g}'} | {quality} | {kinds} | "
            f"{report.max_abs_logit_error:.2g} | {bound} | {certified} | {speed} | {twin} | {seconds:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", help="torchvision's folder; without it MNIST is left out")
    parser.add_argument("--only", nargs="*", default=[], help="parts of case names")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.data_dir is None:
        print("MNIST is left out: no --data-dir was given.\n")
    print("| network | budget | original | compressed | change | flips | kinds | largest output change | bound | certified | "
          "original / compressed at batch 1 / 32 / 1024 | compressed / ReLU twin | compress, s |")
    print("|" + "---|" * 13)
    with tempfile.TemporaryDirectory() as folder:
        diabetes = Path(folder) / "diabetes.npz"
        write_diabetes(diabetes)
        for case in make_cases(diabetes):
            is_mnist = case.config.data == "mnist"
            if (is_mnist and options.data_dir is None) or not (any(part in case.name for part in options.only) or not options.only):
                continue
            run = mn.train(replace(case.config, data_dir=options.data_dir if is_mnist else None))
            for budget in case.budgets:
                started = time.perf_counter()
                report = pipeline.compress(run, budget).report
                print(describe(case, budget, report, time.perf_counter() - started), flush=True)


if __name__ == "__main__":
    main()
