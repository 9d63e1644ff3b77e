"""Emitting learned activations as they were trained, each neuron with its inner network, in the form that runs fastest.

Inner network of one neuron: h₁ = act(w₁·a + b₁), hₗ = act(Wₗ·hₗ₋₁ + bₗ) + hₗ₋₁, y = w·h_L + b. `vaf` is that with a = u;
`meta` has the ends of `InnerNetworks`, a = e(u) and e'(y). These forms compute the same; docs/forms.md has their times:

- `elementwise`: (batch, H, n), multiplied and summed over H. One inner layer only.
- `block_gemm`: (batch, n·H), matrix products with block-diagonal matrices.
- `grouped_conv`: (1, n·H, batch), 1×1 convolutions with a group per neuron; the value is feature first.
- `shared_conv`: (1, H, batch·n), ordinary 1×1 convolutions, for neurons that share one inner network.

In `block_gemm` an infinity or NaN in one neuron reaches the others of the layer, as it would in the next linear layer.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import numpy as np

from mncompress.analysis import InnerNetworks
from mncompress.export._activations import emit_act, emit_end, to_layout
from mncompress.export._graph import Array, GraphBuilder, Layout, Value

Form = Literal["elementwise", "block_gemm", "grouped_conv", "shared_conv"]
LARGEST_BLOCKS = 20_480
LARGEST_DEEP_BLOCKS = 10_000
"""Multiply-adds of the largest block-diagonal product, most of them by zero, up to which `block_gemm` is fastest: with one
inner layer, where `merge_linears` may save some of them, and with more."""
EmitLinear = Callable[[str, Array, Array, str], str]
"""Adds weight·x + bias per neuron: x, weight (n, to, from), bias (n, to), name -> the new value."""


def choose_form(neurons: int, width: int, depth: int, *, shared: bool = False, large_batch: bool = False) -> Form:
    """The form that is fastest, or close to it, for these sizes in ONNX Runtime on one CPU thread.

    A file serves every batch size, so the rule goes by the geometric mean of the times of batches of 1, 32 and 1024
    (docs/forms.md). tanh and relu order the forms alike but for near ties, so the activation does not enter it. With
    `large_batch` only batches of some dozens and more count.
    """
    if shared:
        return "shared_conv"
    if large_batch:
        return "grouped_conv"
    if depth == 1:
        return "block_gemm" if neurons**2 * width <= LARGEST_BLOCKS else "elementwise"
    return "block_gemm" if (neurons * width) ** 2 <= LARGEST_DEEP_BLOCKS else "grouped_conv"


def form_layout(form: Form) -> Layout:
    """The layout in which `form` takes and gives a value; the Gemm before and behind have either for free."""
    return "feature_first" if form == "grouped_conv" else "batch_first"


def emit_meta(builder: GraphBuilder, value: Value, inner: InnerNetworks, form: Form, name: str) -> Value:
    """e'(inner(e(u))); for the arguments and the result see `emit_vaf`."""
    first, last = inner.ends
    value = emit_end(builder, to_layout(builder, value, form_layout(form)), inner.act, first.scale, first.skip, f"{name}/in_end")
    return emit_end(builder, emit_vaf(builder, value, inner, form, name), inner.act, last.scale, last.skip, f"{name}/out_end")


def emit_vaf(builder: GraphBuilder, value: Value, inner: InnerNetworks, form: Form, name: str) -> Value:
    """inner(u), see the module.

    Args:
        builder: collects the nodes.
        value: u, of `inner.n` neurons, best in `form_layout(form)`.
        inner: the activations.
        form: from `choose_form`.
        name: of the result, and before the names of nodes and parameters.

    Returns:
        The activations, in `form_layout(form)`.
    """
    value = to_layout(builder, value, form_layout(form))
    if form == "shared_conv":       # all neurons have the first one's
        inner = inner.select(np.zeros(1, np.intp))
    return replace(value, name=_FORMS[form](builder, value.name, inner, name))


