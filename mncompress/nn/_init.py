"""Initialization of linear layers and learned activations.

`uniform` draws every weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); `glorot` draws weights from
U(-sqrt(6/(fan_in+fan_out)), +...) and sets biases to zero (Glorot, Bengio 2010). Both leave a learned activation far from
any useful shape. `matched` makes it, at step 0, the fixed activation of its inner act:

- `agsig`, `frelu`, `warp` and `vaf` carry the fixed activation exactly (a `vaf` in its first inner unit);
- so does a `meta` with act relu or leaky_relu: relu(relu(relu(u))) = relu(u), and leaky(-10 leaky(-10 leaky(u))) =
  leaky(u), since -100 leaky(-x) undoes leaky(x); residual layers pass the carrying unit through;
- any other `meta` draws its inner layers at random and solves its output neuron in closed form. That neuron's
  pre-activation should be z with act(z) = act(u): the inverse of act, taken on the rising branch for silu and gelu, which
  are not one-to-one. Weighted ridge least squares on a grid, best of several draws per neuron.

Units that carry nothing at first keep random input weights and a zero output weight, so that they start to learn at the
first step without disturbing the match.
"""

import math

import torch
from torch import Tensor, nn

from mncompress.nn._acts import ACT_FUNCTIONS
from mncompress.nn._families import LearnedActivation, Meta, Vaf
from mncompress.nn._network import Layer
from mncompress.types import Act, Init

GRID_LIMIT = 3.0
"""The match is solved, and its error recorded, on [-3, 3]: where pre-activations of standardized inputs fall."""
DRAWS = 16
RIDGE = 1e-4


def initialize_(layers: list[Layer], init: Init, generator: torch.Generator) -> list[float]:
    """Draw all parameters of a network's layers.

    Returns:
        For each activated layer the largest difference, on [-3, 3], between its activations and the fixed one.
    """
    errors = []
    for layer in layers:
        _initialize_linear_(layer.linear, init, generator)
        if isinstance(layer.activation, LearnedActivation):
            initialize_activation_(layer.activation, init, generator)
            errors.append(mismatch(layer.activation))
    return errors


@torch.no_grad()
def initialize_activation_(activation: LearnedActivation, init: Init, generator: torch.Generator) -> None:
    """Draw the parameters of one layer's learned activations."""
    if init == "matched":
        _match_(activation, generator)
        return
    for name, parameter in activation.named_parameters():
        fan_in, fan_out = _fans(activation, name)
        is_bias = "bias" in name or name in ("delta", "eta")
        glorot = 0.0 if is_bias else math.sqrt(6 / (fan_in + fan_out))
        _uniform_(parameter, 1 / math.sqrt(fan_in) if init == "uniform" else glorot, generator)


@torch.no_grad()
def mismatch(activation: LearnedActivation) -> float:
    """Largest difference to the fixed activation of the same act over [-3, 3] and all neurons."""
    u = torch.linspace(-GRID_LIMIT, GRID_LIMIT, 121).unsqueeze(1).expand(-1, activation.n)
    return float((activation(u) - activation.act(u)).abs().max())


def _initialize_linear_(linear: nn.Linear, init: Init, generator: torch.Generator) -> None:
    fan_in, fan_out = linear.in_features, linear.out_features
    with torch.no_grad():
        if init == "glorot":
            _uniform_(linear.weight, math.sqrt(6 / (fan_in + fan_out)), generator)
            linear.bias.zero_()
        else:
            _uniform_(linear.weight, 1 / math.sqrt(fan_in), generator)
            _uniform_(linear.bias, 1 / math.sqrt(fan_in), generator)


def _uniform_(parameter: Tensor, limit: float, generator: torch.Generator) -> None:
    parameter.copy_((torch.rand(parameter.shape, generator=generator) * 2 - 1) * limit)


def _fans(activation: LearnedActivation, name: str) -> tuple[int, int]:
    width = max(activation.spec.width, 1)
    if name.startswith("first"):
        return 1, width
    if name.startswith("out"):
        return width, 1
    return (width, width) if name.startswith(("weights", "biases")) else (1, 1)


