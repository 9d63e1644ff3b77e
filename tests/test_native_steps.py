"""Optimizer steps of the kernel library on every instruction set of this machine, against float64 and against plain steps."""

import ctypes
import dataclasses
import itertools
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from steps_reference import CASES, check_divergence, check_training, make_dataset, take_plain_steps

from mncompress.data import Dataset, Split
from mncompress.errors import DataError
from mncompress.native import library_path
from mncompress.nn import Standardize
from mncompress.training import _native_steps as native
from mncompress.training._steps import DeviceSplit, Stepper
from mncompress.training._trainer import Trainer
from mncompress.types import ACTS, TrainConfig

if library_path() is None:
    pytest.skip("the kernel library was not built: pip install . with a C++ compiler builds it", allow_module_level=True)

SETS = ("neon", "scalar") if platform.machine() in ("aarch64", "arm64") else ("avx512", "avx2", "scalar")


@pytest.fixture(params=SETS)
def kernels(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """Steps on one instruction set. A library chooses when it is first used: a copy of the file is another library."""
    copy = ctypes.CDLL(shutil.copy(str(library_path()), tmp_path_factory.mktemp(request.param)))
    monkeypatch.setenv("MNCOMPRESS_KERNELS", request.param)
    copy.mncompress_kernels.restype = ctypes.c_char_p
    if copy.mncompress_kernels().decode() != request.param:
        pytest.skip(f"this machine has no {request.param}")
    copy.mncompress_train.argtypes, copy.mncompress_train.restype = [ctypes.c_void_p, ctypes.c_size_t], ctypes.c_int
    monkeypatch.setattr(native, "_train", lambda: copy.mncompress_train)
    return str(request.param)


def make_config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"replicates": 2, "epochs": 1, "batch_size": 16, "lr": 1e-3, "device": "cpu"} | changes)


def make_trainer(config: TrainConfig, dataset: Dataset) -> Trainer:
    trainer = Trainer((config,), dataset)
    assert isinstance(trainer.stepper, native.NativeStepper)
    return trainer


def make_plain_trainer(config: TrainConfig, dataset: Dataset) -> Trainer:
    with pytest.MonkeyPatch.context() as patch:
        take_plain_steps(patch)
        return Trainer((config,), dataset)


@pytest.mark.parametrize("features", [5, 70])
@pytest.mark.parametrize("changes", [*CASES, {"activation": "meta", "inner": "tanh", "inner_layers": 3, "ends": "gated",
                                              "hidden": (4, 4), "residual": True, "inner_width": 3}], ids=str)
def test_steps_are_those_of_float64(changes, features, kernels):
    """Features along vectors and rows along vectors."""
    check_training(make_trainer(make_config(**changes), make_dataset(features, 20, 3, "classification")))


@pytest.mark.parametrize("order", ["shared", "own"])
@pytest.mark.parametrize("batch", [16, 300])
@pytest.mark.parametrize("features", [5, 70])
def test_pixels_are_read_as_they_are_stored(features, batch, order, kernels):
    config = make_config(activation="vaf", hidden=(5,), batch_size=batch, order=order)
    trainer = make_trainer(config, make_dataset(features, 333, 3, "classification", pixels=True))
    check_training(trainer)
    assert trainer.stepper.kept[3].dtype == torch.uint8


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("activation", ["meta", "vaf"])
def test_every_activation(act, activation, kernels):
    check_training(make_trainer(make_config(activation=activation, inner=act, lr=1e-2), make_dataset(4, 40, 3, "classification")))


@pytest.mark.parametrize("changes", CASES[1:3], ids=str)
def test_regressions(changes, kernels):
    check_training(make_trainer(make_config(**changes), make_dataset(5, 20, 2, "regression")))


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 1000), st.integers(1, 90), st.lists(st.integers(1, 40), max_size=3), st.integers(1, 70),
       st.integers(1, 40), st.booleans(), st.sampled_from(("shared", "own")), st.sampled_from(("meta", "vaf", "warp:silu")),
       st.booleans(), st.integers(1, 7), st.integers(1, 3))
