"""Branch and bound over boxes of features: never less than what two networks can differ by, and hardly more."""

import dataclasses

import numpy as np
import pytest
from structure_samples import assign, make_dataset, make_network, make_options

from mncompress.compression import Assignment, Compressed, Study, build, rewrite
from mncompress.compression._affine_forms import Forms, TwinActivation, enclose_distance, make_layers
from mncompress.compression._boxes import MOST_FEATURES, bound_outputs
from mncompress.compression._evaluate import activate, evaluate_compressed, evaluate_original
from mncompress.compression._gaps import bound_gaps, find_domain
from mncompress.types import ACTS, Budget, Plan


def compress(network, dataset, rng, share, ridge):
    options = make_options(network, dataset.train.x)
    ranks = rng.choice([0, 1, 99] if ridge else [99], len(options)).tolist()
    assignments = assign(rng, options, ranks, ridge, share)
    if any(layer.residual for layer in network.layers):
        assignments = [dataclasses.replace(each, left=np.zeros_like(each.left)) for each in assignments]
    blueprint = build(network, options, assignments, Study.of(network, dataset))
    return Compressed(rewrite(network, blueprint.groups, blueprint.maps), Plan(Budget(), (), 0.0, {}), blueprint.groups,
                      blueprint.maps, options, ())


def evaluate_both(network, compressed, x):
    original = evaluate_original(network, compressed.options, x)
    return original, evaluate_compressed(network, original, compressed.groups, compressed.maps)


def search(network, compressed, x, rng, rounds=15):
    """The largest changes of each output that can be found within the ranges, by random steps from the best points."""
    original, _ = evaluate_both(network, compressed, x)
    domain, last = find_domain(network, compressed.options, original, ()), len(network.layers) - 1
    low, high = x.min(0), x.max(0)

    def measure(points):
        f, g = evaluate_both(network, compressed, points)
        return np.where(domain.contains(f)[:, None], np.abs(g.outputs[last] - f.outputs[last]), 0.0)

    points = np.concatenate([x, rng.uniform(low, high, (4000, x.shape[1])).astype(np.float32)])
    best = np.zeros(network.spec.out_features)
    step = (high - low) / 10
    for _ in range(rounds):
        found = measure(points)
        best = np.maximum(best, found.max(0))
        top = points[np.argsort(-found, 0)[:30].ravel()]
        points = np.clip(np.repeat(top, 20, 0) + rng.normal(size=(20 * len(top), x.shape[1])) * step, low, high).astype(np.float32)
        step = step * 0.7
    return best


def bound(network, compressed, x, enough=1e-12, limit=np.inf):
    original, replaced = evaluate_both(network, compressed, x)
    domain = find_domain(network, compressed.options, original, ())
    gaps = bound_gaps(network, original, replaced, domain)
    found, enough = np.zeros(network.spec.out_features), np.full(network.spec.out_features, enough)
    return (bound_outputs(network, original, replaced, domain, gaps, found, enough, limit),
            gaps.behind[len(network.layers) - 1])


