"""What compression costs in accuracy, and what it gains: tables in Markdown and a picture of the frontier.

    python benchmarks/compression.py --data-dir DATA_DIR [--part targets|default|frontier|regression] [--runs DIR] [--out DIR]

- `targets`: 784-256-10 down to a share of its multiply-adds, in closed form and with distillation.
- `default`: what the default budget makes of smooth activations, what that costs, and how long planning takes; what the preset
  `exact` changes on piecewise linear ones, beside the original's own float32 rounding.
- `frontier`: test accuracy against multiply-adds and latency, beside plain ReLU networks trained at many sizes and beside removing
  neurons by magnitude; writes `frontier.png`, `frontier.svg` and `frontier.json` into `--out`.
- `regression`: on every generated function, what compression changes in vaf tanh networks of two hidden layers, and how many times
  their multiply-adds compressed ReLU networks need for the same test error (needs no data folder).

The first three are about MNIST.
A *drop* is in percentage points of test accuracy, positive where accuracy is lost; flips are test samples whose class changes; a ±
is the standard error over replicates. Trained networks are kept in `--runs` and used again; what was made of them is kept in
`--out`, so another `--out` compresses them anew. There is one CPU thread.
"""

import argparse
import copy
import itertools
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

import mncompress as mn
from mncompress import benchmark, runtime
from mncompress.calibration import run_network
from mncompress.compression import Compressed, compress_network
from mncompress.compression._rewrite import Group, rewrite
from mncompress.data import FUNCTION_NAMES, Dataset
from mncompress.errors import CheckpointError
from mncompress.experiments._families import AXES as COSTS
from mncompress.experiments._families import Advantage, compare
from mncompress.experiments._frontier import Point, load_data, load_point, make_points, run_point
from mncompress.experiments._plots import DARK, GREY, LIGHT, PALETTE, _make_page
from mncompress.export import write_onnx
from mncompress.figures import save_figure
from mncompress.files import write_json
from mncompress.nn import Network, count_macs
from mncompress.spline import Affine
from mncompress.types import Plan

BASE = mn.TrainConfig(data="mnist", activation="vaf", hidden=(256,), epochs=15, replicates=3, seed=1, device="cpu")
TARGETS = (("55%", 0), ("30%", 0), ("30%", 10))         # multiply-adds, epochs of distillation
SHARES = (100, 80, 65, 55, 45, 35, 30, 20, 10)          # of the multiply-adds, per cent
SIZES = (16, 24, 32, 48, 64, 96, 128, 192, 256)
EPOCHS = 5          # of distillation on the frontier
CLOSED, DISTILLED, PRUNED, PLAIN = "closed form", f"{EPOCHS} epochs", "neurons by magnitude", "plain ReLU"
BATCH = 32
VAF = (("vaf tanh", 8), ("vaf tanh", 16))                       # on functions, with the neurons of each of two layers
RELU = tuple(("relu", width) for width in (4, 8, 16, 24, 32, 48, 96))
STYLES: dict[str, tuple[str, str, Any]] = {
    PLAIN: ("#8a919c", "s", "-"), PRUNED: (PALETTE[3], "^", (0, (5, 1.5))), CLOSED: (PALETTE[5], "o", "-"),
    DISTILLED: (PALETTE[0], "o", "-"), "original": (DARK, "D", "none")}
AXES = {"macs": "multiply-adds", "latency": f"latency, µs (batch {BATCH}, one thread)"}


