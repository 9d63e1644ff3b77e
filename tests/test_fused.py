"""Fused kernels of learned activations, against the plain modules in float64 with autograd.

The kernels run where there is a GPU, and everywhere with triton in its interpreter. That has to be chosen before triton is
imported, so a test runs this file once more in a process of its own, in which the tests named `test_kernels_*` run.
"""

import functools
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.func import functional_call
from triton_tools import resources, run_interpreted

from mncompress.nn import LearnedActivation, make_activation
from mncompress.nn import _fused as fused
from mncompress.types import ACTS, ENDS, RELU_LIKE, Act, ActivationSpec

ROOT = Path(__file__).parent.parent
HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and HAS_TRITON and not INTERPRETED
DEVICE = torch.device("cuda" if ON_GPU else "cpu")

kernels = pytest.mark.skipif(not (HAS_TRITON and (INTERPRETED or ON_GPU)), reason="kernels need a GPU or Triton's interpreter")
compiled = pytest.mark.skipif(not ON_GPU, reason="compiled kernels need a GPU")
here = pytest.mark.skipif(INTERPRETED, reason="not for the interpreter's process")
overflow = pytest.mark.filterwarnings("ignore:overflow encountered in exp:RuntimeWarning")
"""The interpreter's NumPy warns of exp(100), which a GPU computes in silence."""


def all_specs() -> list[ActivationSpec]:
    """Every family with every act it can have; meta-neurons with varied depth, width and ends."""
    specs = [ActivationSpec("agsig", "sigmoid"), ActivationSpec("frelu", "relu")]
    for k, act in enumerate(ACTS):
        specs += [ActivationSpec("warp", act), ActivationSpec("vaf", act, 5, 1),
                  ActivationSpec("meta", act, 5, 1, ends=ENDS[k % 4]),
                  ActivationSpec("meta", act, (3, 16, 5)[k % 3], 2 + k % 2, ends=ENDS[(k + 1) % 4])]
    return specs


def draw(spec: ActivationSpec, n: int, batch: int, seed: int) -> tuple[LearnedActivation, dict[str, Tensor], Tensor]:
    """Activations with standard normal parameters, and normal pre-activations (batch, n) of standard deviation 3."""
    generator = torch.Generator().manual_seed(seed)
    activation = make_activation(spec, n).to(DEVICE)
    parameters = {name: torch.randn(value.shape, generator=generator).to(DEVICE).requires_grad_()
                  for name, value in activation.named_parameters()}
    return activation, parameters, (3 * torch.randn(batch, n, generator=generator)).to(DEVICE).requires_grad_()


def run_plain(activation: LearnedActivation, parameters: dict[str, Tensor], u: Tensor, dtype: torch.dtype,
              y_grad: Tensor) -> dict[str, Tensor]:
    """Outputs and gradients of the plain module, by name."""
    u = u.detach().to(dtype).requires_grad_()
    own = {name: value.detach().to(dtype).requires_grad_() for name, value in parameters.items()}
    y = functional_call(activation, own, u)
    return {"y": y.detach(), **collect(y, u, own, y_grad.to(dtype))}


def collect(y: Tensor, u: Tensor, parameters: dict[str, Tensor], y_grad: Tensor) -> dict[str, Tensor]:
    gradients = torch.autograd.grad(y, [u, *parameters.values()], y_grad)
    return dict(zip(("u", *parameters), gradients, strict=True))


def away_from_kinks(activation: LearnedActivation, parameters: dict[str, Tensor], u: Tensor) -> Tensor:
    """1 where y is differentiable at u and near it, 0 elsewhere, where rounding may choose another side than float64.

    For piecewise-linear activations only: there the slope by u is the same nearby.
    """
    if activation.spec.act not in RELU_LIKE:
        return torch.ones_like(u)
    ones = torch.ones_like(u)
    step = 1e-4 * (1 + u.detach().double().abs())
    slopes = [run_plain(activation, parameters, u + k * step, torch.float64, ones)["u"] for k in (-1, 0, 1)]
    return (torch.isclose(slopes[0], slopes[1]) & torch.isclose(slopes[2], slopes[1])).float()