def _emit_layers(builder: GraphBuilder, x: str, inner: InnerNetworks, linear: EmitLinear, name: str) -> str:
    """The inner network, given how a form does its linear layers."""
    hidden = linear(x, inner.first_weight[:, :, None], inner.biases[0], f"{name}/inner0")
    hidden = emit_act(builder, Value(hidden), inner.act).name
    for layer, (weight, bias) in enumerate(zip(inner.weights, inner.biases[1:], strict=True), 1):
        step = linear(hidden, weight, bias, f"{name}/inner{layer}")
        step = emit_act(builder, Value(step), inner.act).name
        hidden = builder.node("Add", [step, hidden], f"{name}/inner{layer}/residual")
    return linear(hidden, inner.out_weight[:, None], inner.out_bias[:, None], f"{name}/out")


def _elementwise(builder: GraphBuilder, x: str, inner: InnerNetworks, name: str) -> str:
    assert not inner.weights, "the elementwise form has one inner layer"

    def parameter(key: str, array: Array) -> str:
        return builder.initializer(f"{name}/{key}", array)

    axis = builder.constant([1], np.int64)
    column = builder.node("Unsqueeze", [x, axis], f"{name}/column")
    scaled = builder.node("Mul", [column, parameter("inner0/weight", inner.first_weight.T)], f"{name}/inner0/scaled")
    hidden = builder.node("Add", [scaled, parameter("inner0/bias", inner.biases[0].T)], f"{name}/inner0")
    hidden = emit_act(builder, Value(hidden), inner.act).name
    terms = builder.node("Mul", [hidden, parameter("out/weight", inner.out_weight.T)], f"{name}/out/terms")
    total = builder.node("ReduceSum", [terms, axis], f"{name}/out/sum", keepdims=0)
    return builder.node("Add", [total, parameter("out/bias", inner.out_bias)], f"{name}/out")


def _block_gemm(builder: GraphBuilder, x: str, inner: InnerNetworks, name: str) -> str:
    def linear(value: str, weight: Array, bias: Array, label: str) -> str:
        matrix = builder.initializer(f"{label}/weight", _block_diagonal(weight))
        vector = builder.initializer(f"{label}/bias", bias.reshape(-1))
        return builder.node("Gemm", [value, matrix, vector], label, transB=1)

    return _emit_layers(builder, x, inner, linear, name)


def _grouped_conv(builder: GraphBuilder, x: str, inner: InnerNetworks, name: str) -> str:
    axis = builder.constant([0], np.int64)
    channels = builder.node("Unsqueeze", [x, axis], f"{name}/channels")
    y = _emit_layers(builder, channels, inner, _convolution(builder), name)
    return builder.node("Squeeze", [y, axis], f"{name}/squeezed")


def _shared_conv(builder: GraphBuilder, x: str, inner: InnerNetworks, name: str) -> str:
    line = builder.node("Reshape", [x, builder.constant([1, 1, -1], np.int64)], f"{name}/line")
    y = _emit_layers(builder, line, inner, _convolution(builder), name)
    shape = builder.node("Shape", [x], f"{name}/shape")
    return builder.node("Reshape", [y, shape], f"{name}/reshaped")


def _convolution(builder: GraphBuilder) -> EmitLinear:
    """Linear layers as 1×1 convolutions: one group per inner network, channels in the order [neuron][unit]."""

    def linear(value: str, weight: Array, bias: Array, label: str) -> str:
        groups, to, origin = weight.shape
        kernel = builder.initializer(f"{label}/weight", weight.reshape(groups * to, origin, 1))
        vector = builder.initializer(f"{label}/bias", bias.reshape(-1))
        return builder.node("Conv", [value, kernel, vector], label, group=groups)

    return linear


_FORMS = {
    "elementwise": _elementwise,
    "block_gemm": _block_gemm,
    "grouped_conv": _grouped_conv,
    "shared_conv": _shared_conv,
}


def _block_diagonal(weight: Array) -> Array:
    """(n·to, n·from) from (n, to, from)."""
    neurons, to, origin = weight.shape
    matrix = np.zeros((neurons, to, neurons, origin), weight.dtype)
    matrix[np.arange(neurons), :, np.arange(neurons)] = weight
    return matrix.reshape(neurons * to, neurons * origin)
