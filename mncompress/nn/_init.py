"""Initialization of linear layers and learned activations.

`uniform` draws every weight and bias from U(-1/sqrt(fan_in), 1/sqrt(fan_in)); `glorot` draws weights from
U(-sqrt(6/(fan_in+fan_out)), +...) and sets biases to zero (Glorot, Bengio 2010). Both leave a learned activation far from
any useful shape. `matched` makes it, at step 0, the fixed activation of its inner act; learned ends of a `meta` start as
activated ones whatever the rest does:

- `agsig`, `frelu`, `warp` and `vaf` carry the fixed activation exactly (a `vaf` in its first inner unit);
- so does a `meta` with act relu or leaky_relu: relu(relu(relu(u))) = relu(u), and leaky(-10 leaky(-10 leaky(u))) =
  leaky(u), since -100 leaky(-x) undoes leaky(x); residual layers pass the carrying unit through. With leaky ends e, relu
  needs a gain besides, and leaky_relu a line, for which two units are needed: e(e(u) / 1.21) = leaky(u) for either sign of u;
- any other `meta` draws its inner layers at random and solves its output neuron in closed form. That neuron's
  pre-activation should be z with e(z) = act(u): the inverse of the output's end, taken on the rising branch where act is
  silu or gelu, which are not one-to-one. Weighted ridge least squares on a grid, best of several draws per neuron.

Units that carry nothing at first keep random input weights and a zero output weight, so that they start to learn at the
first step without disturbing the match.
"""

import math
from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from mncompress.nn._acts import ACT_FUNCTIONS
from mncompress.nn._families import FIXED_ENDS, End, LearnedActivation, Meta, Vaf
from mncompress.nn._network import Layer
from mncompress.types import LEAK, Act, ActivationSpec, Init

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
def initialize_activation_(activation: LearnedActivation, init: Init = "matched", generator: torch.Generator | None = None) -> None:
    """Draw the parameters of one layer's learned activations, which are zero before.

    Args:
        activation: of n neurons.
        init: `matched` begins at the fixed activation of the same act; the others as in `TrainConfig.init`.
        generator: of the random numbers; torch's default one where None.
    """
    generator = torch.default_generator if generator is None else generator
    if init == "matched":
        _match_(activation, generator)
        return
    for name, parameter in activation.named_parameters():
        if name.endswith(("_gate", "_skip")):
            parameter.zero_()
            continue
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
        carriers = _carriers(activation.spec)
        if 0 < len(carriers) <= activation.spec.width:
            _carry_(activation, carriers, generator)
        else:
            _solve_(activation, generator)


def _matched_end(spec: ActivationSpec) -> End:
    """The ends at step 0."""
    return FIXED_ENDS.get(spec.ends, FIXED_ENDS["activated"])


def _carriers(spec: ActivationSpec) -> list[tuple[float, float]]:
    """First and output weights of inner units that carry the activation exactly, none for smooth ones."""
    gain = (1 + float(_matched_end(spec).skip)) ** -2
    if spec.act == "relu":
        return [(1.0, gain)]
    if spec.act == "leaky_relu":
        line = gain / (1 + LEAK)
        return [(-10.0, -10.0)] if gain == 1 else [(1.0, line), (-1.0, -line)]
    return []


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


def _carry_(activation: Meta, carriers: list[tuple[float, float]], generator: torch.Generator) -> None:
    """Let the first inner units, of these first and output weights, carry the activation through further hidden layers."""
    _draw_first_(activation, 0.0, GRID_LIMIT, generator)
    _draw_hidden_(activation, generator)
    for hidden_weight, hidden_bias in zip(activation.weights, activation.biases, strict=True):
        hidden_weight[:, :len(carriers)], hidden_bias[:, :len(carriers)] = 0, 0
    for unit, (first, out) in enumerate(carriers):
        activation.first_weight[:, unit], activation.first_bias[:, unit], activation.out_weight[:, unit] = first, 0, out


def _solve_(activation: Meta, generator: torch.Generator) -> None:
    """Draw several times, solve the output neuron each time, and keep the best draw of every neuron."""
    u = torch.linspace(-GRID_LIMIT, GRID_LIMIT, 61, dtype=torch.float64)
    expected = ACT_FUNCTIONS[activation.spec.act](u)
    reachable, target, slope = _find_targets(activation.spec.act, _matched_end(activation.spec))
    grid = u.expand(activation.rows, -1)
    trial = Meta(activation.spec, activation.n).double()
    best = torch.full((activation.rows,), torch.inf, dtype=torch.float64)
    for _ in range(DRAWS):
        _draw_first_(trial, float(reachable.min()), float(reachable.max()), generator)
        _draw_hidden_(trial, generator)
        parameters = dict(trial.named_parameters())
        solution = _ridge(trial.hidden(grid, parameters).mT, target, slope)
        trial.out_weight.copy_(solution[:, :-1])
        trial.out_bias.copy_(solution[:, -1])
        error = (trial.compute(grid, parameters) - expected).abs().amax(-1)
        better = error < best
        best = torch.where(better, error, best)
        for ours, theirs in zip(activation.parameters(), trial.parameters(), strict=True):
            ours[better] = theirs[better].to(ours.dtype)


@cache
def _find_targets(act: Act, end: End) -> tuple[Tensor, Tensor, Tensor]:
    """On the grid: what the input neuron gives, what the output neuron must be given, and its slope there."""
    u = torch.linspace(-GRID_LIMIT, GRID_LIMIT, 61, dtype=torch.float64)
    function = ACT_FUNCTIONS[act]

    def apply(z: Tensor) -> Tensor:
        return end.scale * function(z) + end.skip * z

    return apply(u), *_preimage(apply, function(u))


def _ridge(features: Tensor, target: Tensor, slope: Tensor) -> Tensor:
    """Weighted ridge least squares with intercept: (rows, grid, H), (grid,), (grid,) to (rows, H + 1).

    Residuals are weighted by the end's slope at the target, so that errors count as they appear behind the activation.
    """
    design = torch.cat([features, torch.ones_like(features[..., :1])], -1) * slope[:, None]
    normal = design.mT @ design + RIDGE * torch.eye(design.shape[-1], dtype=design.dtype)
    solution: Tensor = torch.linalg.solve(normal, design.mT @ (target * slope)[:, None])
    return solution.squeeze(-1)


def _preimage(function: Callable[[Tensor], Tensor], values: Tensor) -> tuple[Tensor, Tensor]:
    """Z above the function's minimum with function(z) = values, and the slope there, by bisection in float64."""
    z = torch.linspace(-20, 20, 400001, dtype=torch.float64)
    start = z[function(z).argmin()]
    low, high = start.expand_as(values).clone(), torch.full_like(values, 20.0)
    for _ in range(80):
        middle = (low + high) / 2
        below = function(middle) < values
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    z = (low + high) / 2
    step = 1e-5
    return z, (function(z + step) - function(z - step)) / (2 * step)
