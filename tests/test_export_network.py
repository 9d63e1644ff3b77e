"""Networks as ONNX files: against NumPy in float64, in ONNX Runtime and in the onnx reference evaluator."""

import functools
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import numpy_helper
from scipy import special
from torch import nn

from mncompress import runtime, spline
from mncompress.analysis._inner import from_native
from mncompress.compression import Group, rewrite
from mncompress.errors import ExportError, MncompressError, RuntimeProviderError
from mncompress.export import _network as export_network
from mncompress.export import check_export, make_model, run_reference, write_onnx
from mncompress.export._graph import DOMAIN
from mncompress.export._inline import inline_functions
from mncompress.export._inner import Form
from mncompress.nn import CubicSpline, LearnedActivation, Network, Polynomial, Standardize, make_body
from mncompress.spline import Affine
from mncompress.types import ACTS, ENDS, Act, ActivationSpec, NetworkSpec

METADATA = {"producer": "mncompress", "version": "0", "recipe_hash": "sha256:0", "seed": "3"}
FLOAT32 = 3e-5
"""Of the largest output: up to five layers of roundings of 6e-8, each of terms some ten times as large as their sum."""
STANDARD = {"": 18}

NUMPY_ACTS: dict[Act, Callable[[Any], Any]] = {
    "relu": lambda z: np.maximum(z, 0), "leaky_relu": lambda z: np.where(z > 0, z, 0.01 * z), "sigmoid": special.expit,
    "tanh": np.tanh, "silu": lambda z: z * special.expit(z), "gelu": lambda z: z * (1 + special.erf(z / np.sqrt(2))) / 2,
    "softplus": lambda z: np.logaddexp(z, 0), "elu": lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))),
}


@functools.cache
def newest_opset() -> int:
    """The newest opset that the installed ONNX Runtime opens."""
    network = make_network((2,), [ActivationSpec("fixed", "tanh")])
    for opset in range(onnx.defs.onnx_opset_version(), 18, -1):
        try:
            runtime.make_session(make_model(network, opset_version=opset, metadata={}).SerializeToString())
        except RuntimeProviderError:
            continue
        return opset
    return 18


# Networks, and what they should compute


def make_network(hidden: Sequence[int], activations: Sequence[ActivationSpec], *, task: str = "classification",
                 output_activation: bool = False, residual: bool = False, in_features: int = 3, out_features: int = 2,
                 seed: int = 0, shift: Any = 0.3, scale: Any = 1.7) -> Network:
    """A network with random weights of a size that keeps its values near 1."""
    spec = NetworkSpec(in_features, tuple(hidden), out_features, tuple(activations), task, output_activation, residual)
    rng = np.random.default_rng(seed)
    targets = Standardize(rng.normal(5, 1, out_features), rng.uniform(2, 3, out_features)) if task == "regression" else None
    features = Standardize(np.broadcast_to(shift, in_features), np.broadcast_to(scale, in_features))
    network = Network(spec, make_body(spec), features, targets).requires_grad_(False)
    for parameter in network.body.parameters():
        fan_in = parameter.shape[-1] if parameter.ndim > 1 else 1
        parameter.copy_(torch.as_tensor(rng.uniform(-1.5, 1.5, parameter.shape) / np.sqrt(fan_in)))
    return network


def learned(activation: LearnedActivation, u: Any) -> Any:
    """A family's formula in NumPy, on u (rows, n)."""
    act, family = NUMPY_ACTS[activation.spec.act], activation.spec.family
    p = {name: value.double().numpy() for name, value in activation.state_dict().items()}
    if family == "fixed":
        return act(u)
    if family == "agsig":
        return p["alpha"] * act(p["beta"] * u)
    if family == "frelu":
        return act(u + p["delta"]) + p["eta"]
    if family == "warp":
        return p["alpha"] * act(p["beta"] * u + p["delta"]) + p["eta"]

    def end(place: str, z: Any) -> Any:
        gate, skip = p.get(f"{place}_gate", 0.0), 0.1 if activation.spec.ends == "leaky" else p.get(f"{place}_skip", 0.0)
        return act(z) + gate * (z - act(z)) + skip * z if family == "meta" else z

    a = end("in", u)
    h = act(a[:, :, None] * p["first_weight"] + p["first_bias"])
    for k in range(activation.spec.depth - 1):
        h = act((p[f"weights.{k}"] @ h[:, :, :, None])[..., 0] + p[f"biases.{k}"]) + h
    y = (h * p["out_weight"]).sum(-1) + p["out_bias"]
    return end("out", y)


