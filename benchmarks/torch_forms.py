"""Compressed networks in torch on the CPU: against the original, a ReLU network, and the forms in plain torch.

    python benchmarks/torch_forms.py [--no-compile] [--seconds 1]

Prints markdown tables of median microseconds of processor time, one thread, all columns of a row interleaved in one process
after a warm-up. Original: meta-neurons, tanh, inner width 5. Forms: cubic splines with 32 intervals, piecewise-linear functions
with 5 knots. `compiled` is torch.compile with its defaults, for each batch size its own. Forward is without gradients; forward
and backward gives the gradients by all parameters. Ratios are medians over the rounds.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from mncompress import spline
from mncompress.native import instruction_set
from mncompress.nn import CubicSpline, PiecewiseLinear, _operators, initialize_activation_, make_activation
from mncompress.types import ActivationSpec

SIZES = ((784, 128, 128, 10), (64, 64, 10))
BATCHES = (1, 32, 1024)
INTERVALS, KNOTS = 32, 5
ROUNDS = 25
Run = Callable[[], object]
Networks = dict[str, nn.Module]


def make_spline(n: int) -> nn.Module:
    rng = np.random.default_rng(0)
    return CubicSpline(spline.CubicSpline(np.full(n, -3.0), np.full(n, INTERVALS / 6), rng.standard_normal((n, INTERVALS, 4)) / 3))


def make_kinks(n: int) -> nn.Module:
    rng = np.random.default_rng(0)
    knots, changes = np.sort(rng.standard_normal((n, KNOTS)), 1), rng.standard_normal((n, KNOTS)) / 3
    return PiecewiseLinear(spline.PiecewiseLinear(knots, changes, np.ones(n), np.zeros(n)))


def make_original(n: int) -> nn.Module:
    activation = make_activation(ActivationSpec("meta", "tanh", 5, 1), n)
    initialize_activation_(activation, "random", torch.Generator().manual_seed(0))
    return activation


def make_network(sizes: tuple[int, ...], make: Callable[[int], nn.Module]) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(sizes[0], sizes[1])]
    for fan_in, fan_out in itertools.pairwise(sizes[1:]):
        layers += [make(fan_in), nn.Linear(fan_in, fan_out)]
    return nn.Sequential(*layers)


def without_library(network: nn.Module) -> nn.Module:
    """The same with the forms' plain code; `network` is not to be used afterwards."""
    for module in network.modules():
        if isinstance(module, CubicSpline | PiecewiseLinear):
            module.forward = module.forward_plain  # type: ignore[method-assign]
    return network


def make_forward(network: nn.Module, x: Tensor) -> Run:
    def run() -> None:
        with torch.inference_mode():
            network(x)
    return run


def make_step(network: nn.Module, x: Tensor) -> Run:
    def run() -> None:
        network.zero_grad()
        network(x).sum().backward()
    return run


def measure(runs: Mapping[str, Run], seconds: float) -> dict[str, np.ndarray]:
    """Microseconds of each by round; `seconds` are a contestant's in all rounds."""
    counts = {}
    for name, run in runs.items():
        run()   # compiles
        for _ in range(5):
            run()
        started = time.process_time()
        for _ in range(5):
            run()
        counts[name] = max(1, int(seconds / ROUNDS / (time.process_time() - started) * 5))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = time.process_time()
            for _ in range(counts[name]):
                run()
            samples[name].append((time.process_time() - started) / counts[name] * 1e6)
    return {name: np.array(values) for name, values in samples.items()}


def print_table(title: str, make_run: Callable[[nn.Module, Tensor], Run], networks: Callable[[tuple[int, ...]], Networks],
                ratios: Mapping[str, tuple[str, str]], seconds: float) -> None:
    columns = list(networks(SIZES[0]))
    ratios = {name: pair for name, pair in ratios.items() if set(pair) <= set(columns)}
    print(f"\n{title}\n\n| network | batch | {' | '.join([*columns, *ratios])} |\n|---|---|{'---|' * (len(columns) + len(ratios))}")
    for sizes in SIZES:
        for batch in BATCHES:
            torch.compiler.reset()
            x = torch.randn(batch, sizes[0], generator=torch.Generator().manual_seed(1))
            times = measure({name: make_run(network, x) for name, network in networks(sizes).items()}, seconds)
            cells = [f"{np.median(times[name]):.0f}" for name in columns]
            cells += [f"{np.median(times[a] / times[b]):.2f}" for a, b in ratios.values()]
            print(f"| {'-'.join(map(str, sizes))} | {batch} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a C++ compiler")
    options.add_argument("--seconds", type=float, default=1.0, help="processor time of a cell")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    assert _operators.NATIVE, "the library was not built"
    print(f"torch {torch.__version__}, {instruction_set()}, one thread, {ROUNDS} interleaved rounds; median µs of processor time")

    def all_networks(sizes: tuple[int, ...]) -> Networks:
        contestants = {"ReLU": lambda n: nn.ReLU(), "original": make_original, "spline": make_spline, "kinks": make_kinks}
        eager: Networks = {name: make_network(sizes, make) for name, make in contestants.items()}
        if arguments.no_compile:
            return eager
        return eager | {f"{name}, compiled": torch.compile(network, dynamic=False) for name, network in eager.items()}

    def forms(sizes: tuple[int, ...]) -> Networks:
        kinds = {"spline": make_spline, "kinks": make_kinks}
        plain = {f"{name}, plain": without_library(make_network(sizes, make)) for name, make in kinds.items()}
        return {"ReLU": make_network(sizes, lambda n: nn.ReLU()), "original": make_network(sizes, make_original),
                **{name: make_network(sizes, make) for name, make in kinds.items()}, **plain}

    print_table("Forward", make_forward, all_networks, {
        "original : spline": ("original", "spline"), "spline : ReLU": ("spline", "ReLU"),
        "compiled, original : spline": ("original, compiled", "spline, compiled"),
        "compiled, spline : ReLU": ("spline, compiled", "ReLU, compiled")}, arguments.seconds)
    for title, make_run in {"Forward, against plain torch": make_forward, "Forward and backward": make_step}.items():
        print_table(title, make_run, forms, {
            "plain : spline": ("spline, plain", "spline"), "plain : kinks": ("kinks, plain", "kinks"),
            "original : spline": ("original", "spline")}, arguments.seconds)


if __name__ == "__main__":
    main()
