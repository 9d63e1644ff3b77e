"""How close proven bounds are to the largest change that there is: a table in Markdown, for every generated function.

    python benchmarks/certificate.py [--hidden 8,8] [--max-drop 1] [--seed 0] [FUNCTION ...]

A vaf tanh network is trained on each function and compressed; all columns are changes of the output by the replacements in exact
arithmetic (float64), in units of the output's standard deviation:

- `test rows`: the largest on the test rows.
- `found`: the largest that a search finds among the inputs that the proof is about, those that keep features and pre-activations in
  the ranges of the data: random points, then random steps from the best, ever smaller.
- `proven`: what the certificate says no such input exceeds; `ratio` is that over `found`.
- `ranges alone`: what sup-norm errors carried through weights and Lipschitz constants give, without branch and bound.
- `s`: for the whole certificate.
"""

import argparse
import time

import numpy as np
import torch
from numpy.typing import NDArray

import mncompress as mn
from mncompress.compression import Compressed, certify, compress_network
from mncompress.compression._evaluate import evaluate_compressed, evaluate_original
from mncompress.compression._gaps import bound_gaps, find_domain
from mncompress.compression._rewrite import FEATURES
from mncompress.data import FUNCTION_NAMES, Dataset
from mncompress.nn import Network

POINTS, ROUNDS, BEST, STEPS = 100_000, 30, 200, 50
Floats = NDArray[np.float64]


def search(network: Network, compressed: Compressed, dataset: Dataset, rng: np.random.Generator) -> tuple[float, float, float]:
    """The largest change on the test rows and the largest one found, and the bound from ranges alone."""
    original = evaluate_original(network, compressed.options, dataset.test.x)
    replaced = evaluate_compressed(network, original, compressed.groups, compressed.maps)
    last = len(network.layers) - 1
    domain = find_domain(network, compressed.options, original, (dataset.calibration.x, dataset.train.x))
    known = float(bound_gaps(network, original, replaced, domain).behind[last].max())
    shift, scale = (value.double().numpy() for value in (network.features.shift, network.features.scale))
    low, high = (end * scale + shift for end in domain.ranges[FEATURES])

    def measure(x: Floats) -> Floats:
        f = evaluate_original(network, compressed.options, x)
        g = evaluate_compressed(network, f, compressed.groups, compressed.maps)
        return np.where(domain.contains(f), np.abs(g.outputs[last] - f.outputs[last]).max(1), 0.0)

    x, step = rng.uniform(low, high, (POINTS, len(low))), (high - low) / 20
    on_rows = float(np.abs(replaced.outputs[last] - original.outputs[last]).max())
    found = on_rows
    for _ in range(ROUNDS):
        values = measure(x)
        found = max(found, float(values.max()))
        top = x[np.argsort(-values)[:BEST]]
        x = np.clip(np.repeat(top, STEPS, 0) + rng.normal(size=(BEST * STEPS, len(low))) * step, low, high)
        step *= 0.75
    return on_rows, found, known


def main() -> None:
    """Print the table, and the medians over functions of as many features."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("functions", nargs="*", default=list(FUNCTION_NAMES), metavar="FUNCTION")
    parser.add_argument("--hidden", default="8,8")
    parser.add_argument("--max-drop", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    hidden = tuple(map(int, arguments.hidden.split(",")))
    print("| function | features | neurons that left | test rows | found | proven | ratio | ranges alone | s |")
    print("|---|---|---|---|---|---|---|---|---|")
    ratios: dict[int, list[tuple[float, float]]] = {}
    for name in arguments.functions:
        config = mn.TrainConfig(data=f"function:{name}", activation="vaf", inner="tanh", hidden=hidden, epochs=60, batch_size=32,
                                schedule="cosine", lr=1e-2, seed=arguments.seed, device="cpu")
        network, dataset = mn.train(config).network(), mn.load_dataset(config.data, seed=config.seed)
        compressed = compress_network(network, dataset, mn.Budget(max_drop=arguments.max_drop))
        started = time.perf_counter()
        certificate = certify(network, compressed, dataset.test.x, dataset.calibration.x, dataset.train.x)
        seconds = time.perf_counter() - started
        assert certificate.replacement_bound is not None
        proven = certificate.replacement_bound / float(network.output_scale.max())
        on_rows, found, known = search(network, compressed, dataset, np.random.default_rng(arguments.seed))
        assert found <= proven * (1 + 1e-9), f"{name}: a change of {found:.6g} exceeds what is proven, {proven:.6g}"
        features = network.spec.in_features
        ratios.setdefault(features, []).append((proven / found, known / found))
        left = sum(decision.left for decision in compressed.plan.decisions)
        print(f"| {name} | {features} | {left} | {on_rows:.2g} | {found:.2g} | {proven:.2g} | {proven / found:.2f} | {known:.2g} | "
              f"{seconds:.1f} |", flush=True)
    for features, pairs in sorted(ratios.items()):
        (proven, ranges), (most, widest) = np.median(pairs, 0), np.max(pairs, 0)
        print(f"\n{len(pairs)} functions of {features} features: proven is {proven:.2f} times what is found (at most {most:.2f}), "
              f"from ranges alone {ranges:.1f} times (at most {widest:.0f})")


if __name__ == "__main__":
    main()