def check(activation: LearnedActivation, parameters: dict[str, Tensor], u: Tensor, seed: int) -> None:
    """Compare outputs and all gradients of the fused with the plain activation."""
    y_grad = torch.randn(u.shape, generator=torch.Generator().manual_seed(seed + 1)).to(u.device)
    y_grad *= away_from_kinks(activation, parameters, u)
    y = fused.fused_activation(activation, parameters, u)
    found = {"y": y.detach(), **collect(y, u, parameters, y_grad)}
    reference = run_plain(activation, parameters, u, torch.float64, y_grad)
    plain = run_plain(activation, parameters, u, torch.float32, y_grad)
    for name, expected in reference.items():
        assert found[name].shape == expected.shape
        assert found[name].dtype == torch.float32
        # The kernels round as often as the plain module, in another order: a few times its error (which may be 0 by luck), and
        # some hundred roundings of 6e-8 of the largest value.
        atol = 4 * (plain[name] - expected).abs().max().item() + 1e-5 * expected.abs().max().item() + 1e-7
        torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=atol, msg=f"{name} differs, {seed = }")


@kernels
@overflow
@pytest.mark.parametrize("spec", all_specs(), ids=str)
def test_kernels_compute_every_family(spec):
    activation, parameters, u = draw(spec, n=2, batch=40, seed=1)
    check(activation, parameters, u, seed=1)


@kernels
@overflow
@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(("warp", "vaf", "meta", "meta")), st.sampled_from(ACTS), st.sampled_from(ENDS),
       st.sampled_from((1, 3, 64, 130)), st.sampled_from((1, 2, 7)), st.sampled_from((1, 5, 16)), st.integers(1, 3))
def test_kernels_compute_any_shape(seed, family, act, ends, batch, n, width, depth):
    spec = (ActivationSpec("meta", act, width, depth, ends=ends) if family == "meta" else
            ActivationSpec(family, act, width, 1) if family == "vaf" else ActivationSpec(family, act))
    activation, parameters, u = draw(spec, n, batch, seed)
    check(activation, parameters, u, seed)


@kernels
@pytest.mark.parametrize(("batch", "n", "width", "depth"), [(3, 65, 5, 1), (300, 2, 5, 1), (70, 1, 20, 1), (130, 2, 20, 2)])
def test_kernels_take_several_blocks_and_many_neurons(batch, n, width, depth):
    activation, parameters, u = draw(ActivationSpec("meta", "silu", width, depth, ends="gated"), n, batch, seed=2)
    check(activation, parameters, u, seed=2)


@kernels
@overflow
@pytest.mark.parametrize("act", ACTS)
def test_kernels_take_large_pre_activations(act):
    activation, parameters, u = draw(ActivationSpec("meta", act, 5, 1, ends="skip"), n=2, batch=32, seed=3)
    with torch.no_grad():
        u.copy_(torch.where(u > 0, 100.0, -100.0) + u)
    check(activation, parameters, u, seed=3)


def identity_warp(act: Act, n: int) -> tuple[LearnedActivation, dict[str, Tensor]]:
    """alpha act(beta u + delta) + eta that is just act."""
    one, zero = torch.ones(n, device=DEVICE), torch.zeros(n, device=DEVICE)
    return make_activation(ActivationSpec("warp", act), n), {"alpha": one, "beta": one, "delta": zero, "eta": zero}


@kernels
@overflow
@pytest.mark.parametrize("act", ACTS)
def test_kernels_lose_no_digits_near_zero_and_far_out(act):
    size = torch.logspace(-6, 1.9, 400, dtype=torch.float64)
    u = torch.cat([-size, size]).unsqueeze(1).float().to(DEVICE).requires_grad_()
    y = fused.fused_activation(*identity_warp(act, 1), u)
    slope, = torch.autograd.grad(y.sum(), u)
    exact_u = u.detach().double().requires_grad_()
    exact = make_activation(ActivationSpec("fixed", act), 1)(exact_u)
    exact_slope, = torch.autograd.grad(exact.sum(), exact_u)
    # exp(z) is exact to |z| 6e-8, 5e-6 at 80, and may be 0 where it is denormal. gelu, and the slope of silu, cross 0 or fade as
    # differences of numbers near 1 (times u, which there is below 16); so do slopes of the reference, 1 - tanh^2 and its like.
    torch.testing.assert_close(y.double(), exact, rtol=1e-5, atol=1e-6 if act == "gelu" else 1e-37)
    torch.testing.assert_close(slope.double(), exact_slope, rtol=1e-5, atol=1e-6 if act in ("gelu", "silu") else 1e-15)


@kernels
@pytest.mark.parametrize("act", ACTS)
def test_kernels_have_the_slope_of_torch_at_zero(act):
    u = torch.zeros(2, 1, device=DEVICE, requires_grad=True)
    slope, = torch.autograd.grad(fused.fused_activation(*identity_warp(act, 1), u).sum(), u)
    plain, = torch.autograd.grad(make_activation(ActivationSpec("fixed", act), 1)(u).sum(), u)
    torch.testing.assert_close(slope, plain, rtol=1e-6, atol=1e-7)


