"""Random networks through a training step, compression and export: torch, ONNX Runtime and the reference evaluator agree.

A case draws family, inner activation, ends, depth, width, sharing, hidden layers, residual connections, an output activation,
the task, initialization, budget and target; whether it has to come down to a share of the multiply-adds, so that neurons leave and
layers are refitted; and whether its plan is then edited by hand, so that layers take lower ranks. It fails if a file does not
compute what its torch network does in float64 (within the tolerance that `check_export` reports), in ONNX Runtime with and without
optimization or in onnx's reference evaluator; if the largest change of an output, as ONNX Runtime runs the two files, exceeds the
certified bound; if kinds do not sum up; if the plan, written and read, gives another network; or if anything is raised.
"""

import dataclasses
import json
import random
import tempfile
import traceback
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scenarios.result import Result
from scenarios.server import Server

FEATURES, WIDTHS, ROWS = (1, 2, 5, 16), (1, 2, 3, 5, 8, 16), 120
FAMILIES = ("meta", "meta", "meta", "vaf", "vaf", "agsig", "frelu", "warp", "fixed")


def run(server: Server, scratch: Path, count: int, seed: int) -> Iterator[Result]:
    """`count` networks, in this process; the server is not needed."""
    import torch

    torch.set_num_threads(1)
    failures, kinds, bounded, worst = [], Counter[str](), 0, 0.0
    for number in range(count):
        text, (outcome, ratio, found) = run_case(seed, number)
        kinds += found
        bounded += ratio is not None
        worst = max(worst, ratio or 0.0)
        if outcome:
            failures.append(f"seed {seed} case {number} ({text}): {outcome}")
    measured = (f"{bounded} with a bound, of which at most {worst:.3g} was used; "
                + ", ".join(f"{total} {kind}" for kind, total in kinds.most_common()))
    yield Result("networks", "networks through training, compression and export", count, tuple(failures), measured)


def run_case(seed: int, number: int) -> tuple[str, tuple[str | None, float | None, Counter[str]]]:
    """The case's recipe, and what is wrong (or None), the share of the bound that was used, and the kinds chosen."""
    from mncompress.errors import ConfigError, TrainingError
    from mncompress.types import Budget

    rng = random.Random(f"{seed} networks {number}")
    recipe, budget = draw_recipe(rng), draw_budget(rng)
    text = " ".join(f"{key}={value}" for key, value in {**recipe, **budget}.items())
    try:
        return text, _check(recipe, Budget(**budget), rng)
    except TrainingError:       # diverged, and says so
        return text, (None, None, Counter())
    except ConfigError as error:
        return text, (None if "cannot be reached" in str(error) else f"refused: {error}", None, Counter())
    except Exception:
        return text, (" ".join(traceback.format_exc()[-600:].split()), None, Counter())


def draw_recipe(rng: random.Random) -> dict[str, object]:
    """The fields of a configuration, and of its data."""
    from mncompress.types import ACTS, ENDS

    hidden = tuple(rng.choice(WIDTHS) for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4))))
    residual = len(hidden) > 1 and rng.random() < 0.5
    if residual:
        hidden = (hidden[0],) * len(hidden)
    output = rng.random() < 0.25
    names = []
    for _ in range(max(len(hidden) + output, 1)):
        family = rng.choice(FAMILIES)
        names.append(f"{family}:{rng.choice(ACTS)}" if family in ("warp", "fixed") else family)
    same = rng.random() < 0.6 or not hidden + (0,) * output
    depth = 1 if "vaf" in names else rng.choice((1, 1, 2, 3))
    names = names[:1] if same else names
    inner, width, ends = rng.choice(ACTS), rng.choice((1, 2, 3, 6)), rng.choice(ENDS)
    return {"activation": ",".join(names), "inner": inner, "inner_width": width,
            "inner_layers": depth, "ends": ends if "meta" in names else "activated",
            "shared": rng.random() < 0.25, "hidden": hidden,
            "output_activation": output, "residual": residual, "init": rng.choice(("matched", "matched", "uniform", "glorot")),
            "batch_norm": rng.random() < 0.15, "batch_size": 32, "epochs": rng.choice((1, 1, 3)),
            "lr": rng.choice((1e-3, 1e-2, 1e-1)),
            "seed": rng.randrange(1000), "device": "cpu", "features": rng.choice(FEATURES), "outputs": rng.choice((1, 2, 4)),
            "scale": rng.choice((1e-3, 1.0, 1.0, 300.0)), "task": rng.choice(("classification", "regression"))}


def draw_budget(rng: random.Random) -> dict[str, object]:
    """What compression may cost."""
    budget: dict[str, object] = {"preset": rng.choice(("exact", "default", "default", "aggressive")),
                                 "target": rng.choice(("auto", "native", "portable"))}
    if budget["preset"] != "exact" and rng.random() < 0.6:
        budget[rng.choice(("max_drop", "max_logit_error"))] = rng.choice((1e-4, 0.1, 1.0, 30.0))
    if budget["preset"] != "exact" and rng.random() < 0.5:
        budget["target_macs"] = rng.choice(("80%", "60%", "40%", "25%"))
    return budget


