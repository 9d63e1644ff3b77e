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
from mncompress.training import _launched_steps, _resident_steps, _steppers
from mncompress.training._launched_steps import LaunchedStepper
from mncompress.training._population import make_population
from mncompress.training._resident_steps import ResidentStepper
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
both_kinds = pytest.mark.parametrize("resident", [False, True], ids=["launched", "resident"])
here = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter's process")


def use_kernels(patch: pytest.MonkeyPatch, *, resident: bool = False) -> None:
    """As if this were a GPU, and without the library for the CPU."""
    patch.setattr(fused, "triton_runs", lambda device: True)
    patch.setattr(_steppers, "can_train_natively", lambda population, config: False)
    patch.setattr(_steppers, "can_stay", lambda population, config, split: resident)


def make_trainer(config: TrainConfig, dataset: Dataset, *, resident: bool = False) -> Trainer:
    """A trainer with fused steps; every second seed takes its products from the library, where there is a choice."""
    with pytest.MonkeyPatch.context() as patch:
        use_kernels(patch, resident=resident)
        patch.setattr(fused.FusedStepper, "compile", lambda self: None)
        patch.setattr(_launched_steps, "LIBRARY_NEURONS", 1 if config.seed % 2 else 10**9)
        trainer = Trainer((config,), dataset)
    assert isinstance(trainer.stepper, ResidentStepper if resident else LaunchedStepper)
    return trainer


def check(config: TrainConfig, dataset: Dataset, *, resident: bool = False, any_shape: bool = False) -> None:
    """Train fused, and every network in float64."""
    check_training(make_trainer(config, dataset, resident=resident), any_shape=any_shape)


def make_config(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"replicates": 2, "epochs": 1, "batch_size": 16, "lr": 1e-3, "device": DEVICE} | changes)


@kernels
@pytest.mark.parametrize(("changes", "resident"),
                         [*((case, False) for case in CASES), *((case, True) for case in CASES[:3])], ids=str)
def test_kernels_train_as_float64_does(changes, resident):
    check(make_config(**changes), make_dataset(5, 20, 3, "classification"), resident=resident)


@kernels
@pytest.mark.parametrize("changes", CASES[:2], ids=str)
def test_kernels_train_with_a_librarys_products(changes):
    check(make_config(**changes, seed=1), make_dataset(5, 20, 3, "classification"))


@kernels
@pytest.mark.parametrize(("changes", "resident"), [(CASES[1], False), (CASES[2], True)], ids=str)
def test_kernels_train_regressions(changes, resident):
    check(make_config(**changes), make_dataset(5, 20, 2, "regression"), resident=resident)


@kernels
@both_kinds
@pytest.mark.parametrize("precision", ["highest", "high"])
def test_kernels_train_on_pixels(precision, resident, monkeypatch):
    """In two products, and in one, which only a GPU rounds; rows of 21 pixels are padded."""
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: precision)
    config = make_config(activation="meta", hidden=(5,), epochs=2)
    trainer = make_trainer(config, make_dataset(21, 40, 3, "classification", pixels=True), resident=resident)
    assert trainer.stepper.parts == (2 if precision == "highest" else 1)
    assert trainer.stepper.x.shape[1] == 32
    if ON_GPU and precision == "high":
        list(trainer.run_epoch())
        assert trainer.losses(3).isfinite().all()
    else:
        check_training(trainer)


