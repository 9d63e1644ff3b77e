"""Compiled operators of the compressed forms, against NumPy's definition and the plain torch code in float64 with autograd.

Tests named `test_native_*` run once more for each instruction set that the library has, and `test_kernels_*` in Triton's
interpreter, where there is no GPU to run them: both have to be chosen before a process begins.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx
from triton_tools import run_again, run_interpreted

from mncompress import spline
from mncompress.native import instruction_set
from mncompress.nn import CubicSpline, PiecewiseLinear, _operators

ROOT = Path(__file__).parent.parent
Form = CubicSpline | PiecewiseLinear
HAS_TRITON = find_spec("triton") is not None
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_GPU = torch.cuda.is_available() and HAS_TRITON and not INTERPRETED
DEVICE = torch.device("cuda" if ON_GPU else "cpu")

native = pytest.mark.skipif(not _operators.NATIVE, reason="the library was not built")
kernels = pytest.mark.skipif(not (HAS_TRITON and (INTERPRETED or ON_GPU)), reason="kernels need a GPU or Triton's interpreter")
FURTHER = INTERPRETED or "MNCOMPRESS_KERNELS" in os.environ
here = pytest.mark.skipif(FURTHER, reason="not for the further processes")
both = pytest.mark.parametrize("make", ["cubic", "piecewise"])
shapes = (st.integers(0, 2**31), st.sampled_from(("cubic", "piecewise")), st.sampled_from((1, 2, 17, 130)),
          st.sampled_from((1, 7, 16, 33)), st.sampled_from((1, 2, 5, 15, 16, 31, 32, 256)))
pytestmark = pytest.mark.usefixtures("one_thread")


def draw(kind: str, n: int, pieces: int, seed: int = 0) -> tuple[Form, spline.CubicSpline | spline.PiecewiseLinear]:
    """A form with normal parameters on about [-1, 1], and its definition; both float32 numbers."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal(shape).astype(np.float32).astype(np.float64)

    if kind == "cubic":
        width = (pieces / (1.5 + rng.random(n))).astype(np.float32).astype(np.float64)
        definition = spline.CubicSpline(-1 + normal(n) / 8, width, normal(n, pieces, 4))
        return CubicSpline(definition), definition
    definition = spline.PiecewiseLinear(np.sort(normal(n, pieces), 1), normal(n, pieces), normal(n), normal(n))
    return PiecewiseLinear(definition), definition


def draw_u(form: Form, batch: int, seed: int = 1) -> Tensor:
    """Pre-activations (batch, n) inside and on both sides."""
    n = len(next(form.parameters()))
    return 1.5 * torch.randn(batch, n, generator=torch.Generator().manual_seed(seed))


def away_from_borders(form: Form, u: Tensor) -> Tensor:
    """1 where rounding cannot choose another piece than float64 does, 0 elsewhere."""
    exact = copy.deepcopy(form).double()
    if isinstance(exact, CubicSpline):
        s = (u.double() - exact.start) * exact.inverse_step
        distance = (s - s.round()).abs() / (1 + s.abs())
    else:
        distance = (u.double().unsqueeze(-1) - exact.knots).abs().amin(-1)
    return (distance > 1e-5).to(u.dtype)   # a hundred roundings of 6e-8


def run(form: Form, u: Tensor, y_grad: Tensor, forward: Callable[[Form, Tensor], Tensor]) -> dict[str, Tensor]:
    """Outputs and gradients by name."""
    u = u.detach().requires_grad_()
    y = forward(form, u)
    tensors = {"u": u, **dict(form.named_parameters())}
    gradients = torch.autograd.grad(y, list(tensors.values()), y_grad)
    return {"y": y.detach(), **dict(zip(tensors, gradients, strict=True))}


def run_plain(form: Form, u: Tensor, y_grad: Tensor, dtype: torch.dtype) -> dict[str, Tensor]:
    return run(copy.deepcopy(form).to(dtype), u.to(dtype), y_grad.to(dtype), type(form).forward_plain)


