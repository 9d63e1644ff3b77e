"""Rewriting a network of any modules: activations by their replacements, what is linear into the neighbors where they can take it.

A replacement is f(u) = alpha g(a u + b) + eta with g the core that is left. Where the activation alone reads a linear module, its
*producer*, a and b go into the producer's rows; else they stay in front as a `Scale`. Where a single linear module reads the
activation, its *consumer*, alpha goes into the consumer's columns and eta into its bias; but a consumer that pads with zeros
takes no eta, which would not be in the padding, and then both stay. Channels of one form lie together: producer and consumer are
permuted, or a `Select` does it. Constants leave the network where both neighbors can do without them. All in float64, rounded
once.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress import spline
from mncompress.analysis import InnerNetworks, LayerOptions
from mncompress.calibration import LayerCalibration
from mncompress.compression import Group
from mncompress.modules._functions import as_learned
from mncompress.modules._registry import AlongAxis
from mncompress.nn import CubicSpline, Grouped, LinearTable, PiecewiseLinear, Polynomial, Scale
from mncompress.spline import Affine
from mncompress.types import Act

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

ACT_MODULES: Mapping[Act, type[nn.Module]] = {
    "relu": nn.ReLU, "leaky_relu": nn.LeakyReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "silu": nn.SiLU, "gelu": nn.GELU,
    "softplus": nn.Softplus, "elu": nn.ELU}


class Select(nn.Module):
    """Position j of the last axis takes what was at `order[j]`."""

    order: Tensor

    def __init__(self, order: Indices) -> None:
        super().__init__()
        self.register_buffer("order", torch.from_numpy(order.astype(np.int64)))

    def forward(self, u: Tensor) -> Tensor:
        """`(..., n)` to `(..., len(order))`."""
        return u.index_select(-1, self.order)


@dataclass(frozen=True)
class Site:
    """An activation that can be replaced.

    Attributes:
        name: of the module.
        module: as it was.
        axis: its channel axis, counted from the front.
        rank: axes of its input.
        producer: the linear module before it, by name, or None.
        consumer: the linear module behind it, likewise.
        can_leave: whether both can do without channels that have become constant.
        options: what its channels could become.
        calibration: what it is given.
    """

    name: str
    module: nn.Module
    axis: int
    rank: int
    producer: str | None
    consumer: str | None
    can_leave: bool
    options: LayerOptions
    calibration: LayerCalibration


class _Weights:
    """A linear module in float64 while it is being rewritten."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        weight: Tensor = module.weight  # type: ignore[assignment]
        self.dtype = weight.dtype
        self.weight: Floats = weight.detach().double().numpy().copy()
        bias = module.bias
        self.bias: Floats = bias.detach().double().numpy().copy() if isinstance(bias, Tensor) else np.zeros(len(self.weight))

    @property
    def grouped(self) -> bool:
        return getattr(self.module, "groups", 1) != 1

    def scale_rows_(self, scale: Floats, shift: Floats) -> None:
        self.weight *= _column(scale, self.weight.ndim)
        self.bias = self.bias * scale + shift

    def absorb_shift_(self, columns: Indices, shift: Floats) -> None:
        """Let the inputs `columns` come without their shift."""
        self.bias = self.bias + self.weight.sum(tuple(range(2, self.weight.ndim)))[:, columns] @ shift

    def store_(self) -> None:
        """Write back into the module."""
        module, (rows, columns) = self.module, self.weight.shape[:2]
        module.weight = nn.Parameter(torch.from_numpy(self.weight).to(self.dtype), requires_grad=False)
        if isinstance(module.bias, Tensor) or self.bias.any():
            module.bias = nn.Parameter(torch.from_numpy(self.bias).to(self.dtype), requires_grad=False)
        if isinstance(module, nn.Linear):
            module.out_features, module.in_features = rows, columns
        else:
            module.out_channels, module.in_channels = rows, columns * module.groups


def pads_with_zeros(module: Any) -> bool:
    """Whether a constant input of a linear module does not reach all its outputs alike."""
    padding = getattr(module, "padding", 0)
    pads = padding != "valid" if isinstance(padding, str) else bool(np.any(padding))
    return pads and module.padding_mode == "zeros"


def can_lose_channels(producer: nn.Module, consumer: nn.Module) -> bool:
    """Whether constant channels between two linear modules can leave the network."""
    return getattr(producer, "groups", 1) == 1 and not pads_with_zeros(consumer)


def rewrite(network: nn.Module, sites: Sequence[Site], groups: Sequence[Sequence[Group]]) -> nn.Module:
    """A copy of the network with its activations replaced.

    Args:
        network: in eval mode, its normalizations folded.
        sites: the activations.
        groups: for each a partition of its channels.
    """
    result = copy.deepcopy(network)
    neighbors = {name for site in sites for name in (site.producer, site.consumer) if name}
    weights = {name: _Weights(result.get_submodule(name)) for name in neighbors}
    for site, parts in zip(sites, groups, strict=True):
        if all(group.form is None for group in parts):
            continue
        form = _rewrite_site_(weights.get(site.producer or ""), weights.get(site.consumer or ""), site, parts)
        replace_module_(result, site.name, form)
    for changed in weights.values():
        changed.store_()
    return result.eval().requires_grad_(False)


