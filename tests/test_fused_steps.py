"""Fused optimizer steps, against plain modules in float64 with autograd and Adam's formulas.

As in test_fused.py, the kernels run where there is a GPU, and everywhere with triton in its interpreter, in a process of its own in
which the tests named `test_kernels_*` run.
"""

import dataclasses
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from steps_reference import CASES, check_divergence, check_training, make_dataset, take_plain_steps
from triton_tools import resources, run_interpreted

from mncompress.data import Dataset, Standardization
from mncompress.training import _fused_steps as fused
from mncompress.training import _steppers
from mncompress.training._population import make_population
from mncompress.training._steps import Stepper
from mncompress.training._trainer import Trainer
from mncompress.types import TrainConfig

ROOT = Path(__file__).parent.parent
HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and HAS_TRITON and not INTERPRETED
DEVICE = "cuda" if ON_GPU else "cpu"

kernels = pytest.mark.skipif(not (HAS_TRITON and (INTERPRETED or ON_GPU)), reason="kernels need a GPU or Triton's interpreter")
compiled = pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
here = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter's process")

def use_kernels(patch: pytest.MonkeyPatch) -> None:
    """As if this were a GPU, and without the library for the CPU."""
    patch.setattr(fused, "triton_runs", lambda device: True)
    patch.setattr(_steppers, "can_train_natively", lambda population, config: False)


def make_trainer(config: TrainConfig, dataset: Dataset) -> Trainer:
    """A trainer with fused steps; every second seed takes its products from the library."""
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch)
        patch.setattr(fused.FusedStepper, "compile", lambda self: None)
        patch.setattr(fused, "LIBRARY_NEURONS", 1 if config.seed % 2 else 10**9)
        trainer = Trainer((config,), dataset)
    assert isinstance(trainer.stepper, fused.FusedStepper)
    return trainer


def check(config: TrainConfig, dataset: Dataset, *, any_shape: bool = False) -> None:
    """Train fused, and every network in float64."""
    check_training(make_trainer(config, dataset), any_shape=any_shape)


def make_config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"replicates": 2, "epochs": 1, "batch_size": 16, "lr": 1e-3, "device": DEVICE} | changes)


@kernels
@pytest.mark.parametrize("changes", CASES, ids=str)
def test_kernels_train_as_float64_does(changes):
    check(make_config(**changes), make_dataset(5, 20, 3, "classification"))


@kernels
@pytest.mark.parametrize("changes", CASES[:2], ids=str)
def test_kernels_train_with_a_librarys_products(changes):
    check(make_config(**changes, seed=1), make_dataset(5, 20, 3, "classification"))


@kernels
@pytest.mark.parametrize("changes", CASES[1:3], ids=str)
def test_kernels_train_regressions(changes):
    check(make_config(**changes), make_dataset(5, 20, 2, "regression"))


@kernels
@settings(max_examples=2, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 40),
       st.integers(1, 20), st.booleans(), st.sampled_from(("shared", "own")), st.sampled_from(("meta", "vaf", "warp:silu")))
def test_kernels_train_any_shape(seed, features, hidden, batch, outputs, classify, order, activation):
    config = make_config(activation=activation, inner="tanh", hidden=tuple(hidden), batch_size=batch, epochs=1, order=order,
                         seed=seed)
    check(config, make_dataset(features, 30, outputs, "classification" if classify else "regression", seed), any_shape=True)


@kernels
def test_kernels_take_several_tiles():
    """More neurons, features and rows than a program has."""
    config = make_config(activation="vaf", inner="silu", hidden=(70,), batch_size=140, epochs=1)
    check(config, make_dataset(70, 150, 3, "classification"))


@kernels
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")    # of the interpreter's NumPy
def test_kernels_keep_a_diverged_network_to_itself():
    config, dataset = make_config(activation="vaf", inner="tanh", hidden=(3,)), make_dataset(5, 20, 3, "classification")
    check_divergence(make_trainer(config, dataset), make_trainer(config, dataset))


@kernels
def test_kernels_continue_from_a_state():
    config = make_config(activation="meta", hidden=(3,), schedule="cosine", epochs=2)
    dataset = make_dataset(5, 20, 3, "classification")
    once, first, second = (make_trainer(config, dataset) for _ in range(3))
    for trainer in (once, once, first):
        list(trainer.run_epoch())
    second.load_state_({name: value.detach().clone() for name, value in first.state().items()})
    second.epoch = 1
    list(second.run_epoch())
    for name, value in once.state().items():
        assert torch.equal(second.state()[name], value), name