def run_compiled(form: Form, u: Tensor) -> Tensor:
    """The operator itself: no plain code can come in between."""
    return (_operators.cubic_spline if isinstance(form, CubicSpline) else _operators.piecewise_linear)(u, *form.parameters())


@pytest.fixture(autouse=True, scope="module")
def _interpreted() -> Iterator[None]:
    """In the interpreter's process the kernels run for CPU tensors."""
    with pytest.MonkeyPatch.context() as patch:
        if INTERPRETED:
            patch.setattr(_operators, "_native_forward", _operators._triton_forward)
            patch.setattr(_operators, "_native_backward", _operators._triton_backward)
        yield


def check(form: Form, u: Tensor, forward: Callable[[Form, Tensor], Tensor], seed: int = 2) -> None:
    """Compare outputs and all gradients with the plain code's in float64."""
    y_grad = torch.randn(u.shape, generator=torch.Generator().manual_seed(seed)).to(u.device) * away_from_borders(form, u)
    found = run(form, u, y_grad, forward)
    reference = run_plain(form, u, y_grad, torch.float64)
    plain = run_plain(form, u, y_grad, torch.float32)
    for name, expected in reference.items():
        if name == "y":
            for values in (found, plain, reference):
                values["y"] = values["y"] * away_from_borders(form, u)
            expected = reference["y"]
        assert found[name].shape == expected.shape
        assert found[name].dtype == torch.float32
        if expected.numel():
            # Rounded as often as the plain code, in another order: a few times its error (which may be 0 by luck), and some
            # hundred roundings of 6e-8 of the largest value.
            atol = 4 * (plain[name] - expected).abs().max().item() + 1e-5 * expected.abs().max().item() + 1e-7
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=atol, msg=lambda m, n=name: f"{n}: {m}")


@native
@settings(max_examples=15 if FURTHER else 60, deadline=None)
@given(*shapes)
def test_native_values_and_gradients_for_any_shape(seed, kind, batch, n, pieces):
    form, _ = draw(kind, n, pieces, seed)
    check(form, draw_u(form, batch, seed), run_compiled, seed)


@native
@both
@pytest.mark.parametrize("batch", [1, 70, 1000])
def test_native_values_are_those_of_the_definition(make, batch):
    form, definition = draw(make, 33, 12)
    u = draw_u(form, batch)
    with torch.no_grad():
        y = run_compiled(form, u)
        plain = form.forward_plain(u)
    expected = torch.from_numpy(definition.evaluate(u.double().numpy()))
    near = away_from_borders(form, u) == 0
    # As in `check`; at a border the other piece may be another curve.
    atol = 4 * (plain - expected)[~near].abs().max().item() + 1e-5
    torch.testing.assert_close(y.double()[~near], expected[~near], rtol=1e-5, atol=atol)


@native
def test_native_cubic_splines_on_and_around_their_knots():
    """With start 0 and step 1 all is exact: the piece, and t."""
    form, _ = draw("cubic", 2, 4)
    with torch.no_grad():
        form.start.zero_()
        form.inverse_step.fill_(1)
    edge = torch.arange(-1.0, 7.0)
    u = torch.cat([edge, edge.nextafter(torch.tensor(9.0)), edge.nextafter(torch.tensor(-9.0))]).unsqueeze(1).repeat(1, 2)
    for batch in (u, u.repeat(20, 1)):   # without and with preparation
        found, expected = (run(form, batch, torch.ones_like(batch), f) for f in (run_compiled, CubicSpline.forward_plain))
        for name, values in found.items():
            # Sums of up to 500 terms of size up to 30; y and the gradient by u are a few roundings.
            rtol = 1e-5 if name in ("y", "u") else 1e-4
            torch.testing.assert_close(values, expected[name], rtol=rtol, atol=rtol, msg=lambda m, n=name: f"{n}: {m}")


