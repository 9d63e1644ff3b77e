"""Regression targets on [-1, 1]^d in closed form.

`TARGETS` maps each name to its number of inputs and its formula. Inputs are x, y (a, b, c, d for four); `[p, q](x)` is
the affine map of [-1, 1] onto [p, q]. All values are finite on the closed cube.

| name | target |
|---|---|
| bessel | J₀(20x) |
| exp_sin | exp(sin(πx) + y²) |
| product | x·y |
| relativistic_sum | (u + v) / (1 + uv), u = 0.9x, v = 0.9y |
| gaussian | exp(−x² / 2s²) / (s√(2π)), s = [0.3, 1](y) |
| exp_sin_4d | exp(½(sin(π(a² + b²)) + sin(π(c² + d²)))) |
| jacobi_sn | sn(8x, m), m = [0, 0.99](y) |
| elliptic_k | K(m), m = [−1, 0.99](x) |
| elliptic_f | F(πx, m), m = [0, 0.99](y) |
| elliptic_e | E(πx, m), m = [0, 0.99](y) |
| bessel_j | J_ν(z), ν = [0, 3](x), z = [0.5, 15](y) |
| bessel_y | Y_ν(z), ν = [0, 2](x), z = [1, 15](y) |
| bessel_i | I_ν(z), ν = [0, 2](x), z = [0.1, 4](y) |
| bessel_k | K_ν(z), ν = [0, 2](x), z = [0.5, 4](y) |
| legendre | P_ν(0.9x), the Legendre function of real degree ν = [0, 4](y) |
| legendre_1 | P_ν¹(0.9x), of order one, ν = [0, 4](y) |
| spherical_harmonic | Re Y₃²(θ, φ) = √(7 / 480π)·P₃²(cos θ)·cos 2φ, θ = [0, π](x), φ = πy |
| airy | Ai(z), z = [−10, 2](x) |
| fresnel | S(4x) = ∫₀^4x sin(πt²/2) dt |
| erf | erf(3x) |
| reciprocal_gamma | 1 / Γ(4x) |
| lambert_w | W₀(z), z = [−0.36, 4](x) |
| expint | E₁(z), z = [0.05, 3](x) |
| gamma_inc | P(a, z), a = [0.5, 5](x), z = [0, 10](y), the regularised lower incomplete gamma function |
| hurwitz_zeta | ζ(s, q), s = [1.5, 5](x), q = [1, 3](y) |

The choice of most of the elementary, elliptic, Bessel, Legendre and spherical ones follows the benchmarks of Liu et
al., "KAN: Kolmogorov-Arnold Networks", arXiv:2404.19756, section 3; the ranges are our own. The special functions are
those of `scipy.special`; the elliptic ones take the parameter m = k².
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mncompress.data._dataset import Arrays, Split
from mncompress.errors import DataError

DEVELOPMENT_ROWS = 2000
"""1500 to train on, 200 to calibrate and 300 to validate."""
TEST_ROWS = 2000


@dataclass(frozen=True)
class Target:
    """A scalar function of `in_features` variables; `evaluate` takes one float64 array per variable."""

    in_features: int
    evaluate: Callable[..., Any]


def _onto(low: float, high: float, t: Any) -> Any:
    """The affine map of [-1, 1] onto [low, high]."""
    return low + (high - low) * (t + 1) / 2


def _gaussian(x: Any, s: Any) -> Any:
    return np.exp(-(x**2) / (2 * s**2)) / (s * np.sqrt(2 * np.pi))


def _ring(a: Any, b: Any) -> Any:
    return np.sin(np.pi * (a**2 + b**2))


TARGETS: dict[str, Target] = {
    "bessel": Target(1, lambda x: special.jv(0, 20 * x)),
    "exp_sin": Target(2, lambda x, y: np.exp(np.sin(np.pi * x) + y**2)),
    "product": Target(2, lambda x, y: x * y),
    "relativistic_sum": Target(2, lambda x, y: 0.9 * (x + y) / (1 + 0.81 * x * y)),
    "gaussian": Target(2, lambda x, y: _gaussian(x, _onto(0.3, 1, y))),
    "exp_sin_4d": Target(4, lambda a, b, c, d: np.exp(0.5 * (_ring(a, b) + _ring(c, d)))),
    "jacobi_sn": Target(2, lambda x, y: special.ellipj(8 * x, _onto(0, 0.99, y))[0]),
    "elliptic_k": Target(1, lambda x: special.ellipk(_onto(-1, 0.99, x))),
    "elliptic_f": Target(2, lambda x, y: special.ellipkinc(np.pi * x, _onto(0, 0.99, y))),
    "elliptic_e": Target(2, lambda x, y: special.ellipeinc(np.pi * x, _onto(0, 0.99, y))),
    "bessel_j": Target(2, lambda x, y: special.jv(_onto(0, 3, x), _onto(0.5, 15, y))),
    "bessel_y": Target(2, lambda x, y: special.yv(_onto(0, 2, x), _onto(1, 15, y))),
    "bessel_i": Target(2, lambda x, y: special.iv(_onto(0, 2, x), _onto(0.1, 4, y))),
    "bessel_k": Target(2, lambda x, y: special.kv(_onto(0, 2, x), _onto(0.5, 4, y))),
    "legendre": Target(2, lambda x, y: special.lpmv(0, _onto(0, 4, y), 0.9 * x)),
    "legendre_1": Target(2, lambda x, y: special.lpmv(1, _onto(0, 4, y), 0.9 * x)),
    "spherical_harmonic": Target(2, lambda x, y: np.sqrt(7 / (480 * np.pi)) * np.cos(2 * np.pi * y)
                                 * special.lpmv(2, 3, np.cos(_onto(0, np.pi, x)))),
    "airy": Target(1, lambda x: special.airy(_onto(-10, 2, x))[0]),
    "fresnel": Target(1, lambda x: special.fresnel(4 * x)[0]),
    "erf": Target(1, lambda x: special.erf(3 * x)),
    "reciprocal_gamma": Target(1, lambda x: special.rgamma(4 * x)),
    "lambert_w": Target(1, lambda x: special.lambertw(_onto(-0.36, 4, x)).real),
    "expint": Target(1, lambda x: special.exp1(_onto(0.05, 3, x))),
    "gamma_inc": Target(2, lambda x, y: special.gammainc(_onto(0.5, 5, x), _onto(0, 10, y))),
    "hurwitz_zeta": Target(2, lambda x, y: special.zeta(_onto(1.5, 5, x), _onto(1, 3, y))),
}
FUNCTION_NAMES = tuple(TARGETS)
"""What may stand behind `function:`."""


def make_function_arrays(name: str, seed: int) -> Arrays:
    """Sample the target `name` at uniform points, the test points from a stream of their own.

    Raises:
        DataError: no target has that name.
    """
    if name not in TARGETS:
        raise DataError(f"unknown function {name!r}; choose from {', '.join(TARGETS)}")
    parts = [_sample(TARGETS[name], rows, np.random.default_rng([seed, stream]))
             for rows, stream in ((DEVELOPMENT_ROWS, 2), (TEST_ROWS, 3))]  # stream 1 draws the splits
    return Arrays(*parts)


def _sample(target: Target, rows: int, rng: np.random.Generator) -> Split:
    """Points are rounded to float32 first, so that each value belongs to exactly the point that the network sees."""
    x: NDArray[np.float32] = rng.uniform(-1, 1, (rows, target.in_features)).astype(np.float32)
    y = target.evaluate(*x.T.astype(np.float64))
    return Split(x, y[:, None].astype(np.float32))