def test_any_shape(kernels, seed, features, hidden, batch, outputs, classify, order, activation, shared, width, depth):
    config = make_config(activation=activation, inner="tanh", hidden=tuple(hidden), batch_size=batch, order=order, seed=seed,
                         shared=shared, inner_width=width, inner_layers=depth if activation == "meta" else 1,
                         residual=any(a == b for a, b in itertools.pairwise(hidden)))
    dataset = make_dataset(features, 80, outputs, "classification" if classify else "regression", seed)
    check_training(make_trainer(config, dataset), any_shape=True)


@pytest.mark.parametrize("order", ["shared", "own"])
def test_threads_change_nothing(order, kernels):
    config = make_config(activation="vaf", inner="gelu", hidden=(9,), replicates=5, order=order)
    dataset, found = make_dataset(40, 100, 3, "classification"), []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            trainer = make_trainer(config, dataset)
            list(trainer.run_epoch())
            found.append(torch.cat([trainer.population.flat, trainer.stepper.total]))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_calls_are_as_long_as_they_may_be(kernels, monkeypatch):
    """How many steps a call has changes nothing but how often it can be stopped."""
    config = make_config(activation="meta", hidden=(3,), batch_size=2, schedule="cosine")
    dataset, found = make_dataset(5, 99, 3, "classification"), []
    for seconds, expected in ((1e9, [1, 3, 7, 15, 31, 50]), (-1.0, list(range(1, 51)))):
        monkeypatch.setattr(native, "CALL_SECONDS", seconds)
        trainer = make_trainer(config, dataset)
        assert [step for step, _ in trainer.run_epoch()] == expected
        found.append(trainer.population.flat.detach().clone())
    assert torch.equal(*found)


def test_networks_of_unequal_rates_keep_to_themselves(kernels):
    """A stack of several configurations, each as if it were alone."""
    configs = [make_config(activation="meta", inner="tanh", hidden=(4,), lr=lr, activation_lr=factor, weight_decay=decay)
               for lr, factor, decay in ((1e-3, 1.0, 0.0), (1e-2, 3.0, 0.5))]
    dataset = make_dataset(6, 50, 3, "classification")
    stack = Trainer(configs, dataset)
    list(stack.run_epoch())
    for k, config in enumerate(configs):
        alone = make_trainer(config, dataset)
        list(alone.run_epoch())
        for name, value in alone.population.parameters.items():
            assert torch.equal(stack.population.parameters[name][2 * k:2 * k + 2], value), name


def test_a_diverged_network_keeps_to_itself(kernels):
    for inner in ACTS:
        config, dataset = make_config(activation="meta", inner=inner, hidden=(3,)), make_dataset(5, 20, 3, "classification")
        check_divergence(make_trainer(config, dataset), make_trainer(config, dataset))


def test_steps_of_extreme_networks_are_finite(kernels):
    """Pre-activations far beyond where exponentials overflow."""
    for inner in ACTS:
        config, dataset = make_config(activation="vaf", inner=inner, hidden=(3,)), make_dataset(5, 20, 3, "classification")
        trainer, plain = make_trainer(config, dataset), make_plain_trainer(config, dataset)
        for each in (trainer, plain):
            with torch.no_grad():
                each.population.parameters["0.linear.weight"].mul_(1e4)
            list(each.run_epoch())
        torch.testing.assert_close(trainer.stepper.total, plain.stepper.total, rtol=1e-3, atol=1e-3)