@native
def test_native_piecewise_linear_functions_at_their_knots():
    form, _ = draw("piecewise", 3, 5)
    u = form.knots.detach().T.clone()
    found, expected = (run(form, u, torch.ones_like(u), f) for f in (run_compiled, PiecewiseLinear.forward_plain))
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5, msg=lambda m, n=name: f"{n}: {m}")


@native
@both
@pytest.mark.parametrize("rows", [1, 40])
def test_native_keeps_nan_and_infinity_where_they_are(make, rows):
    form, _ = draw(make, 5, 3)
    u = torch.zeros(5)
    u[1], u[2], u[3] = torch.nan, torch.inf, -torch.inf
    u = u.repeat(rows, 1)
    found, expected = (run(form, u, torch.ones_like(u), f) for f in (run_compiled, type(form).forward_plain))
    for name in ("y", "u"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5, equal_nan=True)
    for name, _ in form.named_parameters():
        finite = found[name].reshape(5, -1).isfinite().all(1)
        assert finite[[0, 4]].all()   # the others' sums are theirs
        assert torch.equal(finite, expected[name].reshape(5, -1).isfinite().all(1)), name


@native
@both
def test_native_takes_any_rank_and_layout(make):
    form, _ = draw(make, 7, 5)
    u = draw_u(form, 24)
    expected = run_compiled(form, u)
    layouts = {"transposed": u.T.contiguous().T, "strided": u.repeat_interleave(2, 1)[:, ::2], "3-D": u.view(2, 12, 7),
               "column": u.view(4, 6, 7).transpose(0, 1)}
    for name, layout in layouts.items():
        y = form(layout)
        assert y.shape == layout.shape, name
        restored = y.transpose(0, 1) if name == "column" else y
        assert torch.equal(restored.reshape(24, 7), expected), name
        check(form, layout, CubicSpline.forward if make == "cubic" else PiecewiseLinear.forward)
    torch.testing.assert_close(form(u[3]), expected[3], rtol=1e-5, atol=1e-5)
    shared = u[:1].expand(24, 7)
    assert torch.equal(form(shared), form(shared.contiguous()))


@native
@both
def test_native_takes_empty_batches(make):
    form, _ = draw(make, 3, 4)
    for shape in ((0, 3), (2, 0, 3)):
        u = torch.zeros(shape)
        found = run(form, u, torch.zeros(shape), run_compiled)
        assert found["y"].shape == found["u"].shape == shape
        for name, value in form.named_parameters():
            assert torch.equal(found[name], torch.zeros_like(value))


@native
@both
def test_native_on_several_threads_is_the_same(make):
    form, _ = draw(make, 150, 20)
    u = draw_u(form, 3000)
    y_grad = torch.randn(u.shape, generator=torch.Generator().manual_seed(3))
    alone = run(form, u, y_grad, run_compiled)
    torch.set_num_threads(3)
    try:
        together = run(form, u, y_grad, run_compiled)
    finally:
        torch.set_num_threads(1)
    for name, values in alone.items():
        assert torch.equal(values, together[name]), name
    check(form, u, run_compiled)


@here
@native
@both
def test_gradients_are_given_where_they_are_asked_for(make):
    form, _ = draw(make, 3, 4)
    u = draw_u(form, 9)
    expected = run(form, u, torch.ones_like(u), run_compiled)
    for name in ("u", *dict(form.named_parameters())):
        one, given_u = copy.deepcopy(form).requires_grad_(False), u.clone()
        tensors = {"u": given_u, **dict(one.named_parameters())}
        tensors[name].requires_grad_()
        one(given_u).sum().backward()
        gradients = {key: tensor.grad for key, tensor in tensors.items()}
        assert torch.equal(gradients.pop(name), expected[name])
        assert set(gradients.values()) == {None}
    assert not copy.deepcopy(form).requires_grad_(False)(u).requires_grad


def count_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []
    original = _operators._call_native
    monkeypatch.setattr(_operators, "_call_native", lambda name, *rest: (names.append(name), original(name, *rest)))
    return names


