"""What a network costs: parameters, multiply-adds of one sample with the activations included, and whether it may be one node.

An inner network counts in full, a cubic spline 4 per neuron, a table of lines 1, a piecewise-linear form its knots, a
polynomial its degree, a native activation nothing, an explicit scale and shift 1.
"""

from torch import nn

from mncompress.nn._families import LearnedActivation
from mncompress.nn._forms import CubicSpline, Grouped, LinearTable, PiecewiseLinear, Polynomial, Scale
from mncompress.nn._network import Network

WIDEST_IN_ONE_NODE = 128
"""Neurons of the widest layer of a network that is written as one `FeedForward` node: beyond, nodes cost little."""


def count_parameters(network: Network) -> int:
    """Numbers that have to be stored, standardization aside since it folds into the weights."""
    return sum(parameter.numel() for parameter in network.body.parameters())


def count_macs(network: Network) -> int:
    """Multiply-adds of one sample."""
    return sum(layer.linear.in_features * layer.linear.out_features + _activation_macs(layer.activation)
               for layer in network.layers)


def may_be_one_node(network: Network) -> bool:
    """Whether splines and piecewise-linear forms alone would make the network a single node of the kernel library."""
    return not any(layer.passes for layer in network.layers) and (
        max(layer.linear.out_features for layer in network.layers) <= WIDEST_IN_ONE_NODE)


def _activation_macs(form: nn.Module | None) -> int:
    if isinstance(form, LearnedActivation):
        return form.n * _inner_macs(form)
    if isinstance(form, CubicSpline):
        return 4 * len(form.start)
    if isinstance(form, LinearTable):
        return len(form.slope)
    if isinstance(form, PiecewiseLinear):
        return int((form.slope_changes != 0).sum())
    if isinstance(form, Polynomial):
        return len(form.center) * (form.coefficients.shape[1] - 1)
    if isinstance(form, Scale):
        return len(form.scale)
    if isinstance(form, Grouped):
        return sum(_activation_macs(part) for part in form.forms)
    if isinstance(form, nn.Sequential):
        return sum(_activation_macs(part) for part in form)
    return 0


def _inner_macs(activation: LearnedActivation) -> int:
    """Multiply-adds of one neuron's learned activation; a scale with its shift counts 1, and so does an end's skip."""
    width, depth = activation.spec.width, activation.spec.depth
    skips = 0 if activation.spec.ends == "activated" else 2
    meta = 2 * width + (depth - 1) * width**2 + skips
    per_family = {"fixed": 0, "meta": meta, "vaf": 2 * width, "agsig": 2, "frelu": 0, "warp": 2}
    return per_family[activation.spec.family]
