"""Train, compress and describe the networks of this folder again.

    python models/rebuild.py --data-dir DATA_DIR [--keep-weights] [NAME ...]

DATA_DIR holds torchvision's MNIST. With `--keep-weights` the networks stay and are only compressed again. Each folder is
written beside its destination and replaces it when it is complete. Training is deterministic on the CPU with the same number of
threads and the same versions, not beyond.
"""

import argparse
import json
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import mncompress as mn
from mncompress import runtime
from mncompress.checkpoint import load_record, load_tensors
from mncompress.data import load_dataset
from mncompress.files import atomic_folder, write_text
from mncompress.types import Report

HERE = Path(__file__).parent
SAMPLES = 64
"""Test rows that are stored with their outputs, so that a file can be tried without the data set."""
COPIED = ("config.json", "model.safetensors"), ("original.onnx", "compressed.onnx", "portable.onnx", "report.json")

MNIST = {"data": "mnist", "hidden": [7], "epochs": 30, "schedule": "cosine", "lr": 5e-3, "replicates": 8, "keep": 1,
         "select": "best"}
SURROGATE = {"activation": "vaf", "inner": "tanh", "hidden": [8, 8], "epochs": 400, "batch_size": 32, "schedule": "cosine",
             "lr": 1e-2, "replicates": 8, "keep": 1, "select": "best"}


@dataclass(frozen=True)
class Model:
    """A recipe with the budget of its compression, and what it is for."""

    purpose: str
    recipe: dict[str, Any]
    max_drop: float


MODELS = {
    "mnist-3-meta-relu": Model("The network whose learned activations figure 10 of the meta-neuron paper draws.",
                               MNIST | {"activation": "meta", "inner": "relu", "hidden": [3]}, 0.1),
    "mnist-7-meta-tanh-gated": Model("Meta-neurons with gated ends, the form that learns as much as a vaf.",
                                     MNIST | {"activation": "meta", "inner": "tanh", "ends": "gated", "activation_lr": 5.0}, 0.1),
    "mnist-7-vaf-relu": Model("Variable activation subnetworks: every activation is exactly piecewise linear.",
                              MNIST | {"activation": "vaf", "inner": "relu"}, 0.1),
    "mnist-7-agsig": Model("Sigmoids with a learned height and slope.", MNIST | {"activation": "agsig"}, 0.1),
    "mnist-7-frelu": Model("ReLUs with learned shifts.", MNIST | {"activation": "frelu"}, 0.1),
    "mnist-7-warp-tanh": Model("tanh stretched and shifted along both axes.", MNIST | {"activation": "warp:tanh"}, 0.1),
    "mnist-64-vaf-tanh": Model("A middling width, inner width 16: where compression begins to pay in standard operators.",
                               MNIST | {"activation": "vaf", "inner": "tanh", "inner_width": 16, "hidden": [64], "replicates": 2,
                                        "epochs": 15, "lr": 2e-3}, 0.1),
    "mnist-256-vaf-tanh": Model("A wide network; its activations become native ones and tables side by side.",
                                MNIST | {"activation": "vaf", "inner": "tanh", "hidden": [256], "replicates": 1, "epochs": 15,
                                         "lr": 1e-3}, 0.1),
    "mnist-16x3-meta-relu-residual": Model("A deep network with residual connections across its layers.",
                                           MNIST | {"activation": "meta", "inner": "relu", "hidden": [16, 16, 16],
                                                    "residual": True, "lr": 2e-3}, 0.1),
    "bessel-8x2-vaf-tanh": Model("A surrogate of J0(20 x) on [-1, 1].", SURROGATE | {"data": "function:bessel"}, 1.0),
    "exp-sin-8x2-vaf-tanh": Model("A surrogate of exp(sin(pi x) + y^2) on [-1, 1]^2.",
                                  SURROGATE | {"data": "function:exp_sin"}, 1.0),
    "gaussian-8x2-vaf-tanh": Model("A surrogate of a normal density with varying width.",
                                   SURROGATE | {"data": "function:gaussian"}, 1.0),
}