@here
@native
@both
def test_modules_use_the_library_where_it_fits(make, monkeypatch):
    calls = count_calls(monkeypatch)
    form, _ = draw(make, 3, 4)
    u = draw_u(form, 6)
    form(u).sum().backward()
    assert [name.endswith("_backward") for name in calls] == [False, True]
    double = copy.deepcopy(form).double()
    assert double(u.double()).dtype == torch.float64
    assert form(u.double()).dtype == torch.float64   # as torch promotes
    one = u[:, :1]   # broadcast by the plain code
    torch.testing.assert_close(form(one), form(one.expand(6, 3)), rtol=1e-5, atol=1e-5)
    assert len(calls) == 3
    double.load_state_dict(form.state_dict())
    assert torch.equal(double.float()(u), form(u))


@here
@both
def test_without_the_library_plain_torch_computes_the_same(make, monkeypatch):
    calls = count_calls(monkeypatch)
    monkeypatch.setattr(_operators, "NATIVE", False)
    form, _ = draw(make, 7, 5)
    u = draw_u(form, 20)
    assert torch.equal(form(u), form.forward_plain(u))
    check(form, u, type(form).forward)
    assert not calls


@here
@both
def test_plain_code_passes_gradcheck(make):
    form, _ = draw(make, 2, 3)
    exact = copy.deepcopy(form).double()
    u = draw_u(form, 12).double().requires_grad_()
    names = [name for name, _ in exact.named_parameters()]
    assert torch.autograd.gradcheck(lambda u, *p: torch.func.functional_call(exact, dict(zip(names, p, strict=True)), u),
                                    (u, *(p.detach().requires_grad_() for p in exact.parameters())))


@here
@native
@both
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")   # of opcheck's own copies
def test_operators_keep_the_rules_of_torch(make):
    """Schema, fake tensors, autograd registration, and tracing with dynamic shapes."""
    form, _ = draw(make, 3, 4)
    operator = _operators.OPERATORS["cubic_spline" if make == "cubic" else "piecewise_linear"]
    # The tracing compares gradients by autograd of the traced and the eager operator, with torch's own tolerances.
    torch.library.opcheck(operator, (draw_u(form, 6).requires_grad_(), *form.parameters()))


@here
@native
@both
def test_operators_refuse_what_they_would_misread(make):
    form, _ = draw(make, 3, 4)
    for u in (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, 4)):
        with pytest.raises(ValueError, match="must be float32 and fit one another"):
            run_compiled(form, u)


