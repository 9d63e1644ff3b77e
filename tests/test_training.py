"""Training: learning, reproducibility, and a run folder that survives interruption at every moment."""

import dataclasses
import errno
import functools
import itertools
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mncompress.checkpoint import Run, load_record, load_run, read_metrics
from mncompress.data import Dataset, load_dataset, standardization_of
from mncompress.errors import CheckpointError, ConfigError, OutputError, RuntimeProviderError, TrainingError
from mncompress.nn import Network
from mncompress.training import TrainProgress, choose_device, train, train_stacks
from mncompress.training import _checkpoint as checkpoint_module
from mncompress.training import _native_steps as native_steps
from mncompress.training import _train as train_module
from mncompress.training import _trainer as trainer_module
from mncompress.training._metrics import follow
from mncompress.training._population import make_population
from mncompress.types import EpochMetrics, TrainConfig

ONE_LINE = r"^[^\n]*{}[^\n]*$"
DIVERGING = {"lr": 1e8, "activation": "vaf", "inner": "silu", "hidden": (4, 4, 4)}
"""Overflows float32 in the first epoch: four layers of three factors of 1e8 each."""


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A classification of 90 rows that trains in milliseconds."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((120, 3)).astype(np.float32)
    y = (x[:, 0] * x[:, 1] > 0).astype(np.int64) + (x[:, 2] > 1)
    path = tmp_path_factory.mktemp("data") / "small.npz"
    np.savez(path, x_train=x[:90], y_train=y[:90], x_test=x[90:], y_test=y[90:])
    return str(path)


def make_config(data: str, **changes: Any) -> TrainConfig:
    return TrainConfig(**{"data": data, "hidden": (4,), "inner_width": 2, "epochs": 2, "batch_size": 16, "device": "cpu"} | changes)


def one_line(words: str) -> str:
    return ONE_LINE.format(words)


def assert_same_weights(a: Run, b: Run) -> None:
    assert a.replicates.keys() == b.replicates.keys()
    assert all(torch.equal(value, b.replicates[name]) for name, value in a.replicates.items())
    assert a.record == b.record


def without_seconds(folder: Path) -> list[tuple[Any, ...]]:
    return [dataclasses.astuple(row)[:-1] for row in read_metrics(folder / "metrics.csv")]


def run_digits(tmp_path: Path, **changes: Any) -> tuple[Run, list[float]]:
    options = {"data": "digits", "hidden": (8, 8), "epochs": 3, "lr": 2e-2, "batch_size": 64, "device": "cpu"}
    config = TrainConfig(**options | changes)
    run = train(config, out=tmp_path / "run")
    return run, [row.train_loss for row in read_metrics(tmp_path / "run" / "metrics.csv")]


# Learning


@pytest.mark.parametrize("changes", [
    {"activation": "fixed:relu"}, {"activation": "meta"}, {"activation": "meta", "inner": "tanh", "inner_layers": 2},
    {"activation": "vaf", "inner": "silu"}, {"activation": "agsig"}, {"activation": "frelu"}, {"activation": "warp:gelu"},
    {"activation": "vaf", "shared": True}, {"activation": "vaf,warp:elu", "residual": True},
    {"activation": "warp:softplus", "output_activation": True}, {"hidden": ()}, {"init": "glorot", "activation": "vaf"},
    {"init": "uniform", "activation": "vaf", "replicates": 2}], ids=str)
def test_every_family_learns(tmp_path: Path, changes: dict[str, Any]) -> None:
    run, losses = run_digits(tmp_path, **changes)
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < 0.9 * losses[0]
    accuracy = run.validation_metric[run.best]
    assert accuracy is not None
    assert accuracy > 0.2       # chance is 0.1


