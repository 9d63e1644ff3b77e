"""Who feeds whom: what stands before and behind an activation, as torch.fx traces it, and batch normalization folded away.

Only what is sure is used. A neighbor takes part of an activation in if it is an nn.Linear or nn.ConvNd of exactly that type,
called once, with weights that nothing else has, without hooks, and if nobody else reads what passes between. Submodules that
torch.fx cannot trace are leaves: nothing is folded in them. A network that cannot be traced at all has no neighbors.
"""

import copy
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import fx, nn

from mncompress.modules._observe import run_hooked
from mncompress.modules._probe import first_line

LINEAR: Mapping[type[nn.Module], int] = {nn.Linear: 0, nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}
"""Modules that take factors in, with their numbers of spatial axes."""
NORMS: Mapping[type[nn.Module], type[nn.Module]] = {nn.BatchNorm1d: nn.Conv1d, nn.BatchNorm2d: nn.Conv2d, nn.BatchNorm3d: nn.Conv3d}
"""Batch normalizations, with the convolution of the same number of axes."""
PASSING = (nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
"""Modules that pass their input on in eval mode."""
FUNCTIONAL = frozenset({"celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "logsigmoid", "mish", "prelu",
                        "relu", "relu6", "relu_", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh"})


class _Tracer(fx.Tracer):
    """Stops at `leaves`, and notes the innermost module whose forward fails."""

    def __init__(self, leaves: set[int]) -> None:
        super().__init__()
        self.leaves = leaves
        self.failed: tuple[nn.Module, Exception] | None = None

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return id(m) in self.leaves or super().is_leaf_module(m, module_qualified_name)

    def call_module(self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception as error:
            self.failed = self.failed or (m, error)
            raise


def trace(network: nn.Module, leaves: set[int]) -> tuple[fx.Graph | None, dict[str, str]]:
    """The graph of a network, or None; and what could not be traced, with why.

    Args:
        network: in eval mode.
        leaves: ids of modules not to look into.
    """
    names = {id(module): name for name, module in network.named_modules()}
    problems: dict[str, str] = {}
    leaves = set(leaves)
    while True:
        tracer = _Tracer(leaves)
        try:
            return tracer.trace(network), problems
        except Exception as error:  # anything that a foreign forward may raise on proxies
            failed, cause = tracer.failed or (network, error)
            name = names.get(id(failed), "")
            problems[name or "the network"] = f"nothing is folded in it, since torch.fx cannot trace it: {first_line(cause)}"
            if not name or id(failed) in leaves:
                return None, problems
            leaves.add(id(failed))


class Topology:
    """The neighbors of modules in a network.

    Args:
        network: in eval mode.
        leaves: the activations.
    """

    def __init__(self, network: nn.Module, leaves: list[nn.Module]) -> None:
        graph, self.problems = trace(network, {id(leaf) for leaf in leaves})
        self.network = network
        self.nodes = list(graph.nodes) if graph else []
        self._modules = dict(network.named_modules(remove_duplicate=False))
        self._paths = Counter(id(module) for module in self._modules.values())
        called = [node for node in self.nodes if node.op == "call_module"]
        self._calls = Counter(id(self._modules[node.target]) for node in called)
        self._node_of = {id(self._modules[node.target]): node for node in called}
        self._owners = Counter(id(p) for module in set(self._modules.values()) for p in module._parameters.values())
        self._owners.update(id(_attribute(network, node.target)) for node in self.nodes if node.op == "get_attr")

    def functional(self) -> dict[str, str]:
        """Activations that are calls of functions, by the names of their nodes."""
        found = {node.name: str(getattr(node.target, "__name__", node.target)) for node in self.nodes
                 if node.op in ("call_function", "call_method")}
        return {name: f"a call of the function {function} stays as it is: give an activation as a module to have it replaced"
                for name, function in found.items() if function in FUNCTIONAL}

    def producer(self, module: nn.Module) -> str | None:
        """The name of the linear module whose output a module alone reads, and nothing else."""
        node = self._once(module)
        while node is not None and node.args and isinstance(node.args[0], fx.Node) and len(node.args[0].users) == 1:
            node = node.args[0]
            if not self._passes(node):
                return self._linear(node)
        return None

    def consumer(self, module: nn.Module) -> str | None:
        """The name of the linear module, of one group, that alone reads a module's output."""
        node = self._once(module)
        while node is not None and len(node.users) == 1:
            node = next(iter(node.users))
            if not self._passes(node):
                name = self._linear(node)
                return name if name and getattr(self._modules[name], "groups", 1) == 1 else None
        return None

    def _once(self, module: nn.Module) -> fx.Node | None:
        """The only call of a module."""
        single = self._calls[id(module)] == 1 and self._paths[id(module)] == 1 and not _has_hooks(module)
        return self._node_of[id(module)] if single else None

    def _passes(self, node: fx.Node) -> bool:
        if node.op != "call_module":
            return False
        module = self._modules[str(node.target)]
        return type(module) in PASSING and not _has_hooks(module)

    def _linear(self, node: fx.Node) -> str | None:
        if node.op != "call_module" or len(node.args) != 1 or node.kwargs:
            return None
        module = self._modules[str(node.target)]
        free = all(p is None or self._owners[id(p)] == 1 for p in module._parameters.values())
        return str(node.target) if type(module) in LINEAR and self._once(module) is node and free else None


def fits_axis(linear: nn.Module, rank: int, axis: int) -> bool:
    """Whether the channels of a linear module are `axis` of a tensor with `rank` axes."""
    spatial = LINEAR[type(linear)]
    return axis == rank - 1 if spatial == 0 else (axis, rank) == (1, spatial + 2)


def fold_norms(network: nn.Module, leaves: list[nn.Module], x: torch.Tensor) -> tuple[nn.Module, dict[str, str]]:
    """A copy of the network with each batch normalization folded into the linear module that it alone reads.

    Args:
        network: in eval mode.
        leaves: the activations.
        x: data to run it on.

    Returns:
        The copy, and the normalizations that stay, with why.
    """
    norms = {name: (module, 1) for name, module in network.named_modules() if type(module) in NORMS}
    ranks: dict[str, set[int]] = {name: set() for name in norms}
    run_hooked(network, norms, x[:2], lambda name, u: ranks[name].add(u.dim() if isinstance(u, torch.Tensor) else 0))
    topology, folded, stays = Topology(network, leaves), copy.deepcopy(network), {}
    for name, (norm, _) in norms.items():
        producer = topology.producer(norm)
        reason = _check_norm(network, norm, producer, ranks[name])
        if reason is None and producer is not None:
            _fold_norm_(folded.get_submodule(producer), folded.get_submodule(name))
            folded.set_submodule(name, nn.Identity())
        else:
            stays[name] = f"the normalization stays, since {reason}"
    return folded, stays


def _check_norm(network: nn.Module, norm: Any, producer: str | None, ranks: set[int]) -> str | None:
    if norm.running_mean is None:
        return "it has no running statistics"
    if producer is None:
        return "no linear layer or convolution is read by it alone"
    linear = network.get_submodule(producer)
    if type(linear) is not NORMS[type(norm)] and not (type(linear) is nn.Linear and ranks == {2}):
        return f"its channels are not the outputs of {producer}"
    return None


@torch.no_grad()
def _fold_norm_(linear: Any, norm: Any) -> None:
    """In float64, rounded once."""
    weight, mean, var = (value.double() for value in (linear.weight, norm.running_mean, norm.running_var))
    scale = torch.rsqrt(var + norm.eps)
    if norm.affine:
        scale = scale * norm.weight.double()
    shift = (norm.bias.double() if norm.affine else 0) - mean * scale
    bias = shift if linear.bias is None else linear.bias.double() * scale + shift
    weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
    linear.weight, linear.bias = (nn.Parameter(value.to(linear.weight.dtype), requires_grad=False) for value in (weight, bias))


def _has_hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or getattr(module, "parametrizations", None))


def _attribute(network: nn.Module, path: str) -> Any:
    value: Any = network
    for part in path.split("."):
        value = getattr(value, part)
    return value
