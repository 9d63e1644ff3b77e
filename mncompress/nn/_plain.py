"""Cubic splines and piecewise-linear functions in plain torch: any dtype and device, differentiable any number of times."""

import torch
from torch import Tensor


def cubic_spline(u: Tensor, start: Tensor, inverse_step: Tensor, coefficients: Tensor) -> Tensor:
    """The values at u (..., n) of splines with `start`, `inverse_step` (n,) and `coefficients` (n, K, 4)."""
    n, intervals, _ = coefficients.shape
    s = (u - start) * inverse_step
    interval = s.detach().nan_to_num(0.0).clamp(0, intervals).floor()
    t = s - interval
    inside = t.clamp(0, 1)      # leaves the line of the first interval below, and keeps an infinity away from zeros above
    row = interval.long() + torch.arange(n, device=u.device) * (intervals + 1)
    # A column at a time is two to four times faster than rows of four, forward and backward.
    c = [column.flatten().index_select(0, row.flatten()).view(row.shape) for column in _columns(coefficients)]
    return c[0] + t * (c[1] + inside * (c[2] + inside * c[3]))


def piecewise_linear(u: Tensor, knots: Tensor, slope_changes: Tensor, slope: Tensor, intercept: Tensor) -> Tensor:
    """The values at u (..., n) of functions with `knots`, `slope_changes` (n, K), `slope` and `intercept` (n,)."""
    y = intercept + slope * u
    for knot, change in zip(knots.unbind(-1), slope_changes.unbind(-1), strict=True):
        y = y + change * (u - knot).relu()
    return y


def _columns(coefficients: Tensor) -> list[Tensor]:
    """The coefficients by power, each (n, K + 1), with the linear continuation above as row K."""
    last = coefficients[:, -1]
    zero = torch.zeros_like(last[:, 0])
    above = last.sum(-1), last[:, 1] + 2 * last[:, 2] + 3 * last[:, 3], zero, zero
    return [torch.cat([coefficients[..., p], above[p].unsqueeze(-1)], 1) for p in range(4)]