@kernels
def test_kernels_and_plain_steps_continue_each_other():
    config, dataset = make_config(activation="meta", hidden=(3,), epochs=2), make_dataset(5, 20, 3, "classification")
    mixed = make_trainer(config, dataset)
    with pytest.MonkeyPatch.context() as patch:
        take_plain_steps(patch)
        plain, end = (Trainer((config,), dataset) for _ in range(2))
    list(mixed.run_epoch())
    end.load_state_(mixed.state())
    end.epoch = 1
    for trainer in (end, plain, plain):
        list(trainer.run_epoch())
    for name, value in plain.population.parameters.items():
        torch.testing.assert_close(end.population.parameters[name], value, rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(("neurons", "replicates"), [(7, 128), (64, 32), (256, 2)])
@pytest.mark.parametrize("order", ["shared", "own"])
def test_compiled_steps_of_a_wide_input(neurons, replicates, order):
    """As large as in practice: against plain float32 steps, and the same bits every time."""
    config = make_config(activation="meta", inner="tanh", ends="gated", hidden=(neurons,), batch_size=128, replicates=replicates,
                         epochs=1, order=order)
    dataset = make_dataset(784, 128 * 80 + 5, 10, "classification")
    trainers = [Trainer((config,), dataset), Trainer((config,), dataset)]
    assert all(isinstance(trainer.stepper, fused.FusedStepper) for trainer in trainers)
    with pytest.MonkeyPatch.context() as patch:
        take_plain_steps(patch)
        trainers.append(Trainer((config,), dataset))
    for trainer in trainers:
        list(trainer.run_epoch())
    one, other, plain = (trainer.population.flat.detach() for trainer in trainers)
    assert torch.equal(one, other)
    assert (one - plain).norm() / plain.norm() < 1e-3
    torch.testing.assert_close(trainers[0].stepper.total, trainers[2].stepper.total, rtol=1e-4, atol=0)


@here
@pytest.mark.parametrize("changes", [
    {"batch_norm": True}, {"activation": "meta", "inner_layers": 2}, {"hidden": (513,)},
    {"hidden": (128, 128)}], ids=str)
def test_other_networks_take_plain_steps(changes, monkeypatch):
    use_kernels(monkeypatch)
    monkeypatch.setattr(fused.FusedStepper, "compile", lambda self: None)
    config, dataset = make_config(activation="vaf", device="cpu"), make_dataset(5, 20, 3, "classification")
    assert isinstance(Trainer((config,), dataset).stepper, fused.FusedStepper)
    assert isinstance(Trainer((dataclasses.replace(config, **changes),), dataset).stepper, Stepper)


@here
def test_kernels_that_fail_are_not_used(monkeypatch):
    def fail(self: fused.FusedStepper) -> None:
        raise RuntimeError("out of shared memory\nMore lines")

    use_kernels(monkeypatch)
    monkeypatch.setattr(fused.FusedStepper, "compile", fail)
    with pytest.warns(UserWarning, match=r"without fused steps.*RuntimeError: out of shared memory$"):
        trainer = Trainer((make_config(device="cpu"),), make_dataset(5, 20, 3, "classification"))
    assert isinstance(trainer.stepper, Stepper)


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("precision", ["tf32x3", "tf32"])
def test_compiled_code_spills_no_registers(precision, tmp_path):
    """Of the products with the largest tiles, and of everything else for a network of the usual size."""
    from mncompress.training import _step_kernels

    config = TrainConfig(activation="meta", ends="gated", inner="tanh", hidden=(16, 16))
    one = Standardization(np.zeros(784), np.ones(784))
    population, _ = make_population(config.make_spec(784, 10, "classification"), [("glorot", 0)], 0, one, None, torch.device("cpu"))
    tile = {"C": 64, "K": 32, "PRECISION": precision}
    for name, constants, warps in (
            ("project", {**tile, "R": fused.PROJECT_ROWS}, 8),
            ("update", {**tile, "R": fused.UPDATE_ROWS, "FLOATS": fused.UPDATE_FLOATS, "GIVEN": False}, 4),
            ("update", {**tile, "R": fused.UPDATE_ROWS, "FLOATS": fused.UPDATE_FLOATS, "GIVEN": True}, 4),
            ("descend", {"LAYER": fused.make_layer(population), "R": 32, "CLASSIFY": True, "PRECISION": precision}, 4)):
        cubin = compile_kernel(getattr(_step_kernels, name), constants, warps)
        _, stack, local = resources(cubin, tmp_path / "kernel.cubin")
        assert stack == local == 0, name


def compile_kernel(kernel: Any, constants: dict[str, Any], warps: int) -> bytes:
    """What Triton makes of a kernel ahead of time for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    integers = {"order", "counter", "place", "pitch", "kind", "y"}
    numbers = {"ahead", "size", "batch", "networks", "groups", "columns", "features", "split", "splits", "floats", "blocks",
               "stride"}
    signature = {name: "constexpr" if name in constants else "*i64" if name in integers else "i32" if name in numbers else "*fp32"
                 for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature)
               if signature[name].startswith("*") or name in ("batch", "features")}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    cubin: bytes = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": warps}).asm["cubin"]
    return cubin


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_interpreted_kernels_pass():
    run_interpreted(__file__, "test_kernels_")