def rebuild(name: str, data_dir: str | None, *, keep_weights: bool) -> Report:
    model = MODELS[name]
    recipe = render_recipe(model.recipe)
    config = mn.TrainConfig(**{**model.recipe, "hidden": tuple(model.recipe["hidden"]), "device": "cpu", "data_dir": data_dir})
    with tempfile.TemporaryDirectory() as scratch, atomic_folder(HERE / name, overwrite=True) as folder:
        if keep_weights:
            run = load_again(HERE / name)
            (Path(scratch) / "run").mkdir()
            for file in COPIED[0]:
                shutil.copyfile(HERE / name / file, Path(scratch) / "run" / file)
        else:
            run = mn.train(config, out=Path(scratch) / "run")
        result = mn.compress(run, mn.Budget(max_drop=model.max_drop), out=Path(scratch) / "run" / "compressed",
                             data_dir=data_dir)
        for source, names in zip((Path(scratch) / "run", Path(scratch) / "run" / "compressed"), COPIED, strict=True):
            for file in names:
                shutil.copyfile(source / file, folder / file)
        forget_places(folder)
        save_predictions(folder, config)
        write_text(folder / "recipe.toml", recipe)
        write_text(folder / "README.md", render_card(name, model, result.report))
    return result.report


def load_again(folder: Path) -> mn.Run:
    """The run whose only kept network is in `folder`."""
    tensors, _ = load_tensors(folder / "model.safetensors")
    stacked = {name: value[None] if name.startswith("body.") else value for name, value in tensors.items()}
    return mn.Run(load_record(folder), stacked)


def render_recipe(recipe: dict[str, Any]) -> str:
    return "".join(f"{key} = {json.dumps(value)}\n" for key, value in recipe.items())


def forget_places(folder: Path) -> None:
    """Paths of this machine are nobody's business."""
    for name, field in (("config.json", "config"), ("report.json", "config")):
        path = folder / name
        document = json.loads(path.read_text(encoding="utf-8"))
        document[field]["data_dir"] = None
        write_text(path, json.dumps(document, indent=1) + "\n")


def save_predictions(folder: Path, config: mn.TrainConfig) -> None:
    """What the compressed network says on the whole test split, and a few rows with all outputs."""
    test = load_dataset(config.data, data_dir=config.data_dir, seed=config.seed).test
    session = runtime.make_session(folder / "compressed.onnx", providers=("cpu",))
    outputs = session.run(None, {"input": test.x.astype(np.float32)})[0]
    classes = test.y.ndim == 1
    np.savez_compressed(
        folder / "predictions.npz", predictions=outputs.argmax(1).astype(np.uint8) if classes else outputs,
        targets=test.y.astype(np.uint8) if classes else test.y, inputs=test.x[:SAMPLES], outputs=outputs[:SAMPLES])


def render_card(name: str, model: Model, report: Report) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items() if count)
    before, after = report.original, report.compressed
    if before.accuracy is not None:
        quality = ("Test accuracy", f"{before.accuracy:.4f}", f"{after.accuracy:.4f}")
    else:
        quality = ("Test RMSE", f"{before.loss**0.5:.4g}", f"{after.loss**0.5:.4g}")
    speedups = ", ".join(f"{row.ratio:.2f} at batch {row.batch}" for row in report.speedups)
    options = " ".join(f"`{key} = {json.dumps(value)}`" for key, value in model.recipe.items())
    bound = "none" if report.logit_error_bound is None else f"{report.logit_error_bound:.3g}"
    return f"""# {name}

{model.purpose}

| | original | compressed |
|---|---|---|
| {' | '.join(quality)} |
| Multiply-adds | {before.macs} | {after.macs} |
| Parameters | {before.parameters} | {after.parameters} |
| Bytes of the ONNX file | {before.file_bytes} | {after.file_bytes} |

Activations became: {kinds}. Largest change of an output on the test split {report.max_abs_logit_error:.3g}, proven bound {bound}.
Speed of the compressed network over the original under ONNX Runtime on one CPU thread, with the kernel library, above 1 is faster:
{speedups}.

Recipe: {options}. Input: raw features of `{model.recipe["data"]}`; the test split is never used for training or choosing.

`predictions.npz` has the compressed network's predictions on the whole test split with the targets, and for the first {SAMPLES}
test rows the inputs with all outputs. Made by `python models/rebuild.py {name}`.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="by default all")
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--keep-weights", action="store_true", help="compress the networks that are here, without training")
    options = parser.parse_args()
    if unknown := set(options.names) - MODELS.keys():
        parser.error(f"unknown {', '.join(sorted(unknown))}; choose from {', '.join(MODELS)}")
    for name in options.names or MODELS:
        report = rebuild(name, options.data_dir, keep_weights=options.keep_weights)
        before, after = (model.accuracy or model.loss for model in (report.original, report.compressed))
        print(f"{name}: {before:.6g} before, {after:.6g} after; {dict(report.kinds)}", flush=True)


if __name__ == "__main__":
    main()