@dataclass(frozen=True)
class Setting:
    """What the parts share."""

    data_dir: Path
    runs: Path
    out: Path
    replicates: int

    @cached_property
    def dataset(self) -> Dataset:
        """MNIST."""
        return mn.load_dataset(BASE.data, data_dir=self.data_dir, seed=BASE.seed)

    def find_run(self, **changes: Any) -> mn.Run:
        """A trained run: read where it is there, else trained or continued."""
        config = replace(BASE, data_dir=str(self.data_dir), **changes)
        sizes = "-".join(map(str, config.hidden))
        folder = self.runs / f"{config.activation.replace(':', '-')}-{config.inner}-{sizes}-{config.epochs}x{config.replicates}"
        try:
            return mn.load_run(folder)
        except CheckpointError:
            return mn.train(config, out=folder, resume=True)

    def compare(self, network: Network, compressed: Network) -> tuple[float, float, float, float, float]:
        """Multiply-adds left, accuracy before and after, drop, flips; all in per cent."""
        first, second = (run_network(each, self.dataset.test.x).argmax(1) for each in (network, compressed))
        before, after = (100 * float((classes == self.dataset.test.y).mean()) for classes in (first, second))
        macs = 100 * count_macs(compressed) / count_macs(network)
        return macs, before, after, before - after, 100 * float((first != second).mean())


