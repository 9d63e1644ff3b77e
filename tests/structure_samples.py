"""Random networks of which some neurons leave."""

import numpy as np
import torch

from mncompress.analysis import find_options, make_inner_networks
from mncompress.calibration import calibrate, run_network
from mncompress.checkpoint import make_template
from mncompress.compression import Assignment
from mncompress.data import Dataset, Split, Standardization
from mncompress.nn import initialize_
from mncompress.types import ActivationSpec, NetworkSpec


def sizes_of(rng, depth):
    return (int(rng.integers(2, 7)), *(int(n) for n in rng.integers(2, 9, depth)), int(rng.integers(1, 5)))


def make_network(rng, sizes, family="vaf", act="tanh", task="classification", residual=False):
    inner = family in ("meta", "vaf")
    spec = ActivationSpec(family, act, 4 * inner, inner * 1)
    network_spec = NetworkSpec(sizes[0], tuple(sizes[1:-1]), sizes[-1], (spec,) * (len(sizes) - 2), task, False, residual)
    targets = Standardization(rng.normal(size=sizes[-1]), rng.uniform(0.5, 4, sizes[-1])) if task == "regression" else None
    network = make_template(network_spec, Standardization(rng.normal(size=sizes[0]), rng.uniform(0.5, 2, sizes[0])), targets)
    generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
    initialize_(network.layers, "matched", generator)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    return network.eval().requires_grad_(False)


def make_dataset(rng, network, rows=400):
    x = rng.normal(size=(4 * rows, network.spec.in_features)).astype(np.float32)
    outputs = run_network(network, x)
    y = outputs.argmax(1) if network.spec.task == "classification" else (
        outputs + 0.1 * outputs.std(0) * rng.normal(size=outputs.shape)).astype(np.float32)
    splits = [Split(x[part::4], y[part::4]) for part in range(4)]
    return Dataset("made", network.spec.task, *splits, network.spec.out_features, "sha256:0")


def make_options(network, x):
    return tuple(find_options(make_inner_networks(layer.activation), layer.activation.spec.family, found.domain, "default",
                              "native")
                 for layer, found in zip(network.activated_layers, calibrate(network, x), strict=True))


def assign(rng, options, ranks, ridge, share=0.5):
    """Some neurons leave, the others become splines, polynomials or stay."""
    result = []
    for option, rank in zip(options, ranks, strict=True):
        left = rng.random(option.n) < share
        forms = ["cubic_spline", "polynomial"] if "cubic_spline" in option.errors else [next(key for key in option.errors)] * 2
        keys = rng.choice([*forms, "kept", "constant"], option.n, p=[0.5, 0.2, 0.2, 0.1])
        result.append(Assignment(np.where(left, "affine", keys), {"cubic_spline": 24, "polynomial": 7}, left, rank, ridge))
    return result
