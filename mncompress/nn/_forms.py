"""What learned activations become: torch modules on `(..., n)`, built from the value types of `mncompress.spline`.

They hold float32 parameters, as the ONNX file does. The definitions are those of the `ai.mncompress` operators.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from mncompress import spline
from mncompress.nn import _operators, _plain


def _parameter(values: NDArray[np.float64]) -> nn.Parameter:
    return nn.Parameter(torch.as_tensor(np.asarray(values, np.float32)))


class CubicSpline(nn.Module):
    """`start`, `inverse_step` (n,), `coefficients` (n, K, 4): see `mncompress.spline` for the convention."""

    def __init__(self, form: spline.CubicSpline) -> None:
        super().__init__()
        self.start = _parameter(form.start)
        self.inverse_step = _parameter(form.inverse_step)
        self.coefficients = _parameter(form.coefficients)

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate at pre-activations `(..., n)`; NaN gives NaN."""
        parameters = self.start, self.inverse_step, self.coefficients
        return _operators.cubic_spline(u, *parameters) if _operators.can_run(u, *parameters) else self.forward_plain(u)

    def forward_plain(self, u: Tensor) -> Tensor:
        """The same, (..., n) to (..., n), in plain torch, for any dtype and device."""
        return _plain.cubic_spline(u, self.start, self.inverse_step, self.coefficients)


class LinearTable(nn.Module):
    """y = intercept[n, k] + slope[n, k] s in interval k = floor(s), the first or last one outside of [0, K].

    `intercept`, `slope` (n, K). s is the pre-activation in units of intervals from the first knot: the layer before takes in
    `start` and `inverse_step`. Standard operators look this up in half the time of a table of cubics.
    """

    def __init__(self, form: spline.CubicSpline) -> None:
        super().__init__()
        value, slope = form.coefficients[..., 0], form.coefficients[..., 1]
        self.intercept = _parameter(value - slope * np.arange(form.intervals))
        self.slope = _parameter(slope)

    def forward(self, s: Tensor) -> Tensor:
        """Evaluate at `(..., n)`; NaN gives NaN."""
        interval = s.detach().nan_to_num(0.0).clamp(0, self.slope.shape[1] - 1).long()
        neuron = torch.arange(len(self.slope), device=s.device)
        return self.intercept[neuron, interval] + self.slope[neuron, interval] * s


class PiecewiseLinear(nn.Module):
    """`knots`, `slope_changes` (n, K), `slope`, `intercept` (n,): intercept + slope u + sum of changes max(u - knot, 0)."""

    def __init__(self, form: spline.PiecewiseLinear) -> None:
        super().__init__()
        self.knots = _parameter(form.knots)
        self.slope_changes = _parameter(form.slope_changes)
        self.slope = _parameter(form.slope)
        self.intercept = _parameter(form.intercept)

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate at pre-activations `(..., n)`."""
        parameters = self.knots, self.slope_changes, self.slope, self.intercept
        return _operators.piecewise_linear(u, *parameters) if _operators.can_run(u, *parameters) else self.forward_plain(u)

    def forward_plain(self, u: Tensor) -> Tensor:
        """The same, (..., n) to (..., n), in plain torch, for any dtype and device."""
        return _plain.piecewise_linear(u, self.knots, self.slope_changes, self.slope, self.intercept)


class Polynomial(nn.Module):
    """`center`, `inverse_half_width` (n,), `coefficients` (n, D + 1); linear continuation outside the domain."""

    def __init__(self, form: spline.Polynomial) -> None:
        super().__init__()
        self.center = _parameter(form.center)
        self.inverse_half_width = _parameter(form.inverse_half_width)
        self.coefficients = _parameter(form.coefficients)

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate at pre-activations `(..., n)`."""
        x = (u - self.center) * self.inverse_half_width
        inside = x.clamp(-1, 1)
        y = torch.zeros_like(x)
        for column in self.coefficients.flip(-1).unbind(-1):
            y = y * inside + column
        powers = torch.arange(self.coefficients.shape[1], device=u.device, dtype=u.dtype)
        at_high = (self.coefficients * powers).sum(-1)
        at_low = (self.coefficients * powers * (-1) ** (powers + 1)).sum(-1)
        return y + (x - inside) * ((at_high + at_low) / 2 + (at_high - at_low) / 2 * inside)


class Scale(nn.Module):
    """scale u + shift per neuron, where neighboring weights cannot take it: before a residual sum or at an output."""

    def __init__(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> None:
        super().__init__()
        self.scale = _parameter(scale)
        self.shift = _parameter(shift)

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate at `(..., n)`."""
        return self.scale * u + self.shift


class Grouped(nn.Module):
    """Different forms for consecutive groups of neurons.

    Args:
        sizes: neurons of each group, in order.
        forms: one module per group; `nn.Identity` for affine neurons, which the weights have taken in.
        order: output position j takes the concatenated groups' column `order[j]`; None for unchanged.
    """

    def __init__(self, sizes: Sequence[int], forms: Sequence[nn.Module], order: Sequence[int] | None = None) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        self.forms = nn.ModuleList(forms)
        self.order = None if order is None else tuple(order)

    def forward(self, u: Tensor) -> Tensor:
        """Evaluate at pre-activations `(..., n)` in group order."""
        pieces = [form(part) for form, part in zip(self.forms, u.split(self.sizes, -1), strict=True)]
        y = torch.cat(pieces, -1)
        return y if self.order is None else y[..., list(self.order)]
