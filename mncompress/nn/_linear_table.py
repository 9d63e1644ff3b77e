"""A table of lines: what standard operators look up in half the time of a table of cubics."""

import numpy as np
import torch
from torch import Tensor, nn

from mncompress import spline


class LinearTable(nn.Module):
    """y = intercept[n, k] + slope[n, k] s in interval k = floor(s), the first or last one outside of [0, K].

    `intercept`, `slope` (n, K). s is the pre-activation in units of intervals from the first knot: the layer before takes in
    `start` and `inverse_step`.
    """

    def __init__(self, form: spline.CubicSpline) -> None:
        super().__init__()
        value, slope = form.coefficients[..., 0], form.coefficients[..., 1]
        self.intercept = nn.Parameter(torch.as_tensor((value - slope * np.arange(form.intervals)).astype(np.float32)))
        self.slope = nn.Parameter(torch.as_tensor(slope.astype(np.float32)))

    def forward(self, s: Tensor) -> Tensor:
        """Evaluate at `(..., n)`; NaN gives NaN."""
        interval = s.detach().nan_to_num(0.0).clamp(0, self.slope.shape[1] - 1).long()
        neuron = torch.arange(len(self.slope), device=s.device)
        return self.intercept[neuron, interval] + self.slope[neuron, interval] * s
