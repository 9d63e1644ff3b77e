"""Square roots of second moments that may be singular but for rounding."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SMALLEST = 1e-12
"""Of the largest eigenvalue: what varies less is taken to vary so much."""


def find_root(moments: Floats) -> tuple[Floats, Floats]:
    """B (n, n) with B B^T = moments (n, n), and the inverse of B."""
    values, vectors = np.linalg.eigh(moments)
    deviation = np.sqrt(np.maximum(values, SMALLEST * max(float(values[-1]), np.finfo(np.float64).tiny / SMALLEST)))
    return vectors * deviation, (vectors / deviation).T
