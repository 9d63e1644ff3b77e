"""The certificate: a bound on how much any output can change, in float32 and with everything that rounding does.

It is the sum of three: how far apart the two networks can be in exact arithmetic (`_gaps`, and for few features `_boxes`), and how
far float32 evaluations of either can be from exact (`_roundings`). It holds for the evaluated samples, and for every other input
whose features stay within the ranges of these and of further rows, and whose pre-activations in the original stay, layer by layer,
within the ranges that the samples visit (or within the calibrated domains, if these are wider).

For the samples themselves both networks are evaluated in float64, so that nothing but rounding is uncertain. A sample keeps its
class for certain if both networks give it the same, each by a margin that rounding cannot overturn. This holds for any two float32
evaluations, in any order of summation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from mncompress.analysis import LayerOptions
from mncompress.compression._boxes import MOST_FEATURES, bound_outputs
from mncompress.compression._compressed import Compressed
from mncompress.compression._evaluate import Exact, evaluate_compressed, evaluate_original
from mncompress.compression._gaps import Domain, bound_gaps, find_domain, no_gaps
from mncompress.compression._rewrite import Group, LinearMap
from mncompress.compression._roundings import bound_roundings
from mncompress.nn import Network

FLOAT64_ROUNDING = 2.0**-27
"""What float64 rounds, relative to the bounds of what float32 does: 2^-29 for each network, and more than enough."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Certificate:
    """What is guaranteed about the evaluated samples.

    Attributes:
        bounds: largest possible change of each output, (out_features,); None where a step has no finite bound.
        replacement_bound: the largest of these in exact arithmetic, what the replacements alone can do.
        reason: how it was obtained, or why there is none.
        certified: share of the samples whose class provably cannot change in any float32 evaluation; None for regression or without
            a bound.
        sample_bounds: largest possible change of each sample's outputs, (rows, out_features); None without a bound.
    """

    bounds: Floats | None
    replacement_bound: float | None
    reason: str
    certified: float | None
    sample_bounds: Floats | None = None


@dataclass(frozen=True)
class Reference:
    """The original network on samples, and on the domain that bounds are about.

    Attributes:
        network: the original.
        values: its own.
        domain: of the samples.
        rounding: of its outputs, (rows + 1, out_features).
    """

    network: Network
    values: Exact
    domain: Domain
    rounding: Floats

    @classmethod
    def of(cls, network: Network, options: Sequence[LayerOptions], x: NDArray[np.generic], *seen: NDArray[np.generic]) -> Self:
        """From samples x of raw features (rows, d), and further rows for the features' ranges alone."""
        with np.errstate(over="ignore", invalid="ignore"):
            values = evaluate_original(network, options, x)
            domain = find_domain(network, options, values, seen)
            return cls(network, values, domain, bound_roundings(network, values, domain, no_gaps(values, domain)))


def certify(network: Network, compressed: Compressed, x: NDArray[np.generic], *seen: NDArray[np.generic]) -> Certificate:
    """Bound the outputs' change on samples, and on all other inputs that the module's description names.

    Args:
        network: the original.
        compressed: what became of it.
        x: samples of raw features, (rows, d).
        seen: further rows, for the features' ranges alone.
    """
    return bound_change(Reference.of(network, compressed.options, x, *seen), compressed.groups, compressed.maps)


def bound_change(reference: Reference, groups: Sequence[Sequence[Group]], maps: Sequence[LinearMap], limit: float = np.inf
                 ) -> Certificate:
    """The same for a network that is given by what became of the original.

    Args:
        reference: the original.
        groups: what its activations became.
        maps: what its layers read.
        limit: that the bounds are to be held against; they need not be closer than it takes to tell.
    """
    network, original, domain = reference.network, reference.values, reference.domain
    last, scale = len(network.layers) - 1, network.output_scale.double().numpy()
    with np.errstate(over="ignore", invalid="ignore"), threadpool_limits(1, "blas"):      # of many small products
        replaced = evaluate_compressed(network, original, groups, maps)
        gaps = bound_gaps(network, original, replaced, domain)
        roundings = reference.rounding, bound_roundings(network, replaced, domain, gaps)
        rounding = (roundings[0] + roundings[1]) * (1 + FLOAT64_ROUNDING)
        if not (np.isfinite(gaps.behind[last]).all() and np.isfinite(rounding).all()):
            return Certificate(None, None, "an activation has no finite bound on the range its pre-activations visit", None)
        outputs = [each.outputs[last] * scale for each in (original, replaced)]
        changes = np.abs(outputs[1] - outputs[0])
        allowed = limit - rounding[-1]
        enough = allowed if np.isfinite(limit) else rounding[-1] / 10
        in_units = (each / scale for each in (changes.max(0), enough, allowed))
        replacements = scale * bound_outputs(network, original, replaced, domain, gaps, *in_units)
    bounds = replacements + rounding[-1]
    local = np.minimum(changes + rounding[:-1], bounds)
    how = ("branch and bound over boxes of features" if network.spec.in_features <= MOST_FEATURES
           else "sup-norm errors carried through weights and Lipschitz constants")
    reason = (f"for all inputs that keep features and pre-activations in the ranges of the data: interval analysis, {how}, and "
              "float32 rounding of both networks; elementary functions are taken to be accurate to 4 ulp or 5e-7")
    certified = None
    if network.spec.task == "classification":
        top = outputs[0].argmax(1)
        certain = [_is_certain(values, each[:-1], top) for values, each in zip(outputs, roundings, strict=True)]
        certified = float(np.logical_and(*certain).mean())
    return Certificate(bounds, float(replacements.max()), reason, certified, local)


def _is_certain(outputs: Floats, rounding: Floats, top: NDArray[np.intp]) -> NDArray[np.bool_]:
    """For which samples the class `top` (rows,) wins in any evaluation of outputs (rows, classes) with such rounding."""
    rows, others = np.arange(len(top)), np.arange(outputs.shape[1]) != top[:, None]
    margin, doubt = outputs[rows, top][:, None] - outputs, rounding[rows, top][:, None] + rounding
    return np.asarray(((margin > doubt * (1 + FLOAT64_ROUNDING)) | ~others).all(1))
