"""Learned against fixed activations at equal cost: the arithmetic of the comparison, and its cells."""

import dataclasses
import itertools
import math
from pathlib import Path

import numpy as np
import onnx
import pytest

from mncompress.data import load_dataset
from mncompress.errors import CheckpointError, DataError
from mncompress.experiments import Plan, reproduce
from mncompress.experiments import _families as families
from mncompress.experiments import _frontier as frontier
from mncompress.experiments._families import AXES, compare, envelope_cost, render_summary, run_families
from mncompress.experiments._frontier import Point, load_point, make_points, run_point
from mncompress.types import TrainConfig

SETTINGS = TrainConfig(replicates=2, epochs=1, device="cpu")
MACS = AXES[0]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A frontier that takes seconds."""
    for contenders, kept in ((frontier.LEARNED, ("vaf tanh", "vaf relu")), (frontier.FIXED, ("relu",))):
        for name in set(contenders) - set(kept):
            monkeypatch.delitem(contenders, name)
    monkeypatch.setitem(frontier.WIDTHS, "learned", (2,))
    monkeypatch.setitem(frontier.WIDTHS, "fixed", (2, 3))
    for module in (frontier, families):
        monkeypatch.setattr(module, "RATES", (1e-3, 1e-2))
    monkeypatch.setattr(frontier, "LATENCY_SECONDS", 0.01)


def make_point(contender: str, macs: int, errors: tuple[float | None, ...], *, learned: bool = False, width: int = 4) -> Point:
    return Point(f"{contender}-{macs}", contender, learned, width, "data", "sha256:0", "nrmse", 1e-2, errors, 0.1, 0.1, macs, macs,
                 macs, {"native": 4}, 1.0, {"gpu": None, "device": "cpu", "cpu": "a processor", "torch": "2"})


# The envelope


def test_envelope_by_hand() -> None:
    costs, errors = np.array([100.0, 10.0, 1000.0]), np.array([0.1, 1.0, 0.01])
    assert envelope_cost(costs, errors, 0.1) == 100
    assert envelope_cost(costs, errors, 0.01) == 1000
    assert envelope_cost(costs, errors, 0.005) == math.inf
    assert envelope_cost(costs, errors, 5.0) == 10                                      # nothing is extrapolated
    assert envelope_cost(costs, errors, 10**-0.5) == pytest.approx(10**1.5, rel=1e-12)  # half way, in logarithms
    assert envelope_cost(costs, errors, 10**-1.25) == pytest.approx(10**2.25, rel=1e-12)


def test_envelope_ignores_what_is_larger_and_worse() -> None:
    costs, errors = np.array([10.0, 20.0, 40.0, 80.0]), np.array([0.5, 0.7, np.inf, 0.1])
    without = envelope_cost(costs[[0, 3]], errors[[0, 3]], 0.2)
    assert envelope_cost(costs, errors, 0.2) == without
    assert 10 < without < 80
    assert envelope_cost(np.array([5.0, 5.0]), np.array([0.4, 0.2]), 0.2) == 5          # two of one cost: the better


@pytest.mark.parametrize("seed", range(5))
def test_envelope_is_monotone(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs, errors = rng.uniform(1, 100, 8), rng.uniform(0.01, 1, 8)
    found = [envelope_cost(costs, errors, error) for error in np.linspace(errors.min(), 1.2, 50)]
    assert all(a >= b for a, b in itertools.pairwise(found))
    assert min(found) >= costs.min()
    assert max(found) <= costs.max()


def test_advantage() -> None:
    points = [make_point("relu", 100, (1.0,) * 5), make_point("relu", 1000, (0.1,) * 5),
              make_point("vaf tanh", 100, (0.1,) * 5, learned=True), make_point("frelu", 1000, (1.0,) * 5, learned=True),
              make_point("meta relu", 50, (0.05,) * 5, learned=True)]
    vaf, frelu, meta = compare(points, {}, MACS)
    assert (vaf.ratio, vaf.low, vaf.high, vaf.wins) == (10, 10, 10, True)       # replicates that agree leave no doubt
    assert (frelu.ratio, frelu.wins) == (0.1, False)
    assert meta.ratio == math.inf
    assert meta.wins
    assert meta.text() == "> 20.00 (> 20.00 to > 20.00)"       # the largest fixed network costs 1000
    assert vaf.text() == "10.00 (10.00 to 10.00)"


def test_interval_of_the_advantage_covers_what_replicates_leave_open() -> None:
    fixed = [make_point("relu", 100, (1.0, 1.1, 0.9, 1.05, 1.2)), make_point("relu", 1000, (0.1, 0.11, 0.12, 0.09, 0.1))]
    noise = (0.05, 1.2, 0.2, 1.3, 0.3)
    (noisy,) = compare([*fixed, make_point("vaf tanh", 100, noise, learned=True)], {}, MACS)
    assert noisy.low < noisy.ratio < noisy.high
    assert not noisy.wins
    (diverged,) = compare([*fixed, make_point("vaf tanh", 100, (0.5, None, None, None, 0.4), learned=True)], {}, MACS)
    assert diverged.point.error == math.inf
    assert not diverged.wins
    (few_networks,) = compare([*fixed, make_point("vaf tanh", 100, noise[:4], learned=True)], {}, MACS)
    assert (few_networks.low, few_networks.high, few_networks.wins) == (None, None, False)
    assert few_networks.text() == f"{few_networks.ratio:.2f}"


def test_summary_names_the_best() -> None:
    points = [make_point(name, 100 + number, (1.0,) * 3) for number, name in enumerate(frontier.FIXED)]
    points += [make_point("relu", 2000, (0.1,) * 3, width=8)]
    points += [make_point(name, 100 + 10 * number, (0.2 + number / 10,) * 3, learned=True)
               for number, name in enumerate(frontier.LEARNED)]
    latencies = {point.key: {batch: float(point.macs) for batch in frontier.BATCHES} for point in points}
    text = render_summary([found for axis in AXES for found in compare(points, latencies, axis)], points, "the command")
    row = next(line for line in text.splitlines() if line.startswith("| data | meta relu"))
    assert row.count("meta relu 4:") == len(AXES)
    assert f"of {len(frontier.LEARNED)}" in row


# Cells


def test_what_is_compared(few: None) -> None:
    regression, classes = load_dataset("function:erf"), load_dataset("digits")
    for dataset, layers in ((regression, 2), (classes, 1)):
        points = make_points(SETTINGS, dataset)
        assert set(points) == {("vaf tanh", 2), ("vaf relu", 2), ("relu", 2), ("relu", 3)}
        assert {len(config.hidden) for config in points.values()} == {layers}
        assert {(config.batch_size, config.epochs) for config in points.values()} == {(32, 4)}      # the same budget for all
    assert len({frontier.make_key(config, "a") for config in make_points(SETTINGS, regression).values()}) == 4


def test_key_is_the_recipe() -> None:
    config = TrainConfig(data="digits")
    key = frontier.make_key(config, "a")
    assert frontier.make_key(dataclasses.replace(config, device="cpu", data_dir="elsewhere"), "a") == key
    others = [frontier.make_key(config, "b"), *(frontier.make_key(dataclasses.replace(config, **change), "a") for change in (
        {"epochs": 3}, {"hidden": (3,)}, {"seed": 1}, {"replicates": 2}, {"ends": "gated"}, {"schedule": "cosine"}))]
    assert len({key, *others}) == 8


def test_point_and_its_files(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load_dataset("function:erf")
    config = make_points(dataclasses.replace(SETTINGS, data="function:erf", epochs=5), dataset)["vaf tanh", 2]
    assert load_point(config, dataset.content_hash, tmp_path) is None
    point = run_point("vaf tanh", config, dataset, tmp_path)
    assert load_point(config, dataset.content_hash, tmp_path) == point
    assert point.learned
    assert len(point.errors) == 2
    assert point.rate in frontier.RATES
    # an independent figure: the stored network under onnx's reference evaluator
    model = onnx.reference.ReferenceEvaluator(onnx.load(tmp_path / f"{point.key}.onnx"))
    pieces = [model.run(None, {"input": dataset.test.x[start:start + 50]})[0] for start in range(0, len(dataset.test), 50)]
    y = dataset.test.y.astype(np.float64)
    error = np.sqrt(np.mean((np.concatenate(pieces) - y) ** 2)) / y.std()
    # float32 outputs of two runtimes, and six stored digits
    assert point.error_compressed == pytest.approx(error, rel=1e-4)
    assert point.error_compressed == pytest.approx(point.error_original, rel=0.05)
    (tmp_path / f"{point.key}.json").write_text("{")
    with pytest.raises(CheckpointError, match="is truncated or no JSON"):
        load_point(config, dataset.content_hash, tmp_path)


def test_diverging_rates_are_left_out(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frontier, "RATES", (1e-3, 1e12))
    dataset = load_dataset("function:erf")
    config = make_points(dataclasses.replace(SETTINGS, data="function:erf"), dataset)["vaf relu", 2]
    assert run_point("vaf relu", config, dataset, tmp_path).rate == 1e-3


def test_plan_leaves_out_what_is_not_there(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "probe_speed", lambda config, seconds: 2.0)
    told: list[str] = []
    sets = ["function:erf", str(tmp_path / "missing.npz"), "function:bessel"]
    plan = families.plan_families(SETTINGS, sets, tmp_path, tell=told.append)
    # 2 data sets of 4 points, each of 2 rates with 2 networks; 4 epochs of 2 seconds
    assert plan == families.FamiliesPlan(("function:erf", "function:bessel"), 8, 0, 8 * len(families.RATES) * 2, 8 * 4 * 2.0)
    assert [line.split(" is left out")[0] for line in told] == sets[1:2]
    with pytest.raises(DataError, match=r"missing\.npz"):
        families.plan_families(SETTINGS, sets[1:2], tmp_path, tell=told.append)


def test_reproduce_families(few: None, tmp_path: Path) -> None:
    plans: list[Plan] = []
    sets = ("function:erf",)
    done = reproduce("families", SETTINGS, tmp_path / "out", data_sets=sets, planned=plans.append)
    assert plans == [done.plan]
    assert dict(done.plan.experiments) == {"families": 4}
    assert (done.plan.finished, done.plan.networks) == (0, 4 * 2 * len(frontier.RATES))
    assert {path.name for path in (tmp_path / "out").iterdir()} == {path.name for path in done.files} | {"cells"}
    summary = (tmp_path / "out" / "families.md").read_text()
    assert "mncompress reproduce families --data function:erf --replicates 2 --epochs 1`" in summary
    again = reproduce("families", SETTINGS, tmp_path / "out", data_sets=sets, resume=True)
    assert (again.plan.finished, again.plan.networks, again.plan.seconds) == (4, 0, 0)


@pytest.mark.parametrize("data", ["function:erf", "digits"])
def test_whole_frontier(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: str) -> None:
    told: list[str] = []
    files = run_families(SETTINGS, [data], tmp_path, "command", tell=told.append)
    assert all(path.stat().st_size > 100 for path in files)
    assert {path.suffix for path in files} == {".png", ".svg", ".csv", ".md"}
    assert len(told) == 5
    rows = (tmp_path / f"families-{data.replace(':', '-')}.csv").read_text().splitlines()
    assert len(rows) == 5
    monkeypatch.setattr(families, "run_point", lambda *args: pytest.fail("everything is there"))
    run_families(SETTINGS, [data], tmp_path, "command", tell=told.append)