class Network(nn.Module):
    """A linear layer, both forms, and one more linear layer."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Linear(4, 7), draw("cubic", 7, 5)[0], draw("piecewise", 7, 3)[0], nn.Linear(7, 2))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


@here
@native
def test_networks_compile_without_graph_breaks(monkeypatch):
    calls = count_calls(monkeypatch)
    network, x = Network(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    expected = network(x)
    expected.sum().backward()
    gradients = [p.grad.clone() for p in network.parameters()]
    network.zero_grad()
    calls.clear()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager")   # inductor takes long, and gets the same graph
    y = compiled(x)
    y.sum().backward()
    assert len(calls) == 4
    torch.testing.assert_close(y, expected, rtol=1e-5, atol=1e-6)   # other orders of the same sums
    for found, wanted in zip(network.parameters(), gradients, strict=True):
        torch.testing.assert_close(found.grad, wanted, rtol=1e-5, atol=1e-5)


@here
@native
def test_networks_export_with_a_dynamic_batch():
    network, x = Network().eval(), torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    program = torch.export.export(network, (x,), dynamic_shapes=({0: torch.export.Dim("batch", min=1)},))
    targets = {str(node.target) for node in program.graph.nodes}
    assert {"mncompress.cubic_spline.default", "mncompress.piecewise_linear.default"} <= targets
    for batch in (x, x.repeat(5, 1)):
        assert torch.equal(program.module()(batch), network(batch))


@kernels
@settings(max_examples=8, deadline=None)
@given(*shapes)
def test_kernels_compute_any_shape(seed, kind, batch, n, pieces):
    form, _ = draw(kind, n, min(pieces, 32) if kind == "piecewise" else pieces, seed)
    check(form.to(DEVICE), draw_u(form, batch, seed).to(DEVICE), run_compiled, seed)


@kernels
@both
def test_kernels_take_empty_batches_and_any_layout(make):
    form, _ = draw(make, 17, 4)
    u = draw_u(form, 24).to(DEVICE)
    form.to(DEVICE)
    check(form, u.T.contiguous().T, run_compiled)
    check(form, u.view(2, 12, 17), run_compiled)
    found = run(form, u[:0], u[:0], run_compiled)
    for name, value in form.named_parameters():
        assert torch.equal(found[name], torch.zeros_like(value))


@kernels
@both
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_kernels_keep_nan_and_infinity_where_they_are(make):
    form = draw(make, 5, 3)[0].to(DEVICE)
    u = torch.zeros(2, 5, device=DEVICE)
    u[:, 1], u[:, 2], u[:, 3] = torch.nan, torch.inf, -torch.inf
    found, expected = (run(form, u, torch.ones_like(u), f) for f in (run_compiled, type(form).forward_plain))
    for name in ("y", "u"):
        torch.testing.assert_close(found[name], expected[name], rtol=1e-5, atol=1e-5, equal_nan=True)
    for name, _ in form.named_parameters():
        finite = found[name].reshape(5, -1).isfinite().all(1)
        assert torch.equal(finite, expected[name].reshape(5, -1).isfinite().all(1)), name


@kernels
def test_kernels_have_the_derivatives_of_torch_at_knots():
    form = draw("piecewise", 3, 5)[0].to(DEVICE)
    u = form.knots.detach().T.clone()
    found, expected = (run(form, u, torch.ones_like(u), f) for f in (run_compiled, PiecewiseLinear.forward_plain))
    for name, values in found.items():
        torch.testing.assert_close(values, expected[name], rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not ON_GPU, reason="needs a GPU")
@both
def test_cuda_modules_use_the_kernels(make):
    form, _ = draw(make, 128, 12)
    u = draw_u(form, 1000).to(DEVICE)
    form.to(DEVICE)
    assert _operators.can_run(u, *form.parameters())
    check(form, u, type(form).forward)


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
@pytest.mark.parametrize("name", ["cubic_spline_forward", "cubic_spline_backward", "piecewise_linear_forward",
                                  "piecewise_linear_backward"])
def test_kernels_compile_ahead_of_time(name):
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from mncompress.nn import _operator_kernels

    kernel = getattr(_operator_kernels, name)
    constants = {"ROWS": _operators.ROWS, "NEURONS": _operators.NEURONS}
    integers = ("rows", "neurons", "intervals", "count", "floats")
    signature = {a: "constexpr" if a in constants else "i32" if a in integers else "*fp32" for a in kernel.arg_names}
    source = ASTSource(kernel, signature=signature, constexprs=constants)
    assert ".target sm_90" in triton.compile(source, target=GPUTarget("cuda", 90, 32)).asm["ptx"]


@here
@pytest.mark.skipif(not HAS_TRITON, reason="needs triton")
def test_interpreted_kernels_pass():
    run_interpreted(__file__, "test_kernels_ and not ahead_of_time")


LITTLE_MEMORY = """
import resource, sys
import numpy as np, torch
from mncompress import spline
from mncompress.nn import CubicSpline

torch.set_num_threads(64)
rows, intervals, spare = map(int, sys.argv[1:])
form = CubicSpline(spline.CubicSpline(np.zeros(64), np.ones(64), np.ones((64, intervals, 4))))
u, y = torch.zeros(rows, 64), torch.zeros(rows, 64)
form(u)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + u.numel() * 4 + spare,) * 2)
try:
    print(bool((form(u) == 1).all()))
except MemoryError as error:
    print(error)