def average(values: Sequence[float]) -> tuple[float, float]:
    """Mean and standard error, NaN of a single value."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else np.nan


def tell(*cells: object, head: bool = False) -> None:
    """A row of a table."""
    print("\n" * head + f"| {' | '.join(map(str, cells))} |" + head * f"\n{'|---' * len(cells)}|", flush=True)


def show_targets(setting: Setting) -> None:
    tell("784-256-10", "target", "epochs", "replicate", "% of multiply-adds", "accuracy", "after", "drop", "% flips", head=True)
    for inner in ("relu", "tanh"):
        run = setting.find_run(inner=inner)
        plans: dict[tuple[str, int], Plan] = {}
        for share, epochs in TARGETS:
            rows = []
            for k in range(setting.replicates):
                network = run.network(k)
                budget, plan = mn.Budget(target_macs=share), plans.get((share, k))
                found = compress_network(network, setting.dataset, budget, plan=plan, epochs=epochs)
                plans[share, k] = found.plan        # distillation continues from the plan in closed form
                rows.append(setting.compare(network, found.network))
                tell(f"vaf {inner}", share, epochs, k, *(f"{value:.2f}" for value in rows[-1]))
            means = map(average, zip(*rows, strict=True))
            tell(f"vaf {inner}", share, epochs, "mean", *("{:.2f} ± {:.2f}".format(*each) for each in means))


def show_default(setting: Setting) -> None:
    tell("default budget", "became", "kept", "multiply-adds", "drop", "flips", "planning, s of CPU time", head=True)
    for inner, family, width in itertools.product(("tanh", "sigmoid"), ("meta", "vaf"), (7, 64, 256)):
        network = setting.find_run(activation=family, inner=inner, hidden=(width,), epochs=5, replicates=1).network()
        show_case(f"784-{width}-10 {family} {inner}", network, setting)
    network = setting.find_run(inner="tanh", hidden=(1024, 1024), epochs=1, replicates=1).network()
    show_case("784-1024-1024-10 vaf tanh after one epoch", network, setting)
    tell("preset exact", "became", "kept", "rounding of the original", "difference of the compressed", "ratio", "flips", head=True)
    for family, width in itertools.product(("meta", "vaf"), (7, 64, 256)):
        network = setting.find_run(activation=family, hidden=(width,), epochs=5, replicates=1).network()
        show_exact(f"784-{width}-10 {family} relu", network, setting)


def show_case(name: str, network: Network, setting: Setting) -> None:
    started = time.process_time()
    found = compress_network(network, setting.dataset, mn.Budget())
    seconds = time.process_time() - started
    macs, _, _, drop, flips = setting.compare(network, found.network)
    tell(name, *count_kinds(found.plan), f"{macs:.1f} % | {drop:.2f} | {flips:.2f} % | {seconds:.1f}")


def show_exact(name: str, network: Network, setting: Setting) -> None:
    found = compress_network(network, setting.dataset, mn.Budget(preset="exact"))
    exact = run_network(copy.deepcopy(network).double(), setting.dataset.test.x)
    rounding, change = (float(np.abs(run_network(each, setting.dataset.test.x) - exact).max()) for each in (network, found.network))
    ratio, flips = change / rounding, setting.compare(network, found.network)[-1]
    tell(name, *count_kinds(found.plan), f"{rounding:.2g} | {change:.2g} | {ratio:.2f} | {flips:.2f} %")


def count_kinds(plan: Plan) -> tuple[str, int]:
    """What the neurons became, and how many were kept."""
    kinds = Counter("left" if decision.left else str(decision.kind) for decision in plan.decisions)
    kept = kinds.pop("kept", 0)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common()), kept


@dataclass(frozen=True)
class Entry:
    """A network on the frontier; `step` is its share of the multiply-adds asked for, in per cent, or its size."""

    inner: str
    contender: str
    step: int
    replicate: int
    accuracy: float
    macs: float
    latency: float = 0.0


def make_contenders(setting: Setting) -> Iterator[tuple[tuple[str, str, int, int], Callable[[], Network]]]:
    """Every network of the frontier by its inner activation, contender, step and replicate; made when it is asked for."""
    for k in range(setting.replicates):
        for size in SIZES:
            yield ("", PLAIN, size, k), partial(lambda k, size: setting.find_run(
                activation="fixed:relu", hidden=(size,)).network(k), k, size)
        for inner in ("relu", "tanh"):
            original = cache(partial(lambda k, inner: setting.find_run(inner=inner).network(k), k, inner))
            forms = make_cached(setting, original, 100)
            yield (inner, "original", 100, k), original
            for share in SHARES:
                found = make_cached(setting, original, share)
                yield (inner, CLOSED, share, k), partial(lambda found: found().network, found)
                yield (inner, DISTILLED, share, k), partial(lambda original, found, share: compress_network(
                    original(), setting.dataset, mn.Budget(target_macs=f"{share}%"), plan=found().plan, epochs=EPOCHS).network,
                    original, found, share)
                yield (inner, PRUNED, share, k), partial(lambda original, forms, share: prune(
                    original(), forms(), share / 100, setting.dataset), original, forms, share)


def make_cached(setting: Setting, original: Callable[[], Network], share: int) -> Callable[[], Compressed]:
    """The original down to a share of its multiply-adds, in per cent: computed once, when it is asked for."""
    return cache(lambda: compress_network(original(), setting.dataset, mn.Budget(target_macs=f"{share}%")))


@torch.no_grad()
def prune(network: Network, forms: Compressed, share: float, dataset: Dataset) -> Network:
    """A network of one hidden layer in its default forms, with the neurons of least |outgoing weights| times deviation removed.

    Their means move into the bias behind.
    """
    layer, following = network.layers
    y = layer(network.features(torch.as_tensor(dataset.calibration.x))).double().numpy()
    score = np.linalg.norm(following.linear.weight.double().numpy(), axis=0) * y.std(0)
    for group in forms.groups[0]:
        score[group.indices] *= group.key != "constant" and not group.left
    cost = count_macs(forms.network) / forms.network.layers[0].linear.out_features
    stays = np.argsort(-score)[:min(int(share * count_macs(network) / cost), int((score > 0).sum()))]
    kept = [(group, np.flatnonzero(np.isin(group.indices, stays))) for group in forms.groups[0]]
    groups = [Group(group.key, group.indices[some], group.form and group.form.select(some), group.exact[some])
              for group, some in kept if len(some)]
    gone = np.setdiff1d(np.arange(len(score)), stays)
    means = Affine(np.zeros(len(gone)), y[:, gone].mean(0))
    return rewrite(network, [[*groups, Group("constant", gone, means, np.zeros(len(gone), bool))]])


def measure_frontier(setting: Setting, seconds: float = 30.0) -> list[Entry]:
    """All contenders, read where they are there; their latencies come from one interleaved run."""
    entries: list[Entry] = []
    paths: dict[str, Path] = {}
    folder = setting.out / "frontier"
    folder.mkdir(parents=True, exist_ok=True)
    for key, make in make_contenders(setting):
        path = folder / f"{'-'.join(map(str, key)).replace(' ', '_')}.onnx"
        known = path.with_suffix(".json")
        if known.exists():
            entry = Entry(**json.loads(known.read_text(encoding="utf-8")))
        else:
            network = make()
            entry = Entry(*key, setting.compare(network, network)[1], count_macs(network))
            write_onnx(network, path, opset_version=18, inline=False, metadata={})
            write_json(known, asdict(entry))
        entries.append(entry)
        paths[str(key)] = path
    found = benchmark.measure(paths, batch=BATCH, seconds=seconds, inputs=setting.dataset.test.x[:BATCH])
    return [replace(entry, latency=float(np.median(samples))) for entry, samples in zip(entries, found.samples_us, strict=True)]


class Curve:
    """A contender's means over replicates, by step."""

    def __init__(self, entries: Sequence[Entry], inner: str, contender: str) -> None:
        mine = [each for each in entries if each.contender == contender and each.inner in ("", inner)]
        self.steps = sorted({each.step for each in mine})
        by_step = [[each for each in mine if each.step == step] for step in self.steps]
        self.accuracy, self.error = np.array([average([each.accuracy for each in some]) for some in by_step]).T
        self.costs = {axis: np.array([np.mean([getattr(each, axis) for each in some]) for some in by_step]) for axis in AXES}

    def find_gaps(self, rival: "Curve", axis: str) -> dict[int, float]:
        """By step, by how much a rival is better at no more cost: interpolated in the logarithm, NaN below its cheapest."""
        order = np.argsort(rival.costs[axis])
        best = np.maximum.accumulate(rival.accuracy[order])
        found = np.interp(np.log(self.costs[axis]), np.log(rival.costs[axis][order]), best, left=np.nan)
        return dict(zip(self.steps, found - self.accuracy, strict=True))


