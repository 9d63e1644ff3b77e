"""Calibration: domains, histograms and sensitivities, against direct computation and an exact Jacobian."""

import numpy as np
import pytest
import torch
from torch.func import jacrev, vmap

from mncompress import calibration
from mncompress.calibration import (
    BINS,
    MARGIN,
    Extremes,
    calibrate,
    count_outside,
    measure_sensitivity,
    run_network,
    widen,
)
from mncompress.errors import DataError
from mncompress.nn import Network, Standardize, initialize_, make_body
from mncompress.types import ActivationSpec, NetworkSpec

VAF, WARP = ActivationSpec("vaf", "tanh", 3, 1), ActivationSpec("warp", "silu")
META = ActivationSpec("meta", "tanh", 2, 2)
NETWORKS = {
    "residual": NetworkSpec(3, (4, 4, 4), 2, (VAF, WARP, META), residual=True),
    "output activation": NetworkSpec(3, (4,), 3, (VAF, META), output_activation=True),
    "regression": NetworkSpec(3, (5, 5), 1, (VAF, WARP), task="regression", residual=True),
    "many outputs": NetworkSpec(3, (4, 4), 40, (VAF, WARP), residual=True),
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def make_network(spec: NetworkSpec, dtype: torch.dtype = torch.float64) -> Network:
    layers = make_body(spec)
    initialize_(layers, "uniform", torch.Generator().manual_seed(1))
    rng = np.random.default_rng(0)
    features = Standardize(rng.standard_normal(spec.in_features), 0.5 + rng.random(spec.in_features))
    targets = Standardize(np.full(spec.out_features, 3.0), np.full(spec.out_features, 20.0)) if spec.task == "regression" else None
    return Network(spec, layers, features, targets).to(dtype).requires_grad_(False)


def make_rows(rows: int = 50) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((rows, 3)).astype(np.float32)


def exact_sensitivity(network: Network, x: np.ndarray) -> list[np.ndarray]:
    """Root mean square of |d outputs / d activation output|, from the Jacobian by a disturbance of each activation's output.

    Outputs are logits or standardized targets.
    """
    def outputs(disturbances: list[torch.Tensor], row: torch.Tensor) -> torch.Tensor:
        h, left = network.features(row), list(disturbances)
        for layer in network.layers:
            y = layer.linear(h)
            if layer.activation is not None:
                y = layer.activation(y) + left.pop(0)
            h = y + h if layer.residual else y
        return h

    zeros = [torch.zeros(layer.linear.out_features, dtype=torch.float64) for layer in network.activated_layers]
    jacobians = vmap(jacrev(outputs), in_dims=(None, 0))(zeros, torch.from_numpy(x))       # (rows, outputs, n) each
    return [jacobian.square().sum(1).mean(0).sqrt().numpy() for jacobian in jacobians]


@every_network
def test_ranges_and_histograms_count_every_row(name: str) -> None:
    network, x = make_network(NETWORKS[name]), make_rows()
    layers = calibrate(network, x)
    with torch.no_grad():
        found = [u.numpy() for u in network.preactivations(torch.from_numpy(x))]
    assert len(layers) == len(found)
    for layer, u in zip(layers, found, strict=True):
        np.testing.assert_array_equal(layer.observed, np.stack([u.min(0), u.max(0)], 1))
        ordered, width = np.sort(u, 0), np.ptp(u, axis=0)
        gaps = ordered[2] - ordered[0], ordered[-1] - ordered[-3]
        below, above = (np.clip(2.5 * gap, MARGIN * width, width / 4) for gap in gaps)
        np.testing.assert_allclose(layer.domain[:, 0], u.min(0) - below, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(layer.domain[:, 1], u.max(0) + above, rtol=1e-12, atol=1e-12)
        for k in range(u.shape[1]):
            expected, _ = np.histogram(u[:, k], bins=BINS, range=(u[:, k].min(), u[:, k].max()))
            assert layer.histogram[k].sum() == len(x)
            # a value on the edge of two bins may fall on either side
            assert np.abs(np.cumsum(layer.histogram[k]) - np.cumsum(expected)).max() <= 1
        assert layer.sensitivity.shape == (u.shape[1],)


@every_network
def test_sensitivity_equals_the_jacobian(name: str) -> None:
    network, x = make_network(NETWORKS[name]), make_rows(400)
    spec = NETWORKS[name]
    for found, exact in zip(measure_sensitivity(network, x), exact_sensitivity(network, x), strict=True):
        if spec.out_features <= calibration.PROBES:
            np.testing.assert_allclose(found, exact, rtol=1e-10, atol=1e-12)
        else:       # random probes: the relative deviation of the square is at most sqrt(2 / (16 · 400)) = 1.8 %
            np.testing.assert_allclose(found, exact, rtol=0.05, atol=0)


def test_sensitivity_is_zero_where_nothing_depends_on_the_neuron() -> None:
    network = make_network(NETWORKS["output activation"])
    network.layers[1].linear.weight[:, 2] = 0
    found = measure_sensitivity(network, make_rows())[0]
    assert found[2] == 0
    assert (np.delete(found, 2) > 0).all()


def test_sensitivity_leaves_the_network_alone_and_repeats() -> None:
    network = make_network(NETWORKS["many outputs"], torch.float32)
    first, second = (measure_sensitivity(network, make_rows()) for _ in range(2))
    assert all((a == b).all() for a, b in zip(first, second, strict=True))
    assert not any(p.requires_grad or p.grad is not None for p in network.parameters())


@every_network
def test_result_does_not_depend_on_the_batches(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = make_network(NETWORKS[name]), make_rows(37)
    whole, outputs = calibrate(network, x), run_network(network, x)
    monkeypatch.setattr(calibration, "BATCH_ROWS", 5)
    for a, b in zip(whole, calibrate(network, x), strict=True):
        # float64 sums of a few products may be added in another order
        np.testing.assert_allclose(a.observed, b.observed, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(a.domain, b.domain, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(a.sensitivity, b.sensitivity, rtol=1e-12, atol=1e-13)
        assert np.abs(np.cumsum(a.histogram, 1) - np.cumsum(b.histogram, 1)).max() <= 1
    np.testing.assert_allclose(run_network(network, x), outputs, rtol=1e-12, atol=1e-12)


def test_outputs_are_those_of_the_network() -> None:
    network, x = make_network(NETWORKS["regression"], torch.float32), make_rows()
    assert run_network(network, x).dtype == np.float64
    np.testing.assert_array_equal(run_network(network, x), network(torch.from_numpy(x)).numpy())


def test_pixels_can_be_calibrated_on() -> None:
    network = make_network(NETWORKS["residual"])
    pixels = np.arange(30, dtype=np.uint8).reshape(10, 3)
    for a, b in zip(calibrate(network, pixels), calibrate(network, pixels.astype(np.float32)), strict=True):
        np.testing.assert_array_equal(a.observed, b.observed)
        np.testing.assert_array_equal(a.sensitivity, b.sensitivity)


def test_count_outside() -> None:
    network, x = make_network(NETWORKS["residual"]), make_rows(200)
    with torch.no_grad():
        found = [u.numpy() for u in network.preactivations(torch.from_numpy(x))]
    domains = [np.quantile(u, [0.1, 0.75], axis=0).T for u in found]
    for count, domain, u in zip(count_outside(network, x, domains), domains, found, strict=True):
        expected = [sum(1 for v in column if not lo <= v <= hi) for column, (lo, hi) in zip(u.T, domain, strict=True)]
        assert count.tolist() == expected
        assert min(expected) > 0
    calibrated = [layer.domain for layer in calibrate(network, x)]
    assert all((count == 0).all() for count in count_outside(network, x, calibrated))


def test_domains_reach_as_far_as_the_tails_suggest() -> None:
    rng = np.random.default_rng(0)
    seen = rng.exponential(size=(500, 20_000))
    ends = widen(Extremes.none(20_000).add(seen, seen))[:, 1], seen.max(0) + MARGIN * np.ptp(seen, axis=0)
    beyond, without = (np.exp(-end).mean() / np.exp(-seen.max(0)).mean() for end in ends)      # P(x > end) / P(x > last)
    assert beyond == pytest.approx(0.31, abs=0.02)
    assert without == pytest.approx(0.75, abs=0.02)
    even = np.linspace(0.0, 1.0, 200)[:, None]
    np.testing.assert_allclose(widen(Extremes.none(1).add(even, even)), [[-MARGIN, 1 + MARGIN]], rtol=1e-12)
    alone = np.append(even, 100.0)[:, None]         # a gap as wide as the data
    np.testing.assert_allclose(widen(Extremes.none(1).add(alone, alone)), [[-5.0, 125.0]], rtol=1e-12)


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 40])
def test_extremes_are_those_of_all_rows_however_they_come(rows: int) -> None:
    u = np.random.default_rng(rows).standard_normal((rows, 3))
    extremes = Extremes.none(3)
    for part in np.array_split(u, min(rows, 4)):
        extremes = extremes.add(part, part + 1)
    ordered = np.sort(u, 0)
    np.testing.assert_array_equal(extremes.smallest, ordered[:3])
    np.testing.assert_array_equal(extremes.largest, ordered[-3:] + 1)
    np.testing.assert_array_equal(extremes.observed, np.stack([ordered[0], ordered[-1] + 1], 1))


def test_a_single_row_gets_a_domain_with_a_width() -> None:
    for layer in calibrate(make_network(NETWORKS["residual"]), make_rows(1)):
        assert (layer.domain[:, 0] < layer.observed[:, 0]).all()
        assert (layer.domain[:, 1] > layer.observed[:, 1]).all()
        assert (layer.histogram.sum(1) == 1).all()


def test_network_without_activations_has_nothing_to_calibrate() -> None:
    network = make_network(NetworkSpec(3, (), 2, ()))
    assert calibrate(network, make_rows()) == ()
    assert measure_sensitivity(network, make_rows()) == []


def test_empty_split_is_an_error() -> None:
    with pytest.raises(DataError, match=r"^the calibration split is empty[^\n]*$"):
        calibrate(make_network(NETWORKS["residual"]), make_rows(0))


def test_overflow_is_an_error() -> None:
    x = make_rows()
    x[3] = 3e38, 3e38, -3e38
    network = make_network(NETWORKS["residual"], torch.float32)
    network.layers[0].linear.weight *= 100
    with pytest.raises(DataError, match=r"^a pre-activation is not finite[^\n]*$"):
        calibrate(network, x)