@kernels
@pytest.mark.parametrize("parts", [0, 2])
def test_kernels_multiply_as_exactly_as_float32(parts):
    """Weights of all magnitudes, with pixels and with floats: an error of a few 2^-24 of the summands."""
    from mncompress.training._step_kernels import project

    rng = np.random.default_rng(0)
    features, shift, factor = rng.integers(0, 256, (32, 96)).astype(np.uint8 if parts else np.float32), 33.0, 0.0125
    weights = (rng.standard_normal((16, 96)) * 10.0 ** rng.integers(-3, 3, (16, 1))).astype(np.float32)
    x, w, order, counter, u = (torch.as_tensor(value).to(DEVICE) for value in (
        features, weights, np.arange(32), np.zeros(1, np.int64), np.zeros((1, 16, 32), np.float32)))
    project[1, 1, 1](x, 96, shift, factor, order, 0, counter, 0, w, u, 32, 32, 1, 16, 96, 96, C=16, R=32, K=32, PARTS=parts,
                     PRECISION="tf32x3", num_warps=4)
    exact = features.astype(np.float64)
    summands = np.abs(weights) @ exact.T
    if parts:
        exact, summands = (exact - shift) * factor, (summands + shift * np.abs(weights).sum(1)[:, None]) * factor
    error = np.abs(u[0].cpu().numpy() - weights.astype(np.float64) @ exact.T) / summands
    assert error.max() < 8 * 2.0**-24


@kernels
@both_kinds
@settings(max_examples=2, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 40), st.lists(st.integers(1, 20), min_size=1, max_size=3), st.integers(1, 40),
       st.integers(1, 20), st.booleans(), st.sampled_from(("shared", "own")), st.sampled_from(("meta", "vaf", "warp:silu")),
       st.booleans())
def test_kernels_train_any_shape(resident, seed, features, hidden, batch, outputs, classify, order, activation, pixels):
    config = make_config(activation=activation, inner="tanh", hidden=tuple(hidden), batch_size=batch, epochs=1, order=order,
                         seed=seed)
    dataset = make_dataset(features, 30, outputs, "classification" if classify else "regression", seed, pixels=pixels)
    check(config, dataset, resident=resident, any_shape=True)


@kernels
@both_kinds
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
def test_kernels_take_several_tiles(pixels, resident):
    """More neurons, features and rows than a program has, or features than it has at a time."""
    hidden, features = (7, 150) if resident else (70, 70)
    config = make_config(activation="vaf", inner="silu", hidden=(hidden,), batch_size=140, epochs=1)
    check(config, make_dataset(features, 150, 3, "classification", pixels=pixels), resident=resident)


@kernels
@both_kinds
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")    # of the interpreter's NumPy
def test_kernels_keep_a_diverged_network_to_itself(resident):
    config, dataset = make_config(activation="vaf", inner="tanh", hidden=(3,)), make_dataset(5, 20, 3, "classification")
    check_divergence(*(make_trainer(config, dataset, resident=resident) for _ in range(2)))


@kernels
@both_kinds
def test_kernels_continue_from_a_state(resident):
    config = make_config(activation="meta", hidden=(3,), schedule="cosine", epochs=2)
    dataset = make_dataset(5, 20, 3, "classification")
    once, first, second = (make_trainer(config, dataset, resident=resident) for _ in range(3))
    for trainer in (once, once, first):
        list(trainer.run_epoch())
    second.load_state_({name: value.detach().clone() for name, value in first.state().items()})
    second.epoch = 1
    list(second.run_epoch())
    for name, value in once.state().items():
        assert torch.equal(second.state()[name], value), name


@kernels
def test_kernels_of_all_kinds_continue_one_another():
    config, dataset = make_config(activation="meta", hidden=(3,), epochs=3), make_dataset(5, 20, 3, "classification")
    mixed, further = make_trainer(config, dataset), make_trainer(config, dataset, resident=True)
    with pytest.MonkeyPatch.context() as patch:
        take_plain_steps(patch)
        plain, end = (Trainer((config,), dataset) for _ in range(2))
    list(mixed.run_epoch())
    for epoch, before, trainer in ((1, mixed, further), (2, further, end)):
        trainer.load_state_(before.state())
        trainer.epoch = epoch
        list(trainer.run_epoch())
    for _ in range(3):
        list(plain.run_epoch())
    for name, value in plain.population.parameters.items():
        torch.testing.assert_close(end.population.parameters[name], value, rtol=1e-4, atol=1e-5)