def show_frontier(entries: Sequence[Entry], inner: str) -> None:
    curves = {name: Curve(entries, inner, name) for name in STYLES}
    tell(f"784-256-10 vaf {inner}", "share asked, %, or size", "multiply-adds", "µs", "accuracy", head=True)
    for name, curve in curves.items():
        shares = curve.costs["macs"] / curves["original"].costs["macs"]
        for step, *values in zip(curve.steps, shares, curve.costs["latency"], curve.accuracy, curve.error, strict=True):
            tell(name, step, "{:.1%} | {:.1f} | {:.2f} ± {:.2f}".format(*values))
    print()
    for name, rival, axis in itertools.product((CLOSED, DISTILLED), (PLAIN, PRUNED), AXES):
        below = [f"{step} % ({gap:.2f})" for step, gap in curves[name].find_gaps(curves[rival], axis).items() if gap >= 0.005]
        print(f"- vaf {inner}, {name}, below {rival} at equal {AXES[axis]}: {', '.join(below) or 'nowhere'}")


def draw_frontier(entries: Sequence[Entry]) -> Any:
    """The picture (`matplotlib.figure.Figure`)."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    figure, plots = _make_page(4, 2, "784-256-10 on MNIST, compressed")
    lowest = min(each.accuracy for each in entries if each.contender != PRUNED)       # by magnitude it may fall far below
    for plot, (inner, axis) in zip(plots, itertools.product(("relu", "tanh"), AXES), strict=True):
        for name, (color, marker, line) in STYLES.items():
            curve = Curve(entries, inner, name)
            plot.errorbar(curve.costs[axis], curve.accuracy, curve.error, label=name, color=color, marker=marker, linestyle=line,
                          markersize=3, linewidth=1, elinewidth=0.6)
        plot.set_xscale("log")
        plot.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plot.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"))
        plot.xaxis.set_minor_locator(NullLocator())
        plot.set_ylim(lowest - 0.3, max(each.accuracy for each in entries) + 0.2)
        plot.set_title(f"vaf {inner}: test accuracy, %", loc="left", fontsize=8, color=DARK, pad=4)
        plot.set_xlabel(AXES[axis], fontsize=7, color=GREY, labelpad=2)
        plot.grid(color=LIGHT, linewidth=0.4, alpha=0.6)
    handles, labels = plots[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.02, 0.945), ncols=len(labels), frameon=False, fontsize=7.5,
                  labelcolor=DARK)
    return figure


def make_frontier(setting: Setting) -> None:
    print(runtime.describe_environment())
    entries = measure_frontier(setting)
    write_json(setting.out / "frontier.json", [asdict(entry) for entry in entries])
    for suffix in ("png", "svg"):
        save_figure(setting.out / f"frontier.{suffix}", draw_frontier(entries))
    for inner in ("relu", "tanh"):
        show_frontier(entries, inner)


def show_regression(setting: Setting) -> None:
    """First what compression changes in all vaf networks, then what ReLU networks need for the same."""
    changes: list[float] = []
    tell("target", "network", "nRMSE", "of one network", "compressed", "change, %", "multiply-adds", head=True)
    for name in FUNCTION_NAMES:
        for point in find_points(f"function:{name}", setting, VAF):
            changes.append(100 * (point.error_compressed / point.error_original - 1))
            tell(name, f"{point.width}-{point.width}", *(f"{value:.4g}" for value in (
                point.error, point.error_original, point.error_compressed)), f"{changes[-1]:+.2f}", point.macs)
    within = sum(change <= 1 for change in changes)
    print(f"\nlargest rise of the error {max(changes):.2f} %; {within} of {len(changes)} within 1 %")
    advantages: dict[tuple[str, int], Advantage] = {}
    tell("target", "network", "multiply-adds", "times as many for ReLU", head=True)
    for name in FUNCTION_NAMES:
        for each in compare(find_points(f"function:{name}", setting, (*VAF, *RELU)), {}, COSTS[0]):
            advantages[name, each.point.width] = each
            tell(name, f"{each.point.width}-{each.point.width}", each.point.macs, each.text())
    print()
    for widths in ((8,), (16,), (8, 16)):
        reached, certain = (sum(any(count(advantages[name, width]) for width in widths) for name in FUNCTION_NAMES)
                            for count in (lambda each: each.ratio >= 4, lambda each: (each.low or 0) >= 4))
        print(f"{' or '.join(map(str, widths))} neurons: at most a quarter of ReLU's multiply-adds on {reached} of "
              f"{len(FUNCTION_NAMES)} functions, with 95 % confidence on {certain}")


def find_points(data: str, setting: Setting, contenders: Sequence[tuple[str, int]]) -> list[Point]:
    """Contenders on a function, compressed: read where they are there, else trained and compressed."""
    base = mn.TrainConfig(data=data, replicates=5, epochs=20, seed=1, device="cpu")
    dataset, points = load_data(base, data), []
    configs = make_points(base, dataset)
    for name, width in contenders:
        config = replace(configs[name, min(width, 48)], hidden=(width, width))
        folders = setting.out / "regression", setting.runs / "regression"
        points.append(load_point(config, dataset.content_hash, folders[0])
                      or run_point(name, config, dataset, folders[0], trained=folders[1]))
    return points


PARTS = {"targets": show_targets, "default": show_default, "frontier": make_frontier, "regression": show_regression}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="torchvision's folder")
    parser.add_argument("--part", choices=list(PARTS), help="by default all of them")
    parser.add_argument("--runs", type=Path, default=Path("runs"), help="folder of the trained networks")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    parser.add_argument("--replicates", type=int, choices=(1, 2, 3), default=3, help="how many to compress")
    options = parser.parse_args()
    torch.set_num_threads(1)
    setting = Setting(options.data_dir, options.runs, options.out, options.replicates)
    for part in [options.part] if options.part else PARTS:
        PARTS[part](setting)


if __name__ == "__main__":
    main()