@kernels
@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("depth", [1, 2])
def test_kernels_keep_nan(act, depth):
    activation, parameters, u = draw(ActivationSpec("meta", act, 3, depth), n=2, batch=4, seed=4)
    with torch.no_grad():
        u[1, 0] = torch.nan
    y = fused.fused_activation(activation, parameters, u)
    assert torch.equal(y.isnan(), u.isnan())


@kernels
@pytest.mark.parametrize("depth", [1, 2])
def test_kernels_take_any_memory_layout(depth):
    activation, parameters, wide = draw(ActivationSpec("meta", "silu", 5, depth), n=3, batch=40, seed=5)
    transposed = wide.detach().T.contiguous().T.requires_grad_()
    strided = wide.detach().repeat_interleave(2, 0)[::2].requires_grad_()
    doubled = {name: value.detach().repeat_interleave(2, -1)[..., ::2].requires_grad_() for name, value in parameters.items()}
    expected = fused.fused_activation(activation, parameters, wide)
    for layout in (transposed, strided):
        assert torch.equal(fused.fused_activation(activation, parameters, layout), expected)
        check(activation, doubled, layout, seed=5)
    y = fused.fused_activation(activation, parameters, wide)
    slope, = torch.autograd.grad(y.sum(), wide)   # the gradient by y is one number expanded
    torch.testing.assert_close(slope, run_plain(activation, parameters, wide, torch.float32, torch.ones_like(y))["u"],
                               rtol=1e-5, atol=1e-5)


@kernels
@pytest.mark.parametrize("depth", [1, 2])
def test_kernels_give_the_gradients_asked_for(depth):
    activation, parameters, u = draw(ActivationSpec("meta", "elu", 3, depth, ends="gated"), n=2, batch=8, seed=6)
    y = fused.fused_activation(activation, parameters, u)
    expected = collect(y, u, parameters, torch.ones_like(y))
    for name in expected:
        chosen = {key: value.detach().requires_grad_(key == name) for key, value in (parameters | {"u": u}).items()}
        given_u = chosen.pop("u")
        fused.fused_activation(activation, chosen, given_u).sum().backward()
        gradients = {key: value.grad for key, value in (chosen | {"u": given_u}).items()}
        torch.testing.assert_close(gradients.pop(name), expected[name], rtol=0, atol=0)
        assert set(gradients.values()) == {None}
    assert not fused.fused_activation(activation, {k: v.detach() for k, v in parameters.items()}, u.detach()).requires_grad


@kernels
def test_kernels_take_the_neurons_of_many_networks():
    """Feature-first values (M, n, batch) and shared parameters, as a population has them."""
    activation, parameters, _ = draw(ActivationSpec("meta", "gelu", 5, 1, shared=True), n=4, batch=1, seed=7)
    stacked = {name: torch.stack([value, 2 * value]).detach() for name, value in parameters.items()}   # (M, 1, ...)
    u = torch.randn(2, 4, 33, generator=torch.Generator().manual_seed(8)).to(DEVICE)
    flat = {name: value.expand(2, 4, *value.shape[2:]).flatten(0, 1) for name, value in stacked.items()}
    y = fused.fused_activation(activation, flat, u.flatten(0, 1).T).T.view(u.shape)
    for k in range(2):
        expected = functional_call(activation, {name: value[k] for name, value in stacked.items()}, u[k].T).T
        torch.testing.assert_close(y[k], expected, rtol=1e-5, atol=1e-5)


@kernels
def test_kernels_refuse_other_precisions_and_other_neurons():
    activation, parameters, u = draw(ActivationSpec("vaf", "relu", 3, 1), n=2, batch=4, seed=9)
    with pytest.raises(AssertionError, match="kernels are float32"):
        fused.fused_activation(activation, parameters, u.double())
    with pytest.raises(AssertionError, match="not as many rows of parameters"):
        fused.fused_activation(activation, parameters, u[:, :1])


@compiled
@pytest.mark.parametrize("spec", all_specs(), ids=str)
def test_compiled_kernels_compute_large_batches(spec):
    activation, parameters, u = draw(spec, n=1027, batch=1000, seed=10)
    check(activation, parameters, u, seed=10)