@kernels
@both_kinds
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_kernels_are_held_against_plain_steps(resident):
    """Before they are used, which leaves nothing behind; kernels that do something else are found."""
    config = make_config(hidden=(3,), schedule="cosine", warmup=1, epochs=3)
    trainer = make_trainer(config, make_dataset(5, 40, 3, "classification"), resident=resident)
    before = {name: value.detach().clone() for name, value in trainer.state().items()}
    trainer.stepper.compile()
    assert all(torch.equal(value, before[name]) for name, value in trainer.state().items())
    assert not trainer.stepper.total.any()
    trainer.stepper.rates[:, 1] *= 30     # so that one network begins the second of two steps elsewhere
    with pytest.raises(RuntimeError, match="mean gradients differ from those of plain steps"):
        trainer.stepper.compile()
    assert all(torch.equal(value, before[name]) for name, value in trainer.state().items())
    with torch.no_grad():       # what no step can do right is no reason against them
        trainer.population.parameters["0.linear.weight"][1] = torch.nan
    trainer.stepper.compile()


@here
def test_kernels_are_not_checked_without_memory(monkeypatch):
    def fail(self: Stepper, size: int) -> None:
        raise torch.OutOfMemoryError

    trainer = make_trainer(make_config(device="cpu", hidden=(3,)), make_dataset(5, 40, 3, "classification"))
    done: list[int] = []
    monkeypatch.setattr(Stepper, "_step", fail)
    monkeypatch.setattr(LaunchedStepper, "_steps", lambda self, start, sizes: done.append(len(sizes)))
    trainer.stepper.compile()
    assert done == [2, 1]


@compiled
@pytest.mark.parametrize(("neurons", "replicates"), [(7, 128), (64, 32), (256, 2)])
@pytest.mark.parametrize("order", ["shared", "own"])
@pytest.mark.parametrize("pixels", [False, True], ids=["floats", "pixels"])
def test_compiled_steps_of_a_wide_input(neurons, replicates, order, pixels):
    """As large as in practice: against plain float32 steps, and the same bits every time."""
    config = make_config(activation="meta", inner="tanh", ends="gated", hidden=(neurons,), batch_size=128, replicates=replicates,
                         epochs=1, order=order)
    dataset = make_dataset(784, 128 * 80 + 5, 10, "classification", pixels=pixels)
    trainers = [Trainer((config,), dataset), Trainer((config,), dataset)]
    kind = ResidentStepper if pixels and neurons == 7 else LaunchedStepper
    assert all(isinstance(trainer.stepper, kind) for trainer in trainers)
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
@pytest.mark.parametrize(("hidden", "batch", "features", "pixels", "resident"), [
    ((7,), 128, 300, True, True), ((7,), 128, 300, False, False), ((7, 7), 20, 128, False, True), ((32,), 128, 300, True, True),
    ((33,), 128, 300, True, False), ((64,), 64, 300, True, True), ((65,), 16, 300, True, False), ((7,), 257, 300, True, False)])
def test_small_networks_stay_in_a_program(hidden, batch, features, pixels, resident, monkeypatch):
    """Where a batch's values have room in registers, and features are pixels or few."""
    use_kernels(monkeypatch)
    monkeypatch.setattr(_steppers, "can_stay", _resident_steps.can_stay)
    monkeypatch.setattr(fused.FusedStepper, "compile", lambda self: None)
    config = make_config(hidden=hidden, batch_size=batch, device="cpu")
    trainer = Trainer((config,), make_dataset(features, 300, 3, "classification", pixels=pixels))
    assert isinstance(trainer.stepper, ResidentStepper if resident else LaunchedStepper)


