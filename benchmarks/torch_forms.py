"""Compressed networks in torch: against the original, a ReLU network, and the forms in plain torch.

    python benchmarks/torch_forms.py [--device cpu|cuda] [--no-compile] [--seconds 1]

Prints markdown tables of median microseconds, all columns of a row interleaved in one process after a warm-up: on the CPU of
processor time with one thread, on CUDA of elapsed time, until the device has done what a sample queued. Original: meta-neurons,
tanh, inner width 5. Forms: cubic splines with 32 intervals, piecewise-linear functions with 5 knots. `compiled` is torch.compile
with its defaults, for each batch size its own; `graph`, on CUDA, is a forward pass captured as a CUDA graph and replayed. Forward
is without gradients; forward and backward gives the gradients by all parameters. Ratios are medians over the rounds.
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
BATCHES = {"cpu": (1, 32, 1024), "cuda": (1, 1024, 16384)}
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


class Captured(nn.Module):
    """A network whose forward pass is to be captured as a CUDA graph."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network


def capture(network: nn.Module, x: Tensor) -> Run:
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.inference_mode(), torch.cuda.stream(stream):
        for _ in range(3):
            network(x)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.inference_mode(), torch.cuda.graph(graph):
        network(x)

    def run() -> object:
        graph.replay()
        return network, x   # whose memory the graph reads
    return run


def make_forward(network: nn.Module, x: Tensor) -> Run:
    if isinstance(network, Captured):
        return capture(network.network, x)

    def run() -> None:
        with torch.inference_mode():
            network(x)
    return run


def make_step(network: nn.Module, x: Tensor) -> Run:
    def run() -> None:
        network.zero_grad()
        network(x).sum().backward()
    return run


def make_clock(device: str) -> Callable[[], float]:
    """Seconds of processor time, or on CUDA of elapsed time once the device is done."""
    if device == "cpu":
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize()
        return time.perf_counter()
    return now


def measure(runs: Mapping[str, Run], seconds: float, clock: Callable[[], float]) -> dict[str, np.ndarray]:
    """Microseconds of each by round; `seconds` are a contestant's in all rounds."""
    counts = {}
    for name, run in runs.items():
        run()   # compiles
        for _ in range(5):
            run()
        started = clock()
        for _ in range(5):
            run()
        counts[name] = max(1, int(seconds / ROUNDS / (clock() - started) * 5))
    samples: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            started = clock()
            for _ in range(counts[name]):
                run()
            samples[name].append((clock() - started) / counts[name] * 1e6)
    return {name: np.array(values) for name, values in samples.items()}


def print_table(title: str, make_run: Callable[[nn.Module, Tensor], Run], networks: Callable[[tuple[int, ...]], Networks],
                ratios: Mapping[str, tuple[str, str]], seconds: float, device: str) -> None:
    columns = list(networks(SIZES[0]))
    ratios = {name: pair for name, pair in ratios.items() if set(pair) <= set(columns)}
    print(f"\n{title}\n\n| network | batch | {' | '.join([*columns, *ratios])} |\n|---|---|{'---|' * (len(columns) + len(ratios))}")
    for sizes in SIZES:
        for batch in BATCHES[device]:
            torch.compiler.reset()
            x = torch.randn(batch, sizes[0], generator=torch.Generator().manual_seed(1)).to(device)
            runs = {name: make_run(network.to(device), x) for name, network in networks(sizes).items()}
            times = measure(runs, seconds, make_clock(device))
            cells = [f"{np.median(times[name]):.0f}" for name in columns]
            cells += [f"{np.median(times[a] / times[b]):.2f}" for a, b in ratios.values()]
            print(f"| {'-'.join(map(str, sizes))} | {batch} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--device", choices=BATCHES, default="cpu")
    options.add_argument("--no-compile", action="store_true", help="leave out torch.compile, which needs a C++ compiler")
    options.add_argument("--seconds", type=float, default=1.0, help="processor or elapsed time of a cell")
    arguments = options.parse_args()
    torch.set_num_threads(1)
    device = arguments.device
    if device == "cpu":
        assert _operators.NATIVE, "the library was not built"
        what, unit = f"{instruction_set()}, one thread", "processor time"
    else:
        network = make_network((4, 4, 4), make_spline).to(device)
        assert _operators.can_run(torch.ones(4, 4, device=device), *network[1].parameters()), "the kernels do not run"
        what, unit = torch.cuda.get_device_name(), "elapsed time"
    print(f"torch {torch.__version__}, {what}, {ROUNDS} interleaved rounds; median µs of {unit}")

    def all_networks(sizes: tuple[int, ...]) -> Networks:
        contestants = {"ReLU": lambda n: nn.ReLU(), "original": make_original, "spline": make_spline, "kinks": make_kinks}
        eager: Networks = {name: make_network(sizes, make) for name, make in contestants.items()}
        if device == "cuda":
            eager |= {f"{name}, graph": Captured(make_network(sizes, make)) for name, make in contestants.items()}
        if arguments.no_compile:
            return eager
        return eager | {f"{name}, compiled": torch.compile(network, dynamic=False) for name, network in eager.items()
                        if not isinstance(network, Captured)}

    def forms(sizes: tuple[int, ...]) -> Networks:
        kinds = {"spline": make_spline, "kinks": make_kinks}
        plain = {f"{name}, plain": without_library(make_network(sizes, make)) for name, make in kinds.items()}
        return {"ReLU": make_network(sizes, lambda n: nn.ReLU()), "original": make_network(sizes, make_original),
                **{name: make_network(sizes, make) for name, make in kinds.items()}, **plain}

    print_table("Forward", make_forward, all_networks, {
        "original : spline": ("original", "spline"), "spline : ReLU": ("spline", "ReLU"),
        "graph, original : spline": ("original, graph", "spline, graph"), "graph, spline : ReLU": ("spline, graph", "ReLU, graph"),
        "compiled, original : spline": ("original, compiled", "spline, compiled"),
        "compiled, spline : ReLU": ("spline, compiled", "ReLU, compiled")}, arguments.seconds, device)
    for title, make_run in {"Forward, against plain torch": make_forward, "Forward and backward": make_step}.items():
        print_table(title, make_run, forms, {
            "plain : spline": ("spline, plain", "spline"), "plain : kinks": ("kinks, plain", "kinks"),
            "original : spline": ("original", "spline")}, arguments.seconds, device)


if __name__ == "__main__":
    main()
