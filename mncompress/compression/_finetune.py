"""Short distillation: weights and activations of a compressed network are trained together to give the original's outputs.

The loss is the Kullback-Leibler divergence from the original's class probabilities (Hinton, Vinyals, Dean 2015, at temperature
1), or the mean squared difference of the standardized targets. No label is read. A cubic spline is trained by its values and
slopes at the knots, so that it stays continuously differentiable; tables of lines keep their shape.
"""

import copy
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from mncompress.calibration import BATCH_ROWS
from mncompress.data import Dataset
from mncompress.nn import CubicSpline, LinearTable, Network, PiecewiseLinear

BATCH = 128
LEARNING_RATE = 3e-4
SEED = 0


class _Hermite(nn.Module):
    """Coefficients (n, K, 4) from values and slopes at the knots, each (n, K + 1)."""

    def forward(self, values: Tensor, slopes: Tensor) -> Tensor:
        rise = values.diff(dim=1)
        low, high = slopes[:, :-1], slopes[:, 1:]
        return torch.stack([values[:, :-1], low, 3 * rise - 2 * low - high, low + high - 2 * rise], -1)

    def right_inverse(self, coefficients: Tensor) -> tuple[Tensor, Tensor]:
        last = coefficients[:, -1:]
        powers = torch.arange(4, dtype=coefficients.dtype)
        return (torch.cat([coefficients[..., 0], last.sum(-1)], 1), torch.cat([coefficients[..., 1], (last * powers).sum(-1)], 1))


def finetune(original: Network, network: Network, dataset: Dataset, epochs: int, tell: Callable[[str], None]
             ) -> tuple[Network, int]:
    """Train a copy of a compressed network on the training rows.

    Args:
        original: the network to imitate.
        network: the compressed one.
        dataset: its training and calibration rows are trained on, the epoch is chosen on the validation rows.
        epochs: how many.
        tell: called with a line per epoch.

    Returns:
        The network and after how many epochs it was best on the validation rows; the given one and 0 if it never became better.
    """
    student = copy.deepcopy(network)
    _make_trainable_(student)
    x = torch.as_tensor(np.concatenate([dataset.train.x, dataset.calibration.x]))
    check = torch.as_tensor(dataset.validation.x)
    goal, check_goal = (_standardized(original, rows) for rows in (x, check))
    optimizer = torch.optim.Adam([p for p in student.parameters() if p.requires_grad], LEARNING_RATE)
    steps = -(-len(x) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    generator = torch.Generator().manual_seed(SEED)
    least, best, chosen = _check(student, check, check_goal), network, 0
    tell(f"distillation: {least:.3g} on the validation rows before")
    for epoch in range(1, epochs + 1):
        for rows in torch.randperm(len(x), generator=generator).split(BATCH):
            optimizer.zero_grad()
            _loss(student, student.body(student.features(x[rows])), goal[rows]).backward()
            optimizer.step()
            schedule.step()
        loss = _check(student, check, check_goal)
        tell(f"distillation: {loss:.3g} after epoch {epoch} of {epochs}")
        if loss < least:
            least, best, chosen = loss, _finish(student, network), epoch
    return best, chosen


def _make_trainable_(network: Network) -> None:
    network.body.requires_grad_(True)
    for layer in network.layers[:-1]:
        if layer.activation is None:        # the first of two factors, whose bias the second one has
            layer.linear.bias.requires_grad_(False)
    for module in network.modules():
        if isinstance(module, LinearTable):
            module.requires_grad_(False)
        elif isinstance(module, PiecewiseLinear):       # columns that fill up a neuron's knots stay without effect
            module.slope_changes.register_hook(partial(torch.mul, module.slope_changes.detach() != 0))
        elif isinstance(module, CubicSpline):
            module.start.requires_grad_(False)
            module.inverse_step.requires_grad_(False)
            parametrize.register_parametrization(module, "coefficients", _Hermite())


def _finish(student: Network, network: Network) -> Network:
    """A copy of the network with what the student has learned, in plain parameters."""
    finished = copy.deepcopy(network)
    state = {name: value for name, value in student.state_dict().items() if ".parametrizations." not in name}
    splines = {name: module for name, module in student.named_modules() if isinstance(module, CubicSpline)}
    finished.load_state_dict({**state, **{f"{name}.coefficients": module.coefficients for name, module in splines.items()}})
    return finished


@torch.no_grad()
def _standardized(network: Network, x: Tensor) -> Tensor:
    """Logits, or targets as the network has them."""
    return torch.cat([network.body(network.features(rows)) for rows in x.split(BATCH_ROWS)])


@torch.no_grad()
def _check(student: Network, x: Tensor, goal: Tensor) -> float:
    return float(_loss(student, _standardized(student, x), goal))


def _loss(network: Network, found: Tensor, goal: Tensor) -> Tensor:
    if network.spec.task == "regression":
        return F.mse_loss(found, goal)
    return F.kl_div(F.log_softmax(found, -1), F.log_softmax(goal, -1), reduction="batchmean", log_target=True)