@here
def test_kernels_that_fail_are_not_used(monkeypatch):
    def fail(self: fused.FusedStepper) -> None:
        raise RuntimeError("out of shared memory\nMore lines")

    use_kernels(monkeypatch, resident=True)
    config, dataset = make_config(device="cpu"), make_dataset(5, 20, 3, "classification")
    message = r"takes slower steps.*RuntimeError: out of shared memory$"
    monkeypatch.setattr(ResidentStepper, "compile", fail)
    monkeypatch.setattr(LaunchedStepper, "compile", lambda self: None)
    with pytest.warns(UserWarning, match=message):
        trainer = Trainer((config,), dataset)
    assert isinstance(trainer.stepper, LaunchedStepper)
    monkeypatch.setattr(LaunchedStepper, "compile", fail)
    with pytest.warns(UserWarning, match=message) as warned:
        trainer = Trainer((config,), dataset)
    assert isinstance(trainer.stepper, Stepper)
    assert len(warned) == 2


def describe(hidden: tuple[int, ...]) -> fused.FusedLayer:
    """The layers of networks 784-...-10 with gated tanh meta-neurons."""
    config = TrainConfig(activation="meta", ends="gated", inner="tanh", hidden=hidden)
    one = Standardization(np.zeros(784), np.ones(784))
    population, _ = make_population(config.make_spec(784, 10, "classification"), [("glorot", 0)], 0, one, None, torch.device("cpu"))
    return fused.make_layer(population)


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("parts", [0, 1, 2])
@pytest.mark.parametrize("precision", ["tf32x3", "tf32"])
def test_compiled_code_spills_no_registers(precision, parts, tmp_path):
    """Of the products with the largest tiles, and of everything else for a network of the usual size."""
    from mncompress.training import _step_kernels

    products = {"PARTS": parts, "PRECISION": precision}
    update = {**products, **_launched_steps.UPDATE[parts > 0], "FLOATS": _launched_steps.FLOATS}
    for name, constants in (
            ("project", {**products, **_launched_steps.PROJECT}),
            ("update", {**update, "GIVEN": False}),
            ("update", {**update, "GIVEN": True}),
            ("descend", {"LAYER": describe((16, 16)), "R": 32, "CLASSIFY": True, "PRECISION": precision, "num_warps": 4})):
        cubin = compile_kernel(getattr(_step_kernels, name), constants)
        _, stack, local = resources(cubin, tmp_path / "kernel.cubin")
        assert stack == local == 0, name


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize(("parts", "rows", "warps"), [(0, 32, 4), (0, 128, 8), (1, 128, 8), (2, 128, 8)])
def test_compiled_programs_of_whole_networks_spill_few_registers(parts, rows, warps, tmp_path):
    """Of a network of the usual size, with Triton 3.6 up to 344 bytes of a thread, which its cache holds; wider ones spill more."""
    from mncompress.training._network_kernel import train

    constants = {"LAYER": describe((7,)), "R": rows, "K": _resident_steps.TILE[parts > 0], "FLOATS": _resident_steps.FLOATS,
                 "CLASSIFY": True, "PARTS": parts, "PRECISION": "tf32x3", "num_warps": warps}
    _, stack, local = resources(compile_kernel(train, constants), tmp_path / "kernel.cubin")
    assert local == 0
    assert stack <= 512


def compile_kernel(kernel: Any, arguments: dict[str, Any]) -> bytes:
    """What Triton makes of a kernel ahead of time for sm_90."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {name: value for name, value in arguments.items() if name != "num_warps"}
    types = {"x": "*u8" if constants.get("PARTS") else "*fp32", "shift": "fp32", "factor": "fp32",
             **dict.fromkeys(("order", "counter", "place", "spread", "kind", "y"), "*i64"),
             **dict.fromkeys(("ahead", "size", "batch", "networks", "groups", "columns", "features", "split", "splits", "floats",
                              "blocks", "stride", "pitch", "start", "steps", "rows"), "i32")}
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature)
               if signature[name].startswith("*") or name in ("batch", "features", "pitch")}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": arguments["num_warps"]}
    cubin: bytes = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]
    return cubin


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_interpreted_kernels_pass():
    run_interpreted(__file__, "test_kernels_")