def replace_module_(network: nn.Module, name: str, new: nn.Module) -> None:
    """Put a module into another's place, under all names that it has."""
    old = network.get_submodule(name)
    for path in [path for path, module in network.named_modules(remove_duplicate=False) if module is old]:
        network.set_submodule(path, new)


def _rewrite_site_(producer: _Weights | None, consumer: _Weights | None, site: Site, groups: Sequence[Group]) -> nn.Module:
    """Fold one activation's groups into its neighbors; returns the module that is left."""
    if producer is not None and consumer is not None and can_lose_channels(producer.module, consumer.module):
        groups = _remove_constants_(consumer, groups)
    order = np.concatenate([group.indices for group in groups])
    cores, *affine = zip(*(_split(group, site.module, producer is not None) for group in groups), strict=True)
    scale, shift, out_scale, out_shift = (np.concatenate(parts) for parts in affine)
    before: list[nn.Module] = []
    if producer is not None and not producer.grouped:
        producer.weight, producer.bias = producer.weight[order], producer.bias[order]
    elif not np.array_equal(order, np.arange(site.options.n)):
        before.append(Select(order))
    if producer is not None:
        rows = np.arange(len(order)) if not producer.grouped else np.argsort(order)
        producer.scale_rows_(scale[rows], shift[rows])
    else:
        before += _make_scale(scale, shift)
    after = _fold_forward_(consumer, order, out_scale, out_shift)
    core = cores[0] if len(cores) == 1 else Grouped([len(group.indices) for group in groups], cores)
    return _join([*before, core, *after], site)


def _fold_forward_(consumer: _Weights | None, order: Indices, scale: Floats, shift: Floats) -> list[nn.Module]:
    """Fold the outer affine map and the order into the consumer; returns the modules that must do what it cannot."""
    restore = [] if np.array_equal(order, np.arange(len(order))) else [Select(np.argsort(order))]
    if consumer is None:
        return [*_make_scale(scale, shift), *restore]
    stays = shift != 0 if pads_with_zeros(consumer.module) else np.zeros(len(order), bool)
    consumer.absorb_shift_(order, np.where(stays, 0.0, shift))
    consumer.weight = consumer.weight[:, order] * _column(np.where(stays, 1.0, scale), consumer.weight.ndim - 1)
    return _make_scale(np.where(stays, scale, 1.0), np.where(stays, shift, 0.0))


def _remove_constants_(consumer: _Weights, groups: Sequence[Group]) -> Sequence[Group]:
    """Move constants into the consumer's bias; one channel always stays."""
    constants = [group for group in groups if group.key == "constant"]
    kept = [group for group in groups if group.key != "constant"]
    for group in constants:
        assert isinstance(group.form, Affine)
        first = 0 if kept else 1
        consumer.absorb_shift_(group.indices[first:], group.form.intercept[first:])
        if first:
            kept = [Group("constant", group.indices[:1], group.form.select(np.arange(1)), group.exact[:1])]
    return kept


def _split(group: Group, module: nn.Module, foldable: bool) -> tuple[nn.Module, Floats, Floats, Floats, Floats]:
    """Core, a, b, alpha and eta of a group's form; lines lie on the producer's side where there is one."""
    form, count = group.form, len(group.indices)
    one, zero = np.ones(count), np.zeros(count)
    if form is None:
        learned = as_learned(module)
        assert learned is not None, "only inner networks can be kept in part"
        return learned.select(group.indices.tolist()), one, zero, one, zero
    if isinstance(form, Affine):
        line = form.slope, form.intercept
        return (nn.Identity(), *line, one, zero) if foldable else (nn.Identity(), one, zero, *line)
    if isinstance(form, spline.Native):
        return ACT_MODULES[form.act](), form.beta, form.delta, form.alpha, form.eta
    if isinstance(form, spline.PiecewiseLinear):
        return PiecewiseLinear(form), one, zero, one, zero
    if isinstance(form, spline.Polynomial):
        if not foldable:
            return Polynomial(form), one, zero, one, zero
        core = Polynomial(spline.Polynomial(zero, one, form.coefficients))
        return core, form.inverse_half_width, -form.center * form.inverse_half_width, one, zero
    assert not isinstance(form, InnerNetworks)
    table = group.key.endswith(":linear")
    if not foldable and not table:
        return CubicSpline(form), one, zero, one, zero
    in_intervals = spline.CubicSpline(zero, one, form.coefficients)
    spline_module = (LinearTable if table else CubicSpline)(in_intervals)
    return spline_module, form.inverse_step, -form.start * form.inverse_step, one, zero


def _make_scale(scale: Floats, shift: Floats) -> list[nn.Module]:
    return [Scale(scale, shift)] if np.any(scale != 1) or np.any(shift != 0) else []


def _join(parts: list[nn.Module], site: Site) -> nn.Module:
    """One module from those that are left; along the channel axis where their result depends on it."""
    parts = [part for part in parts if not isinstance(part, nn.Identity)]
    if not parts:
        return nn.Identity()
    whole = parts[0] if len(parts) == 1 else nn.Sequential(*parts)
    plain = isinstance(whole, tuple(ACT_MODULES.values())) or site.axis == site.rank - 1
    return whole if plain else AlongAxis(whole, site.axis)


def _column(values: Floats, ndim: int) -> Floats:
    return values.reshape(-1, *[1] * (ndim - 1))