@compiled
@pytest.mark.parametrize("depth", [1, 2])
def test_compiled_kernels_run_in_a_captured_graph(depth):
    activation, parameters, u = draw(ActivationSpec("meta", "tanh", 5, depth, ends="gated"), n=128 * 16, batch=512, seed=11)
    y_grad = torch.randn_like(u)

    def step() -> dict[str, Tensor]:
        y = fused.fused_activation(activation, parameters, u)
        return {"y": y, **collect(y, u, parameters, y_grad)}

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        u.mul_(0.5)
    graph.replay()
    for name, expected in step().items():
        assert torch.equal(captured[name], expected), name


@compiled
def test_compiled_kernels_are_available():
    assert fused.fused_available(torch.device("cuda", 0), ActivationSpec("meta", "relu", 5, 1))


def compile_kernel(launch: fused.Launch, direction: fused.Direction, capability: int) -> dict[str, bytes]:
    """What Triton makes of a kernel ahead of time, for pointers and batches that are multiples of 16."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    kernel = launch.kernel(direction)
    absent = {f"{place}_{name}": None for place, kind in zip(("in", "out"), launch.kinds, strict=True)
              if kind != "mixed" for name in ("scale", "skip")}
    constants = launch.constants | absent
    signature = {name: "constexpr" if name in constants else "i32" if name in ("batch", "neurons", "floats") else "*fp32"
                 for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if signature[name] == "*fp32" or name == "batch"}
    source = ASTSource(kernel, signature=signature, constexprs=constants, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": launch.warps}).asm


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("direction", ["forward", "backward"])
@pytest.mark.parametrize(("width", "stack", "ends"), [(1, 0, "linear"), (5, 0, "act"), (5, 0, "mixed"), (16, 0, "mixed"),
                                                      (5, 1, "mixed")])
def test_compiled_code_spills_no_registers(width, stack, ends, direction, tmp_path):
    """With gelu, which takes the most registers, and the largest blocks."""
    launch = fused.Launch("gelu", (ends, ends), width, stack, batch=1024)
    compiled_kernel = compile_kernel(launch, direction, capability=90)
    registers, stack, local = resources(compiled_kernel["cubin"], tmp_path / "kernel.cubin")
    assert registers < 255   # the most there are
    assert stack == local == 0


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_all_acts_compile():
    for act in ACTS:
        for direction in ("forward", "backward"):
            assert ".target sm_90" in compile_kernel(fused.Launch(act, ("mixed", "mixed"), 2, 0, batch=128), direction, 90)["ptx"]


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_interpreted_kernels_pass():
    run_interpreted(__file__, "test_kernels_")


@here
def test_importing_the_package_does_not_import_triton():
    program = "import sys, mncompress.nn, mncompress.nn._fused; sys.exit('triton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False).returncode == 0


@here
def test_fused_kernels_are_for_gpus_and_inner_networks(monkeypatch):
    cuda, meta = torch.device("cuda"), ActivationSpec("meta", "relu", 5, 1)
    monkeypatch.setattr(fused._Inner, "apply", lambda *_: None)   # runs wherever it is tried
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(*shape))
    for installed in (True, False):
        monkeypatch.setattr(fused, "find_spec", lambda name, installed=installed: name if installed else None)
        monkeypatch.setattr(fused, "triton_runs", functools.cache(fused.triton_runs.__wrapped__))
        assert fused.fused_available(cuda, meta) == installed
        assert not fused.fused_available(torch.device("cpu"), meta)
    monkeypatch.setattr(fused, "triton_runs", lambda device: True)
    assert fused.fused_available(cuda, meta)
    assert not fused.fused_available(cuda, ActivationSpec("fixed", "relu"))
    assert not fused.fused_available(cuda, ActivationSpec("vaf", "relu", fused.MAX_WIDTH + 1, 1))


@here
def test_failing_kernels_are_not_used(monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nMore lines")

    monkeypatch.setattr(fused.Launch, "run", fail)
    monkeypatch.setattr(torch, "ones", lambda *shape, device: torch.zeros(*shape))   # there may be no GPU to have it on
    monkeypatch.setattr(fused, "triton_runs", functools.cache(fused.triton_runs.__wrapped__))
    monkeypatch.setattr(fused, "find_spec", lambda name: name)
    with pytest.warns(UserWarning, match=r"without fused kernels.*RuntimeError: Failed to find C compiler\.$"):
        assert not fused.fused_available(torch.device("cuda"), ActivationSpec("warp", "relu"))
    assert not fused.fused_available(torch.device("cuda"), ActivationSpec("warp", "tanh"))   # asked once, warned once