def test_plain_and_native_steps_continue_each_other(kernels):
    config, dataset = make_config(activation="meta", hidden=(3,), epochs=2), make_dataset(5, 20, 3, "classification")
    native_first = make_trainer(config, dataset)
    plain, end = (make_plain_trainer(config, dataset) for _ in range(2))
    list(native_first.run_epoch())
    end.load_state_({name: value.detach().clone() for name, value in native_first.state().items()})
    end.epoch = 1
    for trainer in (end, plain, plain):
        list(trainer.run_epoch())
    torch.testing.assert_close(end.population.flat, plain.population.flat, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("features", [5, 40])
@pytest.mark.parametrize("batch", [129, 300, 1000])
def test_batches_of_several_blocks(batch, features, kernels):
    """The last batch of each has blocks of few rows: 300 = 2 x 129 + 42, 1000 = 3 x 300 + 100."""
    config = make_config(activation="meta", inner="tanh", hidden=(6, 6), residual=True, batch_size=batch)
    check_training(make_trainer(config, make_dataset(features, 1001, 3, "classification")))


def test_one_row_in_the_last_of_several_blocks(kernels):
    for features in (5, 40):
        check_training(make_trainer(make_config(batch_size=300), make_dataset(features, 301, 3, "classification")))


def test_an_overflow_in_the_second_moment_is_not_one_of_the_weights(kernels):
    """As in plain steps: the square of a gradient of 1e20 is infinite, and the parameter then rests."""
    dataset = make_dataset(40, 64, 2, "regression")
    trainer = make_trainer(make_config(activation="vaf", hidden=(3,)), dataset)
    with torch.no_grad():
        trainer.stepper.kept[4].mul_(1e22)
    list(trainer.run_epoch())
    assert trainer.optimizer.second.isinf().any()
    assert trainer.population.flat.isfinite().all()


@pytest.mark.parametrize(("changes", "message"), [
    ({"y": np.full(64, 3)}, "labels must be from 0 to 2, got 3 to 3"), ({"y": np.full(64, -1)}, "got -1 to -1"),
    ({"y": np.zeros(10, int)}, r"shapes \(64, 5\) and \(10,\)"), ({"x": np.zeros((64, 4), np.float32)}, "networks of 5 features"),
    ({"y": np.zeros((64, 1), np.float32)}, "3 outputs")], ids=str)
def test_data_that_do_not_fit_are_refused(changes, message):
    task = "regression" if "outputs" in message else "classification"
    trainer = make_trainer(make_config(), make_dataset(5, 64, 3, task))
    x, y = (torch.as_tensor(changes.get(name, getattr(trainer.dataset.train, name))) for name in ("x", "y"))
    split = DeviceSplit(x, Standardize(np.zeros(x.shape[1]), np.ones(x.shape[1])), y)
    with pytest.raises(DataError, match=message):
        native.NativeStepper(trainer.population, trainer.optimizer, split, [trainer.config], task)


def test_labels_of_any_integer_type():
    dataset, found = make_dataset(5, 64, 3, "classification"), []
    for dtype in (np.int64, np.int32, np.uint8):
        split = Split(dataset.train.x, dataset.train.y.astype(dtype))
        trainer = make_trainer(make_config(), dataclasses.replace(dataset, train=split))
        list(trainer.run_epoch())
        found.append(trainer.population.flat.detach())
    assert all(torch.equal(found[0], other) for other in found)


def test_another_default_type_is_not_that_of_training():
    torch.set_default_dtype(torch.float64)
    try:
        trainers = [make(make_config(schedule="cosine"), make_dataset(5, 64, 3, "classification"))
                    for make in (make_trainer, make_plain_trainer)]
        for trainer in trainers:
            list(trainer.run_epoch())
    finally:
        torch.set_default_dtype(torch.float32)
    torch.testing.assert_close(*(trainer.population.flat for trainer in trainers), rtol=1e-4, atol=2e-5)


OUT_OF_MEMORY = """
import resource, torch
from mncompress.errors import TrainingError
from mncompress.training import _trainer, train
from mncompress.types import TrainConfig
from steps_reference import make_dataset

_trainer.check_memory = lambda *_: None
dataset = make_dataset(2, 64, 3, "classification")
config = TrainConfig(hidden=(2_000_000,), activation="fixed:relu", batch_size=64, epochs=1, device="cpu", replicates=2)
trainer = _trainer.Trainer((config,), dataset)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 200_000_000,) * 2)
try:
    list(trainer.run_epoch())
except MemoryError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_too_little_memory_is_an_error():
    done = subprocess.run([sys.executable, "-c", OUT_OF_MEMORY], cwd=Path(__file__).parent, capture_output=True, text=True)
    assert "there is not enough memory for the values of a batch" in done.stdout, done.stderr[-500:]


def test_who_takes_native_steps(monkeypatch):
    def kind(**changes: Any) -> type:
        return type(Trainer((make_config(activation="vaf", **changes),), make_dataset(5, 20, 3, "classification")).stepper)

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert kind() is kind(replicates=1) is kind(hidden=(2000, 600)) is native.NativeStepper
    assert kind(batch_norm=True) is kind(replicates=1, hidden=(2000, 600)) is Stepper
    monkeypatch.setattr(native, "load_library", lambda: None)
    assert kind() is Stepper