def expected_outputs(network: Network, x: Any, groups: Sequence[Sequence[Group]] | None = None) -> Any:
    """Outputs in float64 from the weights of the original network; with `groups` in place of its activations."""
    h = (x.astype(np.float64) - network.features.shift.double().numpy()) / network.features.scale.double().numpy()
    remaining = iter(groups or ())
    for layer in network.layers:
        u = h @ layer.linear.weight.double().numpy().T + layer.linear.bias.double().numpy()
        y = u
        if layer.activation is not None:
            y = learned(layer.activation, u)
            for group in next(remaining, ()):
                if group.form is not None:
                    y[:, group.indices] = group.form.evaluate(u[:, group.indices])
        h = y + h if layer.residual else y
    return h if network.targets is None else h * network.targets.scale.double().numpy() + network.targets.shift.double().numpy()


def make_form(key: str, n: int, rng: np.random.Generator) -> Any:
    """Some replacement of n neurons, of the given kind."""
    def random(low: float = -1.0, high: float = 1.0) -> Any:
        return rng.uniform(low, high, n)

    kind, _, act = key.partition(":")
    curve = from_native(spline.Native("tanh", random(0.5, 1), random(), random(), random()))
    if kind == "constant":
        return Affine(np.zeros(n), random())
    if kind == "affine":
        return Affine(random(), random())
    if kind == "native":
        return spline.Native(act, random(), random(0.3, 1), random(), random())
    if kind == "piecewise_linear":
        return spline.PiecewiseLinear(np.sort(rng.uniform(-2, 2, (n, 3)), 1), rng.uniform(-1, 1, (n, 3)), random(), random())
    target = spline.make_target(curve, random(-3, -1), random(1, 3))
    if kind == "polynomial":
        return spline.fit_polynomial(target, 5)
    return spline.fit_spline(target, spline.span_knots(target.lo, target.hi, 8), 3)


def make_groups(network: Network, seed: int) -> list[list[Group]]:
    """A random form for every neuron."""
    rng = np.random.default_rng(seed)
    keys = ["constant", "affine", "piecewise_linear", "polynomial", "cubic_spline", "kept", *(f"native:{act}" for act in ACTS)]
    layers = []
    for layer in network.activated_layers:
        chosen = rng.choice(rng.choice(keys, 3), layer.linear.out_features)
        layers.append([Group(key, mine, None if key == "kept" else make_form(key, len(mine), rng), np.ones(len(mine), bool))
                       for key in sorted(set(chosen.tolist())) for mine in [np.flatnonzero(chosen == key)]])
    return layers


def raw_features(network: Network, rows: int, seed: int = 1) -> Any:
    """Rows of float32 that standardization brings to about normal ones."""
    z = np.random.default_rng(seed).normal(size=(rows, network.spec.in_features))
    return (z * network.features.scale.numpy() + network.features.shift.numpy()).astype(np.float32)


def run_model(model: onnx.ModelProto, x: Any, *, optimize: bool = True, kernels: bool = True) -> Any:
    return runtime.run(runtime.make_session(model.SerializeToString(), optimize=optimize, kernels=kernels), x)


def assert_computes(network: Network, expected: Any, x: Any, opset: int) -> None:
    """The model and its inlined form pass the checker and give `expected`, everywhere, for every batch size."""
    model = make_model(network, opset_version=opset, metadata=METADATA)
    portable = inline_functions(model)
    onnx.checker.check_model(model, full_check=True)
    onnx.checker.check_model(portable, full_check=True)
    atol = FLOAT32 * max(1.0, np.abs(expected).max())
    for each in (model, portable):
        for optimize, kernels in itertools.product((True, False), repeat=2):
            np.testing.assert_allclose(run_model(each, x, optimize=optimize, kernels=kernels), expected, rtol=0, atol=atol)
        np.testing.assert_allclose(run_reference(each, x.astype(np.float32)), expected, rtol=0, atol=atol)
    session = runtime.make_session(portable.SerializeToString())
    (name,) = (output.name for output in session.get_outputs())
    has_convolution = "Conv" in operators(portable)       # which ONNX Runtime refuses for an empty batch
    for rows in (1, 3) if has_convolution else (0, 1, 3):
        outputs = session.run([name], {"input": x[:rows].astype(np.float32)})[0]
        assert outputs.shape == (rows, network.spec.out_features)
        np.testing.assert_allclose(outputs, expected[:rows], rtol=0, atol=atol)
    bodies = run_model(model, x, optimize=False, kernels=False)
    np.testing.assert_array_equal(bodies, run_model(portable, x, optimize=False))