@pytest.mark.parametrize("activation", ["fixed:tanh", "vaf", "meta"])
def test_regression_learns(tmp_path: Path, activation: str) -> None:
    config = TrainConfig(data="function:product", activation=activation, inner="tanh", hidden=(8,), epochs=6, lr=3e-2, device="cpu")
    train(config, out=tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[-1].validation_metric < 0.7 * rows[0].validation_metric


def validation_outputs(network: Network, dataset: Dataset) -> np.ndarray:
    return network(torch.as_tensor(dataset.validation.x)).double().numpy()


def test_accuracy_is_that_of_the_networks(small: str) -> None:
    config = make_config(small, replicates=3)
    run, dataset = train(config), load_dataset(small)
    for k in range(3):
        right = validation_outputs(run.network(k), dataset).argmax(1) == dataset.validation.y
        assert run.validation_metric[k] == pytest.approx(right.mean(), rel=1e-6, abs=0)
    best = run.validation_metric[run.best]
    assert best == max(m for m in run.validation_metric if m is not None)
    assert torch.equal(run.network().layers[0].linear.weight, run.network(run.best).layers[0].linear.weight)


@pytest.mark.parametrize("unit", [1.0, 1e-20, 1e25])
def test_rmse_is_in_the_units_of_the_target(tmp_path: Path, unit: float) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((80, 2)).astype(np.float32)
    y = (np.stack([x[:, 0] + 3, 5 * x[:, 1] * x[:, 0]], 1) * unit).astype(np.float32)
    np.savez(tmp_path / "r.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    run = train(make_config(str(tmp_path / "r.npz"), activation="fixed:tanh", replicates=2), out=tmp_path / "run")
    dataset = load_dataset(str(tmp_path / "r.npz"))
    for k in range(2):
        error = validation_outputs(run.network(k), dataset) - dataset.validation.y
        # float32 outputs standardized, then scaled
        assert run.validation_metric[k] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-4, abs=0)
    assert run.validation_metric[run.best] == min(m for m in run.validation_metric if m is not None)
    assert run.record.metric == "rmse"


# Populations


def test_replicates_differ_and_come_from_their_own_seeds(small: str) -> None:
    dataset = load_dataset(small)
    features, targets = standardization_of(dataset.train)
    spec = make_config(small).make_spec(dataset.in_features, dataset.out_features, dataset.task)
    inits = [("uniform", replicate) for replicate in range(20)]
    many, errors = make_population(spec, inits, 5, features, targets, torch.device("cpu"))
    few, _ = make_population(spec, inits[:3], 5, features, targets, torch.device("cpu"))
    assert len(errors) == 20
    for name, value in many.parameters.items():
        assert len({tuple(row.flatten().tolist()) for row in value.detach()}) == 20
        assert torch.equal(value[:3], few.parameters[name])         # adding replicates leaves the first ones as they are


def assert_close_weights(one: Run, row: int, alone: Run) -> None:
    """Replicate `row` of a run against a run of one network."""
    for name, value in alone.replicates.items():
        other = one.replicates[name][row:row + 1] if name.startswith("body.") else one.replicates[name]
        # a batched product may round differently; Adam's normalized steps of 2e-3 then drift apart
        torch.testing.assert_close(value, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("changes", [
    {"activation": "meta"}, {"activation": "vaf"}, {"activation": "warp:tanh"}, {"activation": "meta", "inner_layers": 3},
    {"activation": "meta", "inner_layers": 2, "shared": True}, {"activation": "vaf", "hidden": (4, 4), "residual": True},
    {"activation": "fixed:silu", "output_activation": True}, {"activation": "vaf", "batch_norm": True},
    {"activation": "agsig", "schedule": "cosine", "warmup": 1}, {"activation": "frelu", "select": "best"},
    {"activation": "vaf", "order": "own"}, {"activation": "vaf", "weight_decay": 0.1, "activation_lr": 3.0}], ids=str)
def test_a_replicate_equals_a_network_trained_alone(
        small: str, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]) -> None:
    config = make_config(small, **{"inner": "tanh", "replicates": 3, "epochs": 3} | changes)
    together = train(config)
    make, order = trainer_module.make_population, trainer_module.order_generator
    for k in range(3):
        monkeypatch.setattr(trainer_module, "make_population",
                            lambda spec, inits, *args, k=k: make(spec, [(inits[0][0], k)], *args))
        monkeypatch.setattr(trainer_module, "order_generator", lambda *args, k=k: order(*args[:2], *[k] * (len(args) > 2)))
        assert_close_weights(together, k, train(dataclasses.replace(config, replicates=1)))


@pytest.mark.parametrize("order", ["shared", "own"])
def test_a_stack_of_configurations_equals_each_alone(order: str, small: str) -> None:
    base = make_config(small, activation="vaf", inner="tanh", epochs=3, replicates=2, order=order)
    configs = [base, dataclasses.replace(base, lr=1e-2, weight_decay=0.3), dataclasses.replace(base, hidden=(3,)),
               dataclasses.replace(base, init="uniform", replicates=3, activation_lr=2.0),
               dataclasses.replace(base, replicates=4, keep=1)]
    seen: list[TrainProgress] = []
    runs = train_stacks(configs, progress=seen.append)
    assert {p.networks for p in seen} == {11, 2}        # four of one shape in one stack, the other queued
    for config, run in zip(configs, runs, strict=True):
        alone = train(config)
        assert run.config == config
        assert run.best == alone.best
        assert run.record.kept == alone.record.kept
        assert run.record.initial_max_abs_error == alone.record.initial_max_abs_error
        for name, value in alone.replicates.items():
            torch.testing.assert_close(run.replicates[name], value, rtol=1e-3, atol=1e-4)


def test_ends_are_those_of_meta() -> None:
    assert TrainConfig(activation="vaf,meta", hidden=(3, 3), ends="gated").make_activations()[1].ends == "gated"
    with pytest.raises(ConfigError, match=r"^ends 'gated' are for the activation meta, got activation 'vaf,frelu'$"):
        TrainConfig(activation="vaf,frelu", hidden=(3, 3), ends="gated")


def test_one_diverged_configuration_is_told(small: str) -> None:
    configs = [make_config(small, **DIVERGING), make_config(small, **DIVERGING | {"lr": 1e-3})]
    with pytest.raises(TrainingError, match=one_line(r"no network with lr 1e\+08")):
        train_stacks(configs)


def test_own_order_shuffles_each_network_otherwise(small: str) -> None:
    config = make_config(small, replicates=2, activation="fixed:tanh")
    shared, own = train(config), train(dataclasses.replace(config, order="own"))
    assert not torch.equal(shared.replicates["body.0.linear.weight"], own.replicates["body.0.linear.weight"])
    orders = {tuple(torch.randperm(20, generator=trainer_module.order_generator(seed, epoch, k)).tolist())
              for seed in (0, 1) for epoch in range(3) for k in (-1, 0, 1)}
    assert len(orders) == 18


# Options of the optimizer


def reference_run(config: TrainConfig, rate: Callable[[int, int], float]) -> dict[str, torch.Tensor]:
    """The same training of one network in float64 with plain modules and torch's Adam, for comparison."""
    dataset = load_dataset(config.data)
    network = train(dataclasses.replace(config, epochs=1, lr=1e-30, weight_decay=0, schedule="constant", warmup=0)).network()
    network = network.double().requires_grad_()
    weights = [layer.linear.weight for layer in network.layers]
    inner = [p for name, p in network.named_parameters() if ".activation." in name]
    rest = [p for name, p in network.named_parameters() if name.endswith("linear.bias")]
    optimizer = torch.optim.AdamW([{"params": weights, "weight_decay": config.weight_decay}, {"params": inner}, {"params": rest}],
                                  weight_decay=0.0)
    x, y = torch.as_tensor(dataset.train.x).double(), torch.as_tensor(dataset.train.y)
    step, steps = 0, config.epochs * math.ceil(len(x) / config.batch_size)
    for epoch in range(config.epochs):
        order = torch.randperm(len(x), generator=trainer_module.order_generator(config.seed, epoch))
        for rows in order.split(config.batch_size):
            for group, factor in zip(optimizer.param_groups, (1.0, config.activation_lr, 1.0), strict=True):
                group["lr"] = config.lr * factor * rate(step, steps)
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), y[rows]).backward()
            optimizer.step()
            step += 1
    return {f"body.{name}": value.detach() for name, value in network.body.named_parameters()}