"""


@here
@native
@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
@pytest.mark.parametrize(("rows", "intervals", "spare", "expected"), [
    (20_000, 4, 20 << 20, "True"),     # room for the stacks of two threads, of the 64 asked for
    (200_000, 90_000, 20 << 20, "there is not enough memory to compute cubic_spline of a batch of shape (200000, 64)")])
def test_too_little_memory_is_an_error(rows, intervals, spare, expected):
    command = [sys.executable, "-c", LITTLE_MEMORY, *map(str, (rows, intervals, spare))]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout.strip() == expected, done.stderr[-500:]


@here
@native
@pytest.mark.parametrize("name", ["scalar", "avx2", "avx512", "neon"])
def test_other_instruction_sets_pass(name):
    program = "from mncompress.native import instruction_set; print(instruction_set())"
    chosen = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=os.environ | {"MNCOMPRESS_KERNELS": name},
                            capture_output=True, text=True, check=True).stdout.strip()
    if chosen != name or name == instruction_set():
        pytest.skip(f"{name} is not here, or is what the other tests have run")
    run_again(__file__, "test_native_", MNCOMPRESS_KERNELS=name)


# Whatever needs to see every operation takes the plain code, or the operators; never the eager shortcut.


@pytest.fixture(params=["cubic_spline", "piecewise_linear"])
def frozen(request):
    """A module without gradients of its own, as a compressed network has them, and pre-activations inside."""
    rng = np.random.default_rng(3)
    if request.param == "cubic_spline":
        form = CubicSpline(spline.CubicSpline(np.zeros(4), np.ones(4), rng.normal(size=(4, 5, 4))))
    else:
        form = PiecewiseLinear(spline.PiecewiseLinear(np.sort(rng.normal(size=(4, 3)), 1), *rng.normal(size=(1, 4, 3)),
                                                      *rng.normal(size=(2, 4))))
    return form.requires_grad_(False), torch.as_tensor(rng.uniform(0.1, 4.9, (3, 4)), dtype=torch.float32)


def test_second_derivatives_are_those_of_the_plain_code(frozen):
    form, x = frozen
    for f in (form, form.requires_grad_()):
        found, expected = (torch.autograd.functional.hessian(lambda v, g=g: (g(v) ** 2).sum(), x) for g in (f, f.forward_plain))
        assert expected.abs().max() > 0.1
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)   # two float32 evaluations of values up to 100


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:FutureWarning")  # torch uses it itself
def test_func_transforms_and_forward_mode(frozen):
    form, x = frozen
    torch.testing.assert_close(torch.vmap(form)(x), form.forward_plain(x), rtol=1e-5, atol=1e-5)
    plain = torch.func.jacrev(form.forward_plain)(x[0])
    torch.testing.assert_close(torch.func.jacrev(form)(x[0]), plain, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(torch.func.jacfwd(form)(x[0]), plain, rtol=1e-5, atol=1e-5)


def test_tracers_and_modes_see_the_operators(frozen):
    form, x = frozen
    torch.testing.assert_close(make_fx(form)(x)(x + 0.05), form(x + 0.05), rtol=1e-5, atol=1e-5)
    with FakeTensorMode(allow_non_fake_inputs=True):
        assert form(x).shape == x.shape


@pytest.mark.parametrize("shapes", [
    [(3, 4), (4,), (4,), (4, 0, 4)], [(3, 4), (4,), (4,), (4, 5, 3)],
    [(3, 4), (4, 4), (4,), (4, 5, 4)], [(3, 4), (4,), (4,), (4, 99)],
    [(3, 4), (4, 99), (4, 2), (4,), (4,)], [(3, 4), (4, 2), (4, 2), (4, 1), (4,)], [(3, 5), (4, 2), (4, 2), (4,), (4,)]])
def test_shapes_that_do_not_fit_are_refused(shapes):
    tensors = [torch.zeros(shape) for shape in shapes]
    assert not _operators.can_run(*tensors)
    with pytest.raises(ValueError, match="must be float32 and fit one another"):
        _operators.OPERATORS["cubic_spline" if len(shapes) == 4 else "piecewise_linear"](*tensors)