def activation_specs() -> st.SearchStrategy[ActivationSpec]:
    acts, shared = st.sampled_from(ACTS), st.booleans()
    return st.one_of(
        st.builds(ActivationSpec, st.sampled_from(["fixed", "warp"]), acts, shared=shared),
        st.builds(ActivationSpec, st.just("agsig"), st.just("sigmoid"), shared=shared),
        st.builds(ActivationSpec, st.just("frelu"), st.just("relu"), shared=shared),
        st.builds(ActivationSpec, st.just("vaf"), acts, st.integers(1, 4), st.just(1), shared),
        st.builds(ActivationSpec, st.just("meta"), acts, st.integers(1, 4), st.integers(1, 3), shared, st.sampled_from(ENDS)))


@st.composite
def networks(draw: st.DrawFn) -> Network:
    """Any family in any layer, any depth, residual or not, with or without output activation, either task."""
    residual, output_activation = draw(st.booleans()), draw(st.booleans())
    hidden = (draw(st.integers(1, 5)),) * draw(st.integers(2, 4)) if residual else draw(st.lists(st.integers(1, 5), max_size=4))
    activations = [draw(activation_specs()) for _ in range(len(hidden) + output_activation)]
    return make_network(hidden, activations, task=draw(st.sampled_from(["classification", "regression"])), residual=residual,
                        output_activation=output_activation, seed=draw(st.integers(0, 2**16)))


@settings(max_examples=15, deadline=None)
@given(network=networks(), newest=st.booleans())
def test_original_computes_its_formulas(network: Network, newest: bool) -> None:
    x = raw_features(network, 7)
    assert_computes(network, expected_outputs(network, x), x, newest_opset() if newest else 18)


@settings(max_examples=20, deadline=None)
@given(network=networks(), seed=st.integers(0, 2**16), newest=st.booleans())
def test_compressed_computes_original_weights_with_the_forms(network: Network, seed: int, newest: bool) -> None:
    groups, x = make_groups(network, seed), raw_features(network, 7)
    assert_computes(rewrite(network, groups), expected_outputs(network, x, groups), x, newest_opset() if newest else 18)


@pytest.mark.parametrize(("key", "module"), [("polynomial", Polynomial), ("cubic_spline", CubicSpline)])
def test_forms_that_scale_their_input_themselves(key: str, module: type[nn.Module]) -> None:
    """As nobody folds it into the layer before."""
    network = make_network((4,), [ActivationSpec("fixed", "tanh")])
    x, form = raw_features(network, 7), make_form(key, 4, np.random.default_rng(0))
    expected = expected_outputs(network, x, [[Group(key, np.arange(4), form, np.ones(4, bool))]])
    network.layers[0].activation = module(form)
    assert_computes(network, expected, x, 18)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(("form", "spec"), [
    ("elementwise", ActivationSpec("vaf", "tanh", 3, 1)), *(
        (form, ActivationSpec("meta", "tanh", 3, 1 + (form != "elementwise"), form == "shared_conv", ends))
        for form in get_args(Form) for ends in ENDS[1:]),
    ("block_gemm", ActivationSpec("meta", "gelu", 3, 2)),
    ("grouped_conv", ActivationSpec("meta", "gelu", 3, 2)), ("shared_conv", ActivationSpec("meta", "silu", 3, 2, shared=True))])