def make_data(path: Path, rng: random.Random, task: str, features: int, outputs: int, scale: float) -> None:
    """A small data set of any task and scale."""
    draw = np.random.default_rng(rng.randrange(2**32))
    x = (draw.normal(size=(ROWS, features)) * scale).astype(np.float32)
    z = np.tanh(x @ draw.normal(size=(features, max(outputs, 2))) / scale)
    y = z.argmax(1).astype(np.int64) if task == "classification" else (z[:, :outputs] * scale).astype(np.float32)
    if task == "classification":
        y[:2] = 0, max(outputs, 2) - 1
    part = ROWS * 3 // 4
    np.savez(path, x_train=x[:part], y_train=y[:part], x_test=x[part:], y_test=y[part:])


def _check(recipe: dict[str, object], budget: object, rng: random.Random) -> tuple[str | None, float | None, Counter[str]]:
    from mncompress import runtime
    from mncompress.calibration import run_network
    from mncompress.compression import certify, compress_network
    from mncompress.data import load_dataset
    from mncompress.export import check_export, write_onnx
    from mncompress.training import train
    from mncompress.types import Plan, TrainConfig, from_json, to_json

    fields = dict(recipe)
    task, features, outputs, scale = (fields.pop(name) for name in ("task", "features", "outputs", "scale"))
    with tempfile.TemporaryDirectory() as folder:
        make_data(Path(folder) / "data.npz", rng, task, features, outputs, scale)
        config = TrainConfig(data=f"{folder}/data.npz", **fields)
        network = train(config).network()
        dataset = load_dataset(config.data, seed=config.seed)
        compressed = compress_network(network, dataset, budget)
        if rng.random() < 0.3:
            compressed = compress_network(network, dataset, budget, plan=edit_plan(compressed.plan, network, rng))
        files = {"original": (network, False), "compressed": (compressed.network, False), "portable": (compressed.network, True)}
        values = {}
        for name, (module, inline) in files.items():
            path = Path(folder) / f"{name}.onnx"
            write_onnx(module, path, opset_version=rng.choice((18, 20, 21)), inline=inline, metadata={})
            check_export(path, module, dataset.test.x)      # raises where one of the three differs
            values[name] = runtime.run(runtime.make_session(path), dataset.test.x)
        certificate = certify(network, compressed, dataset.test.x)
        plan = from_json(Plan, json.loads(json.dumps(to_json(compressed.plan), allow_nan=False)), where="plan")
        again = compress_network(network, dataset, budget, plan=plan)
        same = np.array_equal(run_network(again.network, dataset.test.x), run_network(compressed.network, dataset.test.x))
    kinds = Counter(decision.kind for decision in compressed.plan.decisions)
    expected = sum((*fields["hidden"], *([dataset.out_features] if fields["output_activation"] else [])))
    if kinds.total() != expected:
        return f"{kinds.total()} decisions for {expected} neurons", None, kinds
    found = kinds + count_structures(network, compressed)
    if not same:
        return "its plan gives another network", None, found
    if not all(np.isfinite(output).all() for output in values.values()):
        return "an output is not finite", None, found
    if certificate.bounds is None:
        return None, None, found
    changes = [np.abs(values[name] - values["original"].astype(np.float64)) for name in ("compressed", "portable")]
    used = max(_share(change, certificate.bounds) for change in changes)
    return (f"a change is {used:.3g} of its bound" if used > 1 else None), used, found


def edit_plan(plan: object, network: object, rng: random.Random) -> object:
    """Layers at random ranks, and refitted at random."""
    from mncompress.types import LayerPlan

    known, layers = {each.layer: each for each in plan.layers}, []
    left = {decision.layer for decision in plan.decisions if decision.left}
    for number, layer in enumerate(network.activated_layers):
        own = known.get(number, LayerPlan(number))
        if number not in left and not layer.residual:
            own = LayerPlan(number, ridge=rng.choice((None, 1e-4, 0.1)), factored=rng.randint(0, layer.linear.out_features))
        layers += [own] if own != LayerPlan(number) else []
    return dataclasses.replace(plan, layers=tuple(layers))


def count_structures(network: object, compressed: object) -> Counter[str]:
    """Networks by what is special about them."""
    plan, spec = compressed.plan, network.spec
    special = {
        "that lost neurons": any(decision.left for decision in plan.decisions),
        "with a bypass": any(each.rank for each in plan.layers),
        "with layers of low rank": any(each.factored for each in plan.layers),
        "with refitted layers": any(each.ridge is not None for each in plan.layers),
        "of 3 or 4 hidden layers": len(spec.sizes) > 4,
        "with residual connections": any(layer.residual for layer in network.layers),
        **{f"with {family}": any(each.family == family for each in spec.activations) for family in set(FAMILIES)}}
    return Counter({f"networks {name}": 1 for name, holds in special.items() if holds})


def _share(change: np.ndarray, bounds: np.ndarray) -> float:
    """The largest change in units of its bound; no change is none of no bound."""
    return float(np.where(change == 0, 0.0, change / np.maximum(bounds, 1e-300)).max())
