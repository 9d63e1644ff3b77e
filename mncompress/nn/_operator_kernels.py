"""Triton kernels of the compressed forms, for `_operators`: cubic splines and piecewise-linear functions, one per neuron.

u, y and their gradients are (rows, neurons), parameters as in `_forms`; all is contiguous float32. Program (i, j) has ROWS rows
from i ROWS on of NEURONS neurons from j NEURONS on.

Backward kernels write gradients by parameters, summed over the program's rows, to row i of `partials` (blocks, floats), where
they follow each other in the order of the parameters; to sum over the blocks is left to the caller. The gradient by
`coefficients` would be too large for that: programs add to it, and the order in which they do varies.

With s = (u - start) inverse_step, piece = floor(clip(s, 0, K)), t = s - piece and x = clip(t, 0, 1), a cubic spline is
c0 + t (c1 + x (c2 + x c3)). In piece K, above, c is (c0 + c1 + c2 + c3, c1 + 2 c2 + 3 c3, 0, 0) of the last interval; below,
x = 0 leaves the line of the first. NaN stays NaN, and no input is an index out of range.

Importing this needs triton. Its interpreter (TRITON_INTERPRET=1) runs all of it on the CPU.
"""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _tile(rows, neurons, ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """A program's neurons (NEURONS,) with mask, and its offsets into u (ROWS, NEURONS) with mask."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    neuron = tl.program_id(1) * NEURONS + tl.arange(0, NEURONS)
    own = neuron < neurons
    return neuron, own, row[:, None] * neurons + neuron[None, :], (row < rows)[:, None] & own[None, :]


@triton.jit
def _locate(s, intervals):
    """Whether s is above, its interval, t, and t clipped to [0, 1]."""
    low = tl.where(s > 0.0, s, 0.0)   # 0 for NaN
    piece = tl.where(low < intervals, low, intervals * 1.0).to(tl.int32)
    t = s - piece
    x = tl.where(t < 0.0, 0.0, tl.where(t > 1.0, 1.0, t))
    return piece >= intervals, tl.minimum(piece, intervals - 1), t, x


@triton.jit
def _load_coefficients(rows, inside, above):
    """The coefficients at pointers to the first, or those of the continuation."""
    c0, c1 = tl.load(rows, inside, 0.0), tl.load(rows + 1, inside, 0.0)
    c2, c3 = tl.load(rows + 2, inside, 0.0), tl.load(rows + 3, inside, 0.0)
    value, slope = (c0 + c1) + (c2 + c3), (c1 + 2.0 * c2) + 3.0 * c3
    return tl.where(above, value, c0), tl.where(above, slope, c1), tl.where(above, 0.0, c2), tl.where(above, 0.0, c3)


@triton.jit
def cubic_spline_forward(u, start, inverse_step, coefficients, y, rows, neurons, intervals,
                         ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """Outputs y from u."""
    neuron, own, offsets, inside = _tile(rows, neurons, ROWS, NEURONS)
    shifted = tl.load(u + offsets, inside, 0.0) - tl.load(start + neuron, own, 0.0)[None, :]
    s = shifted * tl.load(inverse_step + neuron, own, 0.0)[None, :]
    above, interval, t, x = _locate(s, intervals)
    row = coefficients + (neuron[None, :].to(tl.int64) * intervals + interval) * 4
    c0, c1, c2, c3 = _load_coefficients(row, inside, above)
    tl.store(y + offsets, c0 + t * (c1 + x * (c2 + x * c3)), inside)


@triton.jit(do_not_specialize=["floats"])
def cubic_spline_backward(u, start, inverse_step, coefficients, y_grad, u_grad, coefficients_grad, partials, floats,
                          rows, neurons, intervals, ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """Gradients from u and the gradient by y; `coefficients_grad` begins with zeros."""
    neuron, own, offsets, inside = _tile(rows, neurons, ROWS, NEURONS)
    shifted = tl.load(u + offsets, inside, 0.0) - tl.load(start + neuron, own, 0.0)[None, :]
    scale = tl.load(inverse_step + neuron, own, 0.0)[None, :]
    dy = tl.load(y_grad + offsets, inside, 0.0)
    above, interval, t, x = _locate(shifted * scale, intervals)
    row = (neuron[None, :].to(tl.int64) * intervals + interval) * 4
    _, c1, c2, c3 = _load_coefficients(coefficients + row, inside, above)
    ds = dy * (c1 + x * (2.0 * c2 + x * (3.0 * c3)))
    du = ds * scale
    tl.store(u_grad + offsets, du, inside)
    partials += tl.program_id(0).to(tl.int64) * floats + neuron
    tl.store(partials, -tl.sum(tl.where(inside, du, 0.0), 0), own)
    tl.store(partials + neurons, tl.sum(tl.where(inside, ds * shifted, 0.0), 0), own)
    row += coefficients_grad
    tl.atomic_add(row, dy, inside, sem="relaxed")
    tl.atomic_add(row + 1, dy * tl.where(above, 1.0 + t, t), inside, sem="relaxed")
    tl.atomic_add(row + 2, dy * tl.where(above, 1.0 + 2.0 * t, x * x), inside, sem="relaxed")
    tl.atomic_add(row + 3, dy * tl.where(above, 1.0 + 3.0 * t, x * x * x), inside, sem="relaxed")


@triton.jit
def piecewise_linear_forward(u, knots, slope_changes, slope, intercept, y, rows, neurons, count,
                             ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """Outputs y from u, for `count` knots."""
    neuron, own, offsets, inside = _tile(rows, neurons, ROWS, NEURONS)
    t = tl.load(u + offsets, inside, 0.0)
    total = tl.load(intercept + neuron, own, 0.0)[None, :] + tl.load(slope + neuron, own, 0.0)[None, :] * t
    for k in range(count):
        distance = t - tl.load(knots + neuron * count + k, own, 0.0)[None, :]
        total += tl.load(slope_changes + neuron * count + k, own, 0.0)[None, :] * tl.where(distance < 0.0, 0.0, distance)
    tl.store(y + offsets, total, inside)


@triton.jit(do_not_specialize=["floats"])
def piecewise_linear_backward(u, knots, slope_changes, slope, intercept, y_grad, u_grad, partials, floats, rows, neurons, count,
                              ROWS: tl.constexpr, NEURONS: tl.constexpr):
    """Gradients from u and the gradient by y."""
    neuron, own, offsets, inside = _tile(rows, neurons, ROWS, NEURONS)
    t = tl.load(u + offsets, inside, 0.0)
    dy = tl.load(y_grad + offsets, inside, 0.0)   # 0 outside, so that the sums over rows are right
    partials += tl.program_id(0).to(tl.int64) * floats
    slopes = tl.zeros((ROWS, NEURONS), tl.float32) + tl.load(slope + neuron, own, 0.0)[None, :]
    for k in range(count):
        i = neuron * count + k
        change = tl.load(slope_changes + i, own, 0.0)
        distance = t - tl.load(knots + i, own, 0.0)[None, :]
        before = distance <= 0.0   # as relu of torch, at the knot and for NaN
        slopes += tl.where(before, 0.0, change[None, :])
        tl.store(partials + i, -change * tl.sum(tl.where(before, 0.0, dy), 0), own)
        tl.store(partials + neurons * count + i, tl.sum(dy * tl.where(distance < 0.0, 0.0, distance), 0), own)
    tl.store(u_grad + offsets, dy * slopes, inside)
    partials += 2 * neurons * count + neuron
    tl.store(partials, tl.sum(dy * t, 0), own)
    tl.store(partials + neurons, tl.sum(dy, 0), own)
