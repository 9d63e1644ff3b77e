"""Activations and their derivatives in Triton, for the kernels of every room. Importing this needs triton."""
# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def _expm1(z):
    """exp(z) - 1; below 1/2 by its series, where the difference would cancel (next term: 1e-8 of the result)."""
    series = z * 0.125 + 1.0
    for k in tl.static_range(6):
        series = z * series * (1.0 / (7 - k)) + 1.0
    return tl.where(tl.abs(z) < 0.5, z * series, tl.exp(z) - 1.0)


@triton.jit
def _log1p_exp(z):
    """log(1 + exp(z)) for z <= 0, as 2 atanh(e / (2 + e)) with e = exp(z) (next term: 1e-9 of the result)."""
    e = tl.exp(z)
    s = e / (e + 2.0)
    square = s * s
    series = square * (1.0 / 15) + 1.0 / 13
    for k in tl.static_range(6):
        series = series * square + 1.0 / (11 - 2 * k)
    return 2.0 * s * series


@triton.jit
def _sigmoid(z):
    """sigmoid(z) and 1 - sigmoid(z), both to full precision."""
    q = tl.exp(-tl.abs(z))
    large = 1.0 / (1.0 + q)
    small = q * large
    return tl.where(z < 0.0, small, large), tl.where(z < 0.0, large, small)


@triton.jit
def act(z, ACT: tl.constexpr):
    """The activation and its derivative; at kinks the derivative that torch has. NaN stays NaN."""
    if ACT == "relu":
        value = tl.where(z <= 0.0, 0.0, z)
        slope = tl.where(z <= 0.0, 0.0, 1.0)
    elif ACT == "leaky_relu":
        slope = tl.where(z > 0.0, 1.0, 0.01)
        value = z * slope
    elif ACT == "sigmoid":
        value, rest = _sigmoid(z)
        slope = value * rest
    elif ACT == "tanh":
        share, rest = _sigmoid(2.0 * tl.abs(z))
        size = -_expm1(-2.0 * tl.abs(z)) * share
        value = tl.where(z < 0.0, -size, size)
        slope = 4.0 * share * rest
    elif ACT == "silu":
        share, rest = _sigmoid(z)
        value = z * share
        slope = share * (1.0 + z * rest)
    elif ACT == "gelu":
        share = 0.5 * (1.0 + tl.erf(z * 0.7071067811865476))
        value = z * share
        slope = share + z * tl.exp(-0.5 * z * z) * 0.3989422804014327
    elif ACT == "softplus":
        value = tl.where(z <= 0.0, 0.0, z) + _log1p_exp(-tl.abs(z))
        slope, _ = _sigmoid(z)
    else:
        tl.static_assert(ACT == "elu")
        value = tl.where(z > 0.0, z, _expm1(z))
        slope = tl.where(z > 0.0, 1.0, tl.exp(z))
    return value, slope
