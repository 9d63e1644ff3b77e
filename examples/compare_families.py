"""For the researcher: families of learned activations, held against fixed ones with as many networks each, and intervals.

    python examples/compare_families.py [--data function:exp_sin] [--hidden 8,8] [--replicates 8] [--epochs 60]

Every family is trained as one stack of networks that differ in their seeds alone. Printed is the mean error on the test split with
its 95 % interval (Student's t over the networks), and what the compressed network of the first seed costs.
"""

import argparse

from scipy import stats

import mncompress as mn
from mncompress.training import evaluate_run

FAMILIES = {"relu": ("fixed:relu", "relu"), "tanh": ("fixed:tanh", "relu"), "vaf": ("vaf", "tanh"),
            "agsig": ("agsig", "relu"), "frelu": ("frelu", "relu"), "warp": ("warp:tanh", "relu")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="function:exp_sin")
    parser.add_argument("--hidden", default="8,8")
    parser.add_argument("--replicates", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=60)
    options = parser.parse_args()
    dataset = mn.load_dataset(options.data)
    print(f"{'family':8} {'test result':>12} {'95 % interval':>22} {'multiply-adds':>20} {'drop':>8}")
    for name, (activation, inner) in FAMILIES.items():
        run = mn.train(mn.TrainConfig(
            data=options.data, activation=activation, inner=inner, hidden=tuple(map(int, options.hidden.split(","))),
            epochs=options.epochs, replicates=options.replicates, order="own", schedule="cosine"))
        found = evaluate_run(run, dataset.test)[1].double().numpy()
        low, high = stats.t.interval(0.95, len(found) - 1, found.mean(), stats.sem(found))
        report = mn.compress(run, mn.Budget(max_drop=1.0)).report
        drop = report.accuracy_drop if report.rmse_increase_percent is None else report.rmse_increase_percent
        print(f"{name:8} {found.mean():12.5f} {f'{low:.5f} to {high:.5f}':>22} "
              f"{f'{report.original.macs} to {report.compressed.macs}':>20} {drop:8.3f}", flush=True)


if __name__ == "__main__":
    main()