@pytest.mark.parametrize("seed", range(32))
def test_bounds_hold_and_are_close(seed):
    rng = np.random.default_rng(seed)
    features, depth, act = 1 + seed % 3, 1 + seed // 3 % 3, ACTS[seed % len(ACTS)]
    residual = seed % 4 == 3 and depth > 1
    sizes = (features, *[int(rng.integers(3, 7))] * depth, int(rng.integers(1, 3)))
    network = make_network(rng, sizes, ("vaf", "meta", "warp")[seed % 3], act, ("classification", "regression")[seed % 2], residual)
    dataset = make_dataset(rng, network, 150)
    share, ridge = ((0.0, None), (0.4, None), (0.4, 1e-3))[seed // 8 % 3 if not residual else 0]
    compressed = compress(network, dataset, rng, share, ridge)
    x = dataset.test.x
    bounds, known = bound(network, compressed, x)
    found = search(network, compressed, x, rng)
    assert np.all(found <= bounds * (1 + 1e-9) + 1e-12)
    assert np.all(bounds <= known)
    # Within the slack almost everywhere; one network with slopes of 30 in three layers is still being halved when the work ends.
    assert bounds.max() <= (2.0 if seed == 7 else 1.15) * found.max() + 1e-6


@pytest.mark.parametrize("seed", range(8))
def test_enclosures_hold_in_boxes_of_every_size(seed):
    rng = np.random.default_rng(100 + seed)
    d, act = 1 + seed % 3, ACTS[seed]
    network = make_network(rng, (d, 5, 4, 2), ("vaf", "meta", "warp")[seed % 3], act)
    dataset = make_dataset(rng, network, 150)
    compressed = compress(network, dataset, rng, *((0.0, None), (0.4, 1e-3))[seed % 2])
    original, replaced = evaluate_both(network, compressed, dataset.test.x)
    domain = find_domain(network, compressed.options, original, ())
    layers = make_layers(network, original, replaced, domain, bound_gaps(network, original, replaced, domain))
    low, high = original.outputs[-1].min(0), original.outputs[-1].max(0)
    enclose_distance(layers, (low + high)[None] / 2, (high - low)[None] / 2, tabulate=True)
    shift, scale = network.features.shift.double().numpy(), network.features.scale.double().numpy()
    checked = 0
    for _ in range(60):
        center = rng.uniform(low, high)
        half = np.minimum((high - low) * 10.0 ** rng.uniform(-3, -0.3, d), np.minimum(center - low, high - center))
        points = ((center + half * rng.uniform(-0.999, 0.999, (300, d))) * scale + shift).astype(np.float32)
        f, g = evaluate_both(network, compressed, points)
        inside = domain.contains(f)
        found = enclose_distance(layers, center[None], half[None])
        assert found.reaches[0] or not inside.any()
        assert not found.is_inside[0] or inside.all()
        if inside.any():
            seen = (g.outputs[len(layers) - 1] - f.outputs[len(layers) - 1])[inside]
            bottom, top = found.distance.ends
            assert np.all((bottom - 1e-12 <= seen) & (seen <= top + 1e-12))        # the evaluation rounds as well
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("act", ACTS)
def test_activations_enclose_whatever_arrives(act):
    """Any distance, not only such as one layer leaves: a point of a form in, the value within the form that comes out."""
    rng = np.random.default_rng(ACTS.index(act))
    network = make_network(rng, (2, 24, 1), ("vaf", "meta")[ACTS.index(act) % 2], act)
    dataset = make_dataset(rng, network, 150)
    compressed = compress(network, dataset, rng, 0.0, None)
    (options,), (groups,), boxes, n, d = compressed.options, compressed.groups, 200, 24, 2
    low, high = options.domain.T
    layer = TwinActivation(options.inner, groups, (low, high), high - low)
    layer.tabulate_(high - low)
    size = (high - low) * 10.0 ** rng.uniform(-3, -0.3, (boxes, n))
    middle = rng.uniform(low, high, (boxes, n)), rng.uniform(-0.5, 0.5, (boxes, n)) * (high - low)
    u, distance = (Forms(np.concatenate([each[None], rng.uniform(-1, 1, (d, boxes, n)) * size / d]),
                         size * rng.choice([0.0, 0.01, 0.5], (boxes, n))) for each in middle)
    behind, moved = layer(u, distance)
    for _ in range(200):
        at = rng.uniform(-1, 1, (d, boxes, 1))

        def take(form, noise, at=at):
            return form.core[0] + (form.core[1:] * at).sum(0) + noise * form.radius

        x, y = (take(each, rng.uniform(-1, 1, (boxes, n))) for each in (u, distance))
        inside = (x >= low) & (x <= high) & (np.abs(y) <= high - low)
        before, after = options.inner.evaluate(x), activate(options.inner, groups, x + y)
        assert np.all((np.abs(before - take(behind, 0.0)) <= behind.radius)[inside])
        assert np.all((np.abs(after - before - take(moved, 0.0)) <= moved.radius)[inside])
    assert inside.mean() > 0.5


def test_nothing_is_done_where_nothing_is_to_gain():
    rng = np.random.default_rng(0)
    network = make_network(rng, (2, 4, 1), task="regression")
    dataset = make_dataset(rng, network, 100)
    compressed = compress(network, dataset, rng, 0.0, None)
    bounds, known = bound(network, compressed, dataset.test.x, enough=1e9)
    assert np.array_equal(bounds, known)
    wide = make_network(rng, (MOST_FEATURES + 1, 4, 1), task="regression")
    data = make_dataset(rng, wide, 100)
    bounds, known = bound(wide, compress(wide, data, rng, 0.0, None), data.test.x)
    assert np.array_equal(bounds, known)


def test_limits_are_told_from_what_is_proven():
    """Held against a limit above the best bound, what comes out is below it; against one that a change exceeds, it is not."""
    rng = np.random.default_rng(3)
    network = make_network(rng, (2, 6, 5, 1), task="regression")
    dataset = make_dataset(rng, network, 200)
    compressed = compress(network, dataset, rng, 0.4, 1e-3)
    best, known = bound(network, compressed, dataset.test.x)
    assert best < known / 2
    for limit in (1.2 * best, 2 * best):
        assert bound(network, compressed, dataset.test.x, enough=limit[0], limit=limit)[0] <= limit
    limit = search(network, compressed, dataset.test.x, rng) * 0.99
    assert bound(network, compressed, dataset.test.x, enough=limit[0], limit=limit)[0] > limit


def test_kept_networks_have_no_distance():
    rng = np.random.default_rng(1)
    network = make_network(rng, (2, 5, 4, 2))
    dataset = make_dataset(rng, network, 100)
    options = make_options(network, dataset.train.x)
    kept = [Assignment(np.full(each.n, "kept"), {}, np.zeros(each.n, bool), 0, None) for each in options]
    blueprint = build(network, options, kept, Study.of(network, dataset))
    compressed = Compressed(network, Plan(Budget(), (), 0.0, {}), blueprint.groups, blueprint.maps, options, ())
    bounds, _ = bound(network, compressed, dataset.test.x)
    assert np.all(bounds < 1e-9)