def test_every_form_of_inner_networks(form: Form, spec: ActivationSpec, residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also the one that keeps (neurons, batch) between layers, next to residual sums, groups, and layers that do not."""
    monkeypatch.setattr(export_network, "choose_form", lambda *args, **kwargs: form)
    network = make_network((6, 6, 6), [spec, spec, ActivationSpec("fixed", "tanh")], task="regression", residual=residual)
    x = raw_features(network, 7)
    assert_computes(network, expected_outputs(network, x), x, 18)
    groups = make_groups(network, 4)
    half, everywhere = np.arange(6).reshape(2, 3), np.ones(3, bool)
    groups[1] = [Group("kept", half[0], None, everywhere),
                 Group("affine", half[1], make_form("affine", 3, np.random.default_rng(0)), everywhere)]
    assert_computes(rewrite(network, groups), expected_outputs(network, x, groups), x, 18)


def test_uint8_features() -> None:
    network = make_network((4,), [ActivationSpec("meta", "tanh", 3, 1)], in_features=16, shift=33.3, scale=78.6)
    x = np.random.default_rng(0).integers(0, 256, (9, 16), np.uint8)
    assert_computes(network, expected_outputs(network, x), x, 18)


@pytest.mark.parametrize("opset", [17, 0, -1, onnx.defs.onnx_opset_version() + 1])
def test_opset_out_of_range_is_one_line(tmp_path: Path, opset: int) -> None:
    network = make_network((2,), [ActivationSpec("fixed", "relu")])
    with pytest.raises(ExportError, match=rf"^opset {opset} cannot be written; choose one of 18 to \d+$"):
        write_onnx(network, tmp_path / "model.onnx", opset_version=opset, inline=False, metadata={})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(newest_opset() == onnx.defs.onnx_opset_version(), reason="this ONNX Runtime is as new as this onnx")
def test_opset_that_onnx_runtime_lacks_is_one_line(tmp_path: Path) -> None:
    network, path = make_network((2,), [ActivationSpec("fixed", "relu")]), tmp_path / "model.onnx"
    write_onnx(network, path, opset_version=newest_opset() + 1, inline=False, metadata={})
    assert_refused(path, network, raw_features(network, 3), "cannot open .*model.onnx as an ONNX model: .*update onnxruntime$")


def test_checker_refusal_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise onnx.checker.ValidationError("node misses a thing\nand much more")

    monkeypatch.setattr(onnx.checker, "check_model", refuse)
    with pytest.raises(ExportError, match=r"^model.onnx would not be valid ONNX: node misses a thing; try another opset$"):
        write_onnx(make_network((), []), tmp_path / "model.onnx", opset_version=18, inline=True, metadata={})
    assert list(tmp_path.iterdir()) == []


# Standardization


def operators(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


def test_standardization_is_folded() -> None:
    network = make_network((), [], task="regression", shift=[3.0, -40.0, 63.0], scale=1.0)
    assert operators(make_model(network, opset_version=18, metadata={})) == ["Gemm"]
    network = make_network((4,), [ActivationSpec("fixed", "tanh")], task="regression", shift=[3.0, -40.0, 63.0], scale=1.0)
    assert operators(make_model(network, opset_version=18, metadata={})) == ["Gemm", "Tanh", "Gemm"]


def test_targets_behind_an_output_activation_are_scaled_explicitly() -> None:
    network = make_network((), [ActivationSpec("fixed", "tanh")], task="regression", output_activation=True)
    assert operators(make_model(network, opset_version=18, metadata={})) == ["Gemm", "Tanh", "Mul", "Add"]


def test_large_offset_is_subtracted_since_folding_would_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    network = make_network((4,), [ActivationSpec("fixed", "tanh")], shift=[1e6, 0.0, 0.0], scale=1.0)
    x = raw_features(network, 200)
    expected = expected_outputs(network, x)
    model = make_model(network, opset_version=18, metadata={})
    assert operators(model) == ["Sub", "Gemm", "Tanh", "Gemm"]
    np.testing.assert_allclose(run_model(model, x), expected, rtol=0, atol=FLOAT32 * np.abs(expected).max())
    monkeypatch.setattr("mncompress.nn._network.LARGEST_FOLDED_OFFSET", np.inf)
    folded = make_model(network, opset_version=18, metadata={})
    assert operators(folded)[0] == "Gemm"
    assert np.abs(run_model(folded, x) - expected).max() > 1e-2


# Names, metadata, stability


@pytest.mark.parametrize(("task", "output"), [("classification", "logits"), ("regression", "output")])
def test_interface_and_metadata(tmp_path: Path, task: str, output: str) -> None:
    network = make_network((3, 3), [ActivationSpec("meta", "tanh", 2, 1)] * 2, task=task)
    path = tmp_path / "model.onnx"
    write_onnx(network, path, opset_version=18, inline=False, metadata=METADATA)
    model = onnx.load(path)
    (given_name,), (returned,) = model.graph.input, model.graph.output
    assert (given_name.name, returned.name) == ("input", output)
    for value, width in ((given_name, 3), (returned, 2)):
        batch, columns = value.type.tensor_type.shape.dim
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
        assert batch.dim_param == "batch"
        assert columns.dim_value == width
    assert model.ir_version <= 10
    assert {entry.key: entry.value for entry in model.metadata_props} == METADATA
    info = runtime.model_info(runtime.make_session(path))
    assert (info.is_regression, info.metadata) == (task == "regression", METADATA)


def test_names_are_stable_and_two_exports_are_the_same_bytes() -> None:
    def export() -> onnx.ModelProto:
        network = make_network((5, 5), [ActivationSpec("meta", "silu", 3, 2), ActivationSpec("vaf", "tanh", 3, 1)], residual=True)
        return make_model(rewrite(network, make_groups(network, 1)), opset_version=18, metadata=METADATA)

    first, second = export(), export()
    assert first.SerializeToString() == second.SerializeToString()
    assert inline_functions(first).SerializeToString() == inline_functions(second).SerializeToString()
    names = [node.name for node in first.graph.node]
    assert "" not in names
    assert len(set(names)) == len(names)
    assert {name.partition("/")[0] for name in names} <= {"layer0", "layer1", "layer2"}


def test_domain_only_where_it_is_used_and_never_in_portable() -> None:
    network = make_network((4,), [ActivationSpec("meta", "tanh", 3, 1)])
    for key, op_type in (("cubic_spline", "CubicSpline"), ("piecewise_linear", "PiecewiseLinear")):
        form = make_form(key, 4, np.random.default_rng(0))
        model = make_model(rewrite(network, [[Group(key, np.arange(4), form, np.ones(4, bool))]]), opset_version=18, metadata={})
        assert [node.op_type for node in model.graph.node] == ["FeedForward"]
        assert {function.name for function in model.functions} == {op_type, f"Gemm{op_type}", "FeedForward"}
        assert {opset.domain: opset.version for opset in model.opset_import} == {**STANDARD, DOMAIN: 1}
        portable = inline_functions(model)
        assert {node.domain for node in portable.graph.node} == {""}
        assert (len(portable.functions), {opset.domain: opset.version for opset in portable.opset_import}) == (0, STANDARD)
    original = make_model(network, opset_version=18, metadata={})
    assert {opset.domain: opset.version for opset in original.opset_import} == STANDARD
    assert len(original.functions) == 0


def test_residual_network_is_one_node() -> None:
    sizes = (5, 5, 4, 4)
    network = make_network(sizes, [ActivationSpec("vaf", "tanh", 3, 1)] * 4, residual=True)
    groups = [[Group("cubic_spline", np.arange(n), make_form("cubic_spline", n, np.random.default_rng(n)), np.ones(n, bool))]
              for n in sizes]
    model = make_model(rewrite(network, groups), opset_version=18, metadata={})
    (node,) = model.graph.node
    assert (node.op_type, [list(attribute.ints) for attribute in node.attribute]) == ("FeedForward", [[1, 3]])
    x = raw_features(network, 50)
    expected = expected_outputs(network, x, groups)
    for session in (runtime.make_session(model.SerializeToString(), kernels=kernels) for kernels in (True, False)):
        np.testing.assert_allclose(session.run(None, {"input": x})[0], expected, atol=FLOAT32 * np.abs(expected).max())


# Checking a written file


@pytest.fixture
def checked(tmp_path: Path) -> tuple[Path, Network, Any]:
    """A file, its network and rows to compare them on."""
    network = make_network((4, 3), [ActivationSpec("vaf", "tanh", 3, 1), ActivationSpec("fixed", "silu")])
    path = tmp_path / "model.onnx"
    write_onnx(network, path, opset_version=18, inline=False, metadata={})
    return path, network, raw_features(network, 600)


def assert_refused(path: Path, network: Network, x: Any, message: str) -> None:
    with pytest.raises(MncompressError, match=message) as caught:
        check_export(path, network, x)
    assert "\n" not in str(caught.value)
    assert not path.exists()


def change_initializer(path: Path, name: str, change: Callable[[Any], Any]) -> None:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if tensor.name == name:
            tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))
    onnx.save(model, path)


def test_check_accepts_what_was_written(checked: tuple[Path, Network, Any]) -> None:
    path, network, x = checked
    found = check_export(path, network, x)
    assert path.is_file()
    assert (found.samples, found.reference_samples, found.nodes) == (600, 512, len(onnx.load(path).graph.node))
    assert 0 < found.max_abs_error <= found.tolerance < 1e-4


def test_check_sees_every_weight(checked: tuple[Path, Network, Any]) -> None:
    """A thousandth more in any one initializer is too much."""
    path, network, x = checked
    content = path.read_bytes()
    names = [tensor.name for tensor in onnx.load(path).graph.initializer if tensor.data_type == onnx.TensorProto.FLOAT]
    assert len(names) == 6
    for name in names:
        path.write_bytes(content)
        change_initializer(path, name, lambda values: values * np.float32(1.001))
        assert_refused(path, network, x, r"model.onnx does not compute what the network computes: outputs differ by .* allowed")


def test_check_refuses_nan(checked: tuple[Path, Network, Any]) -> None:
    path, network, x = checked
    change_initializer(path, "layer1/linear/bias", lambda values: np.where(np.arange(len(values)) == 1, np.nan, values))
    assert_refused(path, network, x, "outputs differ by nan in ONNX Runtime")


@pytest.mark.parametrize("task", ["classification", "regression"])
@pytest.mark.parametrize("other", [{}, {"out_features": 3}, {"in_features": 4}], ids=["weights", "outputs", "inputs"])
def test_check_refuses_the_file_of_another_network(tmp_path: Path, other: dict[str, int], task: str) -> None:
    path = tmp_path / "model.onnx"
    write_onnx(make_network((), [], task=task, seed=1, **other), path, opset_version=18, inline=False, metadata={})
    network = make_network((), [], task=task)
    message = "the data has 3 features, the model takes 4" if "in_features" in other else "model.onnx does not compute"
    assert_refused(path, network, raw_features(network, 5), message)


def test_check_refuses_a_network_whose_outputs_are_not_finite(tmp_path: Path) -> None:
    """Finite in float64, infinite in float32: any finite output would otherwise do."""
    network = make_network((2,), [ActivationSpec("fixed", "relu")])
    network.layers[0].linear.weight.fill_(1e30)
    path = tmp_path / "model.onnx"
    write_onnx(network, path, opset_version=18, inline=False, metadata={})
    assert_refused(path, network, np.full((5, 3), 1e30, np.float32), "cannot be checked: the network's outputs are not finite")


def test_check_is_not_blinded_by_targets_in_large_units(tmp_path: Path) -> None:
    """An offset of 10 000 standard deviations, and a neighbor a million times as large."""
    network = make_network((), [], task="regression")
    network.targets = Standardize(np.array([1e4, 0.0]), np.array([1.0, 1e6]))
    path, x = tmp_path / "model.onnx", raw_features(network, 50)
    write_onnx(network, path, opset_version=18, inline=False, metadata={})
    assert check_export(path, network, x).tolerance < 0.02
    change_initializer(path, "layer0/linear/bias", lambda values: values + np.float32([0.05, 0]))
    assert_refused(path, network, x, "model.onnx does not compute what the network computes")


def test_check_of_one_row(tmp_path: Path) -> None:
    """One row may lie at the targets' mean and happen to be free of rounding in torch."""
    for seed in range(20):
        network = make_network((3,), [ActivationSpec("fixed", "tanh")], task="regression", in_features=64, seed=seed)
        x = raw_features(network, 1, seed)
        last = network.layers[-1].linear
        last.bias -= network.body(network.features(torch.as_tensor(x)))[0]
        path = tmp_path / f"{seed}.onnx"
        write_onnx(network, path, opset_version=18, inline=False, metadata={})
        assert check_export(path, network, x).samples == 1


def test_all_acts_are_covered() -> None:
    assert set(NUMPY_ACTS) == set(get_args(Act))