def _match_(activation: LearnedActivation, generator: torch.Generator) -> None:
    for name, parameter in activation.named_parameters():
        parameter.fill_(1.0 if name in ("alpha", "beta") else 0.0)
    if isinstance(activation, Vaf):
        _draw_first_(activation, -GRID_LIMIT, GRID_LIMIT, generator)
        activation.first_weight[:, 0], activation.first_bias[:, 0], activation.out_weight[:, 0] = 1, 0, 1
    elif isinstance(activation, Meta):
        act = activation.spec.act
        if act in ("relu", "leaky_relu"):
            _carry_(activation, 1.0 if act == "relu" else -10.0, generator)
        else:
            _solve_(activation, generator)


def _draw_first_(activation: Meta | Vaf, low: float, high: float, generator: torch.Generator) -> None:
    """Random slopes of either sign, and biases that put each unit's center uniformly into [low, high]."""
    shape = activation.first_weight.shape
    sign = torch.randint(0, 2, shape, generator=generator) * 2 - 1
    weight = sign * (0.5 + 2.5 * torch.rand(shape, generator=generator)) * (2 / (high - low)) ** 0.5
    center = low + (high - low) * torch.rand(shape, generator=generator)
    activation.first_weight.copy_(weight)
    activation.first_bias.copy_(-weight * center)


def _draw_hidden_(activation: Meta, generator: torch.Generator) -> None:
    limit = 0.5 / math.sqrt(activation.spec.width)
    for parameter in (*activation.weights, *activation.biases):
        _uniform_(parameter, limit, generator)


def _carry_(activation: Meta, weight: float, generator: torch.Generator) -> None:
    """Let inner unit 0 carry the activation: first and output weight `weight`, untouched by further hidden layers."""
    _draw_first_(activation, 0.0, GRID_LIMIT, generator)
    _draw_hidden_(activation, generator)
    for hidden_weight, hidden_bias in zip(activation.weights, activation.biases, strict=True):
        hidden_weight[:, 0], hidden_bias[:, 0] = 0, 0
    activation.first_weight[:, 0], activation.first_bias[:, 0], activation.out_weight[:, 0] = weight, 0, weight


def _solve_(activation: Meta, generator: torch.Generator) -> None:
    """Draw several times, solve the output neuron each time, and keep the best draw of every neuron."""
    u = torch.linspace(-GRID_LIMIT, GRID_LIMIT, 61, dtype=torch.float64)
    act = ACT_FUNCTIONS[activation.spec.act]
    reachable = act(u)
    target, slope = _preimage(activation.spec.act, reachable)
    grid = u.unsqueeze(1).expand(-1, activation.n)
    trial = Meta(activation.spec, activation.n).double()
    best = torch.full((activation.rows,), torch.inf, dtype=torch.float64)
    for _ in range(DRAWS):
        _draw_first_(trial, float(reachable.min()), float(reachable.max()), generator)
        _draw_hidden_(trial, generator)
        features = trial.hidden(grid)[:, :activation.rows].transpose(0, 1)      # (rows, grid, H)
        solution = _ridge(features, target, slope)
        trial.out_weight.copy_(solution[:, :-1])
        trial.out_bias.copy_(solution[:, -1])
        error = (trial(grid) - reachable.unsqueeze(1)).abs().amax(0)[:activation.rows]
        better = error < best
        best = torch.where(better, error, best)
        for ours, theirs in zip(activation.parameters(), trial.parameters(), strict=True):
            ours[better] = theirs[better].to(ours.dtype)


def _ridge(features: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    """Weighted ridge least squares with intercept: (rows, grid, H), (grid,), (grid,) to (rows, H + 1).

    Residuals are weighted by act's slope at the target, so that errors count as they appear behind the activation.
    """
    design = torch.cat([features, torch.ones_like(features[..., :1])], -1) * slope[:, None]
    normal = design.mT @ design + RIDGE * torch.eye(design.shape[-1], dtype=design.dtype)
    solution: Tensor = torch.linalg.solve(normal, design.mT @ (target * slope)[:, None])
    return solution.squeeze(-1)


def _preimage(act: Act, values: Tensor) -> tuple[Tensor, Tensor]:
    """Z on the rising branch with act(z) = values, and act's slope there, by bisection in float64."""
    function = ACT_FUNCTIONS[act]
    lowest = torch.linspace(-5, 5, 100001, dtype=torch.float64)
    start = lowest[function(lowest).argmin()] if act in ("silu", "gelu") else torch.tensor(-20.0, dtype=torch.float64)
    low, high = start.expand_as(values).clone(), torch.full_like(values, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = function(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    z = (low + high) / 2
    step = 1e-5
    return z, (function(z + step) - function(z - step)) / (2 * step)