@pytest.mark.parametrize(("changes", "rate"), [
    ({}, lambda step, steps: 1.0),
    ({"activation_lr": 5.0}, lambda step, steps: 1.0),
    ({"weight_decay": 0.5}, lambda step, steps: 1.0),
    ({"schedule": "linear"}, lambda step, steps: 1 - step / steps),
    ({"schedule": "cosine"}, lambda step, steps: (1 + math.cos(math.pi * step / steps)) / 2),
    ({"schedule": "cosine", "warmup": 1}, lambda step, steps: (step + 1) / (steps // 3 + 1) if step < steps // 3 else
     (1 + math.cos(math.pi * (step - steps // 3) / (steps - steps // 3))) / 2)],
    ids=["plain", "activation_lr", "weight_decay", "linear", "cosine", "warmup"])
def test_training_equals_plain_modules_with_adamw(small: str, changes: dict[str, Any], rate: Callable[[int, int], float]) -> None:
    config = make_config(small, **{"activation": "vaf", "inner": "tanh", "epochs": 3, "hidden": (4, 3)} | changes)
    run = train(config)
    for name, value in reference_run(config, rate).items():
        # 15 float32 steps of 2e-3 to 1e-2, each with a relative error of some 1e-6 or less where gradients are not tiny
        torch.testing.assert_close(run.replicates[name][0].double(), value, rtol=1e-3, atol=1e-4)


def test_a_frozen_activation_stays(small: str) -> None:
    config = make_config(small, activation="vaf", inner="tanh")
    start, end = train(dataclasses.replace(config, lr=1e-30)), train(dataclasses.replace(config, activation_lr=0.0))
    # the steps of 1e-30 show where weights are zero
    before = start.replicates
    moved = {name for name, value in end.replicates.items() if not torch.allclose(value, before[name], rtol=0, atol=1e-20)}
    assert moved == {f"body.{k}.linear.{part}" for k in (0, 1) for part in ("weight", "bias")}


# Batch normalization


def test_batch_norm_is_folded(small: str, tmp_path: Path) -> None:
    """The saved networks are plain, and compute what the population computes with its running statistics."""
    config = make_config(small, activation="meta", inner="tanh", hidden=(4, 4), residual=True, batch_norm=True, replicates=3,
                         epochs=4)
    run = train(config, out=tmp_path)
    plain = train(dataclasses.replace(config, batch_norm=False))
    assert run.replicates.keys() == plain.replicates.keys()
    assert not torch.equal(run.replicates["body.0.linear.weight"], plain.replicates["body.0.linear.weight"])
    dataset = load_dataset(small)
    rows = read_metrics(tmp_path / "metrics.csv")[-3:]
    for k in range(3):
        right = validation_outputs(run.network(k), dataset).argmax(1) == dataset.validation.y
        assert rows[k].validation_metric == pytest.approx(right.mean(), rel=1e-6, abs=0)
    assert_same_weights(load_run(tmp_path), run)


def test_batch_norm_against_torch(small: str) -> None:
    """One step of the normalization in training and evaluation against torch's module."""
    dataset = load_dataset(small)
    features, _ = standardization_of(dataset.train)
    spec = make_config(small, activation="fixed:tanh").make_spec(3, dataset.out_features, "classification")
    population, _ = make_population(spec, [("uniform", 0), ("uniform", 1)], 0, features, None, torch.device("cpu"), True)
    x = torch.randn(3, 50, generator=torch.Generator().manual_seed(1))
    found = {training: population.forward(x, training=training) for training in (True, False)}
    for k in range(2):
        norm = torch.nn.BatchNorm1d(4).double()
        weight, bias = (population.parameters[f"0.linear.{part}"][k].detach().double() for part in ("weight", "bias"))
        norm.bias.data.copy_(bias)
        head = [population.parameters[f"1.linear.{part}"][k].detach().double() for part in ("weight", "bias")]
        for training in (True, False):
            norm.train(training)
            expected = torch.nn.functional.linear(torch.tanh(norm((weight @ x.double()).mT)), *head).mT
            # float32 with some tens of operations on values of order one
            torch.testing.assert_close(found[training][k].double(), expected, rtol=1e-5, atol=1e-5)


# Choosing epochs and networks


def make_rows(values: list[float], task: str) -> list[EpochMetrics]:
    """Epochs with these accuracies, or these losses for regression."""
    pairs = [(1.0, value) if task == "classification" else (value, 1.0) for value in values]
    return [EpochMetrics(epoch, 0, 1.0, loss, metric, 1.0) for epoch, (loss, metric) in enumerate(pairs, 1)]


@pytest.mark.parametrize(("metrics", "patience", "task", "epoch", "stopped"), [
    ([0.1, 0.3, 0.2], 0, "classification", 2, False),
    ([0.1, 0.3, 0.2], 1, "classification", 2, True),
    ([0.1, 0.3, 0.2], 2, "classification", 2, False),
    ([0.1, 0.1, 0.1, 0.9], 2, "classification", 1, True),       # what comes after the stop does not count
    ([0.3, 0.1, 0.2], 0, "regression", 2, False),
    ([math.nan, 0.1, math.inf], 0, "regression", 2, False),
    ([math.nan, math.nan, math.nan], 3, "regression", None, True)], ids=str)
def test_best_epoch_and_patience(metrics: list[float], patience: int, task: Any, epoch: int | None, stopped: bool) -> None:
    best, found = follow(make_rows(metrics, task), patience, task)
    assert (None if best is None else best.epoch, found) == (epoch, stopped)


def test_best_epoch_keeps_its_weights(small: str, tmp_path: Path) -> None:
    config = make_config(small, activation="vaf", epochs=12, lr=0.1, replicates=4, select="best")
    run, dataset = train(config, out=tmp_path), load_dataset(small)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert any(epoch != 12 for epoch in run.record.epoch)
    for k in range(4):
        metrics = [row.validation_metric for row in rows if row.replicate == k]
        assert run.validation_metric[k] == max(metrics)
        assert run.record.epoch[k] == 1 + metrics.index(max(metrics))
        right = validation_outputs(run.network(k), dataset).argmax(1) == dataset.validation.y
        assert right.mean() == pytest.approx(max(metrics), rel=1e-6, abs=0)
    assert_same_weights(load_run(tmp_path), run)


def test_patience_stops_early(small: str, tmp_path: Path) -> None:
    config = make_config(small, activation="vaf", epochs=60, lr=0.1, replicates=3, patience=3)
    run = train(config, out=tmp_path)
    rows = read_metrics(tmp_path / "metrics.csv")
    assert rows[-1].epoch < 60
    assert rows[-1].epoch == max(epoch for epoch in run.record.epoch if epoch) + 3
    assert_same_weights(train(config, out=tmp_path, resume=True), run)


def test_keep_the_best(small: str, tmp_path: Path) -> None:
    config = make_config(small, replicates=5, epochs=3, lr=0.05)
    everyone, run = train(config), train(dataclasses.replace(config, keep=2), out=tmp_path)
    assert run.validation_metric == everyone.validation_metric
    ranked = sorted(range(5), key=lambda k: -(everyone.validation_metric[k] or 0))
    assert {everyone.validation_metric[k] for k in run.record.kept} == {everyone.validation_metric[k] for k in ranked[:2]}
    for k in range(5):
        if k in run.record.kept:
            expected = everyone.network(k).layers[0].linear.weight
            assert torch.equal(run.network(k).layers[0].linear.weight, expected)
        else:
            with pytest.raises(ConfigError, match=one_line(f"replicate {k} was not kept; choose one of")):
                run.network(k)
    assert run.best in run.record.kept
    assert_same_weights(load_run(tmp_path), run)


@pytest.mark.parametrize("select", ["last", "best"])
def test_infinite_weights_behind_a_bounded_activation_diverged(small: str, tmp_path: Path, select: str) -> None:
    """The loss stays finite: every neuron is saturated."""
    config = make_config(small, activation="fixed:tanh", output_activation=True, lr=1.0, weight_decay=1e39, epochs=1,
                         batch_size=1000, select=select)
    with pytest.raises(TrainingError, match=one_line("diverged in epoch 1")):
        train(config, out=tmp_path / "run")


def test_a_very_long_schedule_starts_at_once(small: str) -> None:
    with pytest.raises(Interruption):
        train(make_config(small, epochs=10**15, schedule="cosine", warmup=10**14), progress=stop_in_epoch(2))


@pytest.mark.parametrize("changes", [
    {"batch_norm": True, "batch_size": 1},
    {"activation_lr": -1.0}, {"weight_decay": math.nan}, {"warmup": 2}, {"warmup": -1}, {"patience": -1}, {"keep": 2}], ids=str)
def test_options_out_of_range(small: str, changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=one_line(next(iter(changes)))):
        make_config(small, **changes)


def test_tensorboard(small: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(make_config(small, replicates=2, epochs=3), out=tmp_path, tensorboard=True)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    rows = read_metrics(tmp_path / "metrics.csv")
    for k in range(2):
        logged = [(event.step, event.value) for event in events.Scalars(f"validation_loss/{k}")]
        assert logged == [(row.epoch, np.float32(row.validation_loss)) for row in rows if row.replicate == k]


def test_tensorboard_that_is_not_there(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(ConfigError, match=one_line("pip install")):
        train(make_config(small), out=tmp_path / "run", tensorboard=True)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ConfigError, match=one_line("--out")):
        train(make_config(small), tensorboard=True)


@pytest.mark.parametrize("replicates", [1, 3])
def test_seed_determines_everything(small: str, replicates: int) -> None:
    config = make_config(small, replicates=replicates)
    first = train(config)
    torch.manual_seed(99)           # the global generator plays no part
    assert_same_weights(first, train(config))
    other = train(dataclasses.replace(config, seed=1))
    assert not torch.equal(first.replicates["body.0.linear.weight"], other.replicates["body.0.linear.weight"])
    if replicates == 3:
        weights = first.replicates["body.0.linear.weight"]
        assert all(not torch.equal(weights[a], weights[b]) for a, b in itertools.combinations(range(3), 2))


def test_every_epoch_has_its_own_order() -> None:
    orders = {tuple(torch.randperm(20, generator=trainer_module.order_generator(seed, epoch)).tolist())
              for seed in (0, 1, 7) for epoch in range(5)}
    assert len(orders) == 15


def spoil(monkeypatch: pytest.MonkeyPatch, replicate: int) -> None:
    """Let one replicate start with a NaN."""
    def make(*args: Any) -> Any:
        population, errors = make_population(*args)
        with torch.no_grad():
            population.parameters["0.linear.weight"][replicate, 0, 0] = torch.nan
        return population, errors

    monkeypatch.setattr(trainer_module, "make_population", make)


def test_a_diverged_replicate_is_left_out(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(small, replicates=3)
    clean = train(config)
    spoil(monkeypatch, 1)
    seen: list[TrainProgress] = []
    run = train(config, out=tmp_path, progress=seen.append)
    for loaded in (run, load_run(tmp_path), train(config, out=tmp_path, resume=True)):
        assert loaded.validation_metric[1] is None
        assert loaded.best != 1
        with pytest.raises(ConfigError, match=one_line("replicate 1 diverged")):
            loaded.network(1)
        loaded.network()
    for k in (0, 2):
        assert run.validation_metric[k] == clean.validation_metric[k]
        for name, value in run.replicates.items():
            if name.startswith("body."):
                assert torch.equal(value[k], clean.replicates[name][k])
    assert all(math.isfinite(p.loss) and p.metric is not None for p in seen)


def test_divergence_is_one_line_and_leaves_nothing(small: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=one_line(r"diverged in epoch 1.*--lr")):
        train(make_config(small, **DIVERGING), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# The run folder


def test_files_and_metrics(small: str, tmp_path: Path) -> None:
    config = make_config(small, replicates=2, epochs=3)
    run = train(config, out=tmp_path / "a" / "run")
    folder = tmp_path / "a" / "run"
    names = {"config.json", "model.safetensors", "replicates.safetensors", "metrics.csv", "checkpoint.safetensors"}
    assert {path.name for path in folder.iterdir()} == names
    lines = (folder / "metrics.csv").read_text().splitlines()
    assert lines[0] == "epoch,replicate,train_loss,validation_loss,validation_metric,seconds"
    rows = read_metrics(folder / "metrics.csv")
    assert [(row.epoch, row.replicate) for row in rows] == list(itertools.product((1, 2, 3), (0, 1)))
    assert tuple(row.validation_metric for row in rows[-2:]) == run.validation_metric
    assert all(row.seconds > 0 for row in rows)
    dataset = load_dataset(small)
    for k in range(2):
        logits = torch.from_numpy(validation_outputs(run.network(k), dataset))
        loss = torch.nn.functional.cross_entropy(logits, torch.as_tensor(dataset.validation.y))
        assert rows[-2 + k].validation_loss == pytest.approx(float(loss), rel=1e-5, abs=0)
    record = load_record(folder)
    assert record.config == config
    assert record.samples == {name: len(getattr(dataset, name)) for name in ("train", "calibration", "validation", "test")}
    assert record.data_hash == dataset.content_hash
    assert len(record.initial_max_abs_error) == 2
    assert_same_weights(load_run(folder), run)


def test_progress(small: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_module, "REPORT_SECONDS", 0)
    monkeypatch.setattr(native_steps, "CALL_SECONDS", -1)
    seen: list[TrainProgress] = []
    run = train(make_config(small, epochs=2), progress=seen.append)
    steps = math.ceil(run.record.samples["train"] / 16)
    assert [(p.epoch, p.step) for p in seen] == list(itertools.product((1, 2), range(1, steps + 1)))
    assert {(p.epochs, p.steps, p.metric_name) for p in seen} == {(2, steps, "accuracy")}
    assert [p.metric for p in seen[:steps - 1]] == [None] * (steps - 1)
    assert len({p.metric for p in seen[steps - 1:-1]}) == 1
    assert seen[-1].metric == run.validation_metric[0]
    assert all(p.seconds >= 0 for p in seen)
    assert TrainProgress(1, 2, 3, 6, 1.0, None, "rmse", 4.0, networks=8).networks_epochs_per_second == 1.0
    monkeypatch.setattr(train_module, "REPORT_SECONDS", 1e9)
    seen.clear()
    train(make_config(small, epochs=2), progress=seen.append)
    assert [(p.epoch, p.step) for p in seen] == [(1, steps), (2, steps)]


def test_folder_that_holds_something_is_refused(small: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    for resume in (False, True):
        with pytest.raises(OutputError, match=one_line("is not empty.*--overwrite")):
            train(make_config(small), out=tmp_path, resume=resume)
    for place in (tmp_path / "notes.txt", tmp_path / "notes.txt" / "below", tmp_path / ("n" * 300)):
        for options in ({}, {"resume": True}, {"overwrite": True}):
            with pytest.raises(OutputError, match=one_line("--out")):
                train(make_config(small), out=place, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("config", [
    DIVERGING, {"data": "missing.npz"}, {"data": "nothing"}, {"device": "cuda"}], ids=str)
def test_failing_run_does_not_lose_the_old_one(
        small: str, tmp_path: Path, config: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    old = train(make_config(small), out=tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(Exception, match=one_line(".")):
        train(make_config(**{"data": small} | config), out=tmp_path, overwrite=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert_same_weights(load_run(tmp_path), old)


def test_overwrite_replaces(small: str, tmp_path: Path) -> None:
    train(make_config(small, replicates=2, epochs=3), out=tmp_path)
    new = make_config(small, seed=3)
    run = train(new, out=tmp_path, overwrite=True)
    assert_same_weights(load_run(tmp_path), train(new))
    assert len(read_metrics(tmp_path / "metrics.csv")) == 2
    assert_same_weights(run, load_run(tmp_path))


# Resuming


class Interruption(Exception):
    """Stands for a killed process."""


def stop_in_epoch(epoch: int) -> Callable[[TrainProgress], None]:
    def stop(progress: TrainProgress) -> None:
        if progress.epoch == epoch:
            raise Interruption
    return stop


@pytest.mark.parametrize("changes", [
    {"replicates": 1}, {"replicates": 3}, {"replicates": 2, "batch_norm": True, "select": "best", "order": "own"},
    {"schedule": "cosine", "warmup": 1, "weight_decay": 0.1, "activation_lr": 2.0}], ids=str)
def test_resume_after_every_epoch_gives_the_same_run(small: str, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = make_config(small, epochs=4, **changes)
    whole = train(config, out=tmp_path / "whole")
    for epoch in range(1, 5):
        folder = tmp_path / f"{epoch}"
        with pytest.raises(Interruption):
            train(config, out=folder, progress=stop_in_epoch(epoch))
        assert (folder / "config.json").exists() is (epoch > 1)
        if epoch > 1:
            with pytest.raises(CheckpointError, match=one_line("unfinished run.*--resume")):
                load_run(folder)
        assert_same_weights(train(config, out=folder, resume=True), whole)
        assert_same_weights(load_run(folder), whole)
        assert without_seconds(folder) == without_seconds(tmp_path / "whole")


def interrupt_before(operation: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise before the given replacement or removal of a file in the run folder, and at every later one."""
    done, replace, unlink = itertools.count(), os.replace, checkpoint_module.remove_file

    def counted(call: Callable[..., None], *args: Any) -> None:
        if next(done) >= operation:
            raise Interruption
        call(*args)

    monkeypatch.setattr(os, "replace", functools.partial(counted, replace))
    monkeypatch.setattr(checkpoint_module, "remove_file", functools.partial(counted, unlink))


def interruptions(start: Callable[[], Run], monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Run `start` again and again, interrupted one file operation later each time, until it comes through."""
    for operation in itertools.count():
        with monkeypatch.context() as patch:
            interrupt_before(operation, patch)
            try:
                start()
            except Interruption:
                pass
            else:
                return
        yield operation


def test_new_run_killed_between_any_two_writes(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = make_config(small, replicates=2)
    whole = train(config)
    folder, count = tmp_path, 0

    def start() -> Run:
        nonlocal folder
        folder = tmp_path / f"{count}"
        return train(config, out=folder)

    for _ in interruptions(start, monkeypatch):
        count += 1
        with pytest.raises(CheckpointError, match=one_line(".")):
            load_run(folder)
        assert_same_weights(train(config, out=folder, resume=True), whole)
        assert_same_weights(load_run(folder), whole)
        assert [row[:2] for row in without_seconds(folder)] == list(itertools.product((1, 2), (0, 1)))
    assert count == (3 + 3 + 3) + (2 + 2) + 3       # epoch 1: staged, removed, moved; epoch 2: staged, moved; results


@pytest.mark.parametrize("new", [{"replicates": 1}, {}], ids=str)
def test_overwriting_run_killed_between_any_two_writes(
        small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, new: dict[str, Any]) -> None:
    before = make_config(small, replicates=2, epochs=1)
    config = dataclasses.replace(before, **new)
    old, whole = train(before, out=tmp_path / "old"), train(config)
    folder, outcomes = tmp_path, []

    def start() -> Run:
        nonlocal folder
        folder = copy_run(tmp_path / "old", tmp_path / f"{len(outcomes)}")
        return train(config, out=folder, overwrite=True)

    for _ in interruptions(start, monkeypatch):
        finished = load_record(folder).best is not None
        outcomes.append("old" if finished else "new")
        if finished:
            assert_same_weights(load_run(folder), old)
        train(config, out=folder, resume=not finished, overwrite=finished)
        assert_same_weights(load_run(folder), whole)
    assert outcomes == ["old"] * 5 + ["new"] * 7         # as long as files are staged, nothing of the old run is touched


def copy_run(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_longer_run_killed_between_any_two_writes(small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short = make_config(small, replicates=2)
    long = dataclasses.replace(short, epochs=4)
    old, whole = train(short), train(long)
    train(short, out=tmp_path / "short")
    folder, outcomes = tmp_path, []

    def start() -> Run:
        nonlocal folder
        folder = copy_run(tmp_path / "short", tmp_path / f"{len(outcomes)}")
        return train(long, out=folder, resume=True)

    for _ in interruptions(start, monkeypatch):
        outcomes.append(len(outcomes) < 9)         # two epochs of two staged and two moved files, then the results
        if outcomes[-1]:
            assert_same_weights(load_run(folder), old)
        else:       # the new tensors are there, the new config.json is not
            with pytest.raises(CheckpointError, match=one_line("after 4 epochs, but config.json after 2; continue it with")):
                load_run(folder)
        assert_same_weights(train(long, out=folder, resume=True), whole)
        assert_same_weights(load_run(folder), whole)
    assert len(outcomes) == 11


def test_finished_run_is_returned_at_once(small: str, tmp_path: Path) -> None:
    config = make_config(small)
    run = train(config, out=tmp_path)
    files = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = train(config, out=tmp_path, resume=True, progress=lambda _: pytest.fail("nothing is left to train"))
    assert_same_weights(again, run)
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == files


@pytest.mark.parametrize("change", [
    {"activation": "vaf"}, {"inner": "tanh"}, {"inner_width": 3}, {"inner_layers": 2}, {"shared": True}, {"hidden": (4, 4)},
    {"output_activation": True}, {"init": "uniform"}, {"batch_size": 8}, {"lr": 1e-3}, {"seed": 1}, {"replicates": 2},
    {"data": "digits"}, {"batch_norm": True}, {"order": "own"}, {"select": "best"}, {"weight_decay": 1e-3}], ids=str)
def test_resume_with_another_option_is_refused(small: str, tmp_path: Path, change: dict[str, Any]) -> None:
    config = make_config(small, epochs=1)
    train(config, out=tmp_path)
    (name,) = change
    with pytest.raises(ConfigError, match=one_line(f"another {name}: .*")):
        train(dataclasses.replace(config, epochs=3, **change), out=tmp_path, resume=True)


def test_resume_for_fewer_epochs_is_refused(small: str, tmp_path: Path) -> None:
    config = make_config(small, epochs=4)
    with pytest.raises(Interruption):
        train(config, out=tmp_path, progress=stop_in_epoch(4))
    for finished in (False, True):
        if finished:
            train(config, out=tmp_path, resume=True)
        with pytest.raises(ConfigError, match=one_line(f"already trained for {4 if finished else 3} epochs")):
            train(dataclasses.replace(config, epochs=2), out=tmp_path, resume=True)


def test_resume_of_a_longer_run_that_was_interrupted_says_how_to_go_on(small: str, tmp_path: Path) -> None:
    config = make_config(small, epochs=2)
    train(config, out=tmp_path)
    longer = dataclasses.replace(config, epochs=9)
    with pytest.raises(Interruption):
        train(longer, out=tmp_path, resume=True, progress=stop_in_epoch(5))
    with pytest.raises(ConfigError, match=one_line("already trained for 4 epochs, .*continue with --epochs 4 or more")):
        train(config, out=tmp_path, resume=True)
    assert_same_weights(train(longer, out=tmp_path, resume=True), train(longer))


def test_resume_from_nothing_starts(small: str, tmp_path: Path) -> None:
    config = make_config(small)
    assert_same_weights(train(config, out=tmp_path, resume=True), train(config))        # an empty folder
    with pytest.raises(ConfigError, match=one_line("--out")):
        train(config, resume=True)


def test_resume_on_changed_data_is_refused(tmp_path: Path, small: str) -> None:
    path = tmp_path / "copy.npz"
    with np.load(small, allow_pickle=False) as arrays:
        content = dict(arrays)
    np.savez(path, **content)
    train(make_config(str(path), epochs=1), out=tmp_path / "run")
    content["x_train"] = content["x_train"] + 1
    np.savez(path, **content)
    with pytest.raises(CheckpointError, match=one_line("other data")):
        train(make_config(str(path)), out=tmp_path / "run", resume=True)


# Devices


def test_devices(monkeypatch: pytest.MonkeyPatch, small: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    for device in ("cuda", "mps"):
        with pytest.raises(RuntimeProviderError, match=one_line(f"device '{device}' is not available here; choose from auto, cpu")):
            train(make_config(small, device=device))
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cuda")


def test_a_full_disk_under_overwrite_costs_nothing_of_the_old_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "run"
    train(TrainConfig(epochs=1, hidden=(3,), device="cpu"), out=out)
    before = {path.name: path.read_bytes() for path in out.iterdir()}

    def full(path: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match=r"cannot write .*run/checkpoint.safetensors: No space left on device") as caught:
        train(TrainConfig(epochs=1, hidden=(4,), device="cpu"), out=out, overwrite=True)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
