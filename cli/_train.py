"""`mncompress train`: a recipe and options in, a run folder out."""

import contextlib
import os
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mncompress.errors import CheckpointError
from mncompress.files import new_folder
from mncompress.types import ACTS, ENDS, TrainConfig, to_json

from ._completion import offer_option
from ._options import DataDir, Json, Out, Quiet, data_option
from ._output import TextTable, open_output
from ._recipe import make_config, read_recipe

if TYPE_CHECKING:
    from mncompress.checkpoint import Run
    from mncompress.data import Dataset
    from mncompress.training import TrainProgress


def option(name: str, help: str, *, negative: bool = False, metavar: str | None = None) -> Any:
    """An option for the field `name` of `TrainConfig`, which is where its default is."""
    flag = "--" + name.replace("_", "-")
    default = getattr(TrainConfig, name)
    shown = ",".join(map(str, default)) if isinstance(default, tuple) else str(default).lower()
    return typer.Option(f"{flag}/--no-{flag[2:]}" if negative else flag, metavar=metavar, show_default=False,
                        autocompletion=offer_option(name),
                        help=f"{help}  [default: {shown}]")


def train(
    context: typer.Context,
    recipe: Annotated[Path | None, typer.Argument(
        metavar="RECIPE.toml", help="The long option names with underscores; the command line overrides it.")] = None,
    data: Annotated[str | None, data_option(f"  [default: {TrainConfig.data}]")] = None,
    data_dir: DataDir = None,
    activation: Annotated[str | None, option(
        "activation", "meta, vaf, agsig, frelu, warp:ACT or fixed:ACT; a comma-separated list gives one per layer.",
        metavar="NAME")] = None,
    inner: Annotated[str | None, option(
        "inner", f"The activation inside meta and vaf: {', '.join(ACTS)}.", metavar="ACT")] = None,
    inner_width: Annotated[int | None, option("inner_width", "Neurons in an inner layer.")] = None,
    inner_layers: Annotated[int | None, option("inner_layers", "Inner layers of meta.")] = None,
    ends: Annotated[str | None, option(
        "ends", f"What the input and output neuron of meta apply: {', '.join(ENDS)}.", metavar="ENDS")] = None,
    shared: Annotated[bool | None, option("shared", "One activation per layer, not per neuron.", negative=True)] = None,
    hidden: Annotated[str | None, option("hidden", "Neurons of each hidden layer, or none.", metavar="N,N")] = None,
    output_activation: Annotated[bool | None, option(
        "output_activation", "An activation on the output layer too.", negative=True)] = None,
    residual: Annotated[bool | None, option(
        "residual", "Residual connections across hidden layers of equal width.", negative=True)] = None,
    init: Annotated[str | None, option("init", "matched, uniform or glorot.")] = None,
    epochs: Annotated[int | None, option("epochs", "Passes over the training split.")] = None,
    batch_size: Annotated[int | None, option("batch_size", "Samples in a step.")] = None,
    lr: Annotated[float | None, option("lr", "Adam's learning rate.")] = None,
    activation_lr: Annotated[float | None, option(
        "activation_lr", "Learning rate of the activations' parameters, as a multiple of --lr.")] = None,
    schedule: Annotated[str | None, option("schedule", "Learning rate over the epochs: constant, cosine or linear.")] = None,
    warmup: Annotated[int | None, option("warmup", "Epochs in which the learning rate first rises.")] = None,
    weight_decay: Annotated[float | None, option("weight_decay", "Decoupled weight decay of the linear layers.")] = None,
    batch_norm: Annotated[bool | None, option(
        "batch_norm", "Batch-normalize pre-activations while training; folded away at the end.", negative=True)] = None,
    select: Annotated[str | None, option(
        "select", "Keep the weights of the last or of the best epoch: by accuracy, or by loss for regression.")] = None,
    patience: Annotated[int | None, option(
        "patience", "Stop a network after so many epochs without improvement and keep its best; 0: never.")] = None,
    seed: Annotated[int | None, option("seed", "Of splits, generated data, initialisation and shuffling.")] = None,
    replicates: Annotated[int | None, option("replicates", "Networks trained side by side.")] = None,
    order: Annotated[str | None, option("order", "Replicates see shared batches, or each shuffles its own.")] = None,
    keep: Annotated[int | None, option("keep", "Keep only the best networks, so many; 0: all.")] = None,
    device: Annotated[str | None, option("device", "auto, cpu, cuda or mps.")] = None,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in --out.")] = False,
    overwrite: Annotated[bool, typer.Option(
        "--overwrite", help="Replace the run in --out, and what compress and inspect made of it there.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Log the metrics into the run's folder, too.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a network with learned activations."""
    if resume and overwrite:
        raise typer.BadParameter("--resume and --overwrite exclude each other", param_hint="--resume")
    if resume and out is None:
        raise typer.BadParameter("--resume needs the folder of the run in --out", param_hint="--resume")
    base = read_saved(out) if resume and out else {}
    if resume and not base and not quiet:
        typer.echo(f"no run in {out} yet: starting from the beginning", err=True)
    config = make_config({**base, **(read_recipe(recipe) if recipe else {})}, context.params, recipe)
    folder = out or new_folder(Path("runs"), make_run_name(config))

    from mncompress.training import train as train_networks

    with open_output(as_json, quiet) as output:
        with resumable(folder, config.epochs), output.bar() as update:
            def report(progress: "TrainProgress") -> None:
                fraction = (progress.epoch - 1 + progress.step / progress.steps) / progress.epochs
                update(fraction, describe(progress), line=progress.step == progress.steps)

            run = train_networks(config, out=folder, resume=resume, overwrite=overwrite, tensorboard=tensorboard, progress=report,
                                 loaded=lambda dataset: output.status(describe_data(dataset)))
        output.show(make_document(run, folder), make_table(run), f"run: {folder}", essential=str(folder))


def make_document(run: "Run", folder: Path) -> dict[str, Any]:
    """The JSON document of a run."""
    return {"folder": str(folder), "best": run.best, "metric": run.record.metric,
            "validation_metric": run.validation_metric, "epoch": run.record.epoch, "kept": run.record.kept,
            "data_hash": run.data_hash, "config": to_json(run.config)}


def make_table(run: "Run") -> TextTable:
    """One line for each replicate."""
    def name(k: int) -> str:
        return f"{k} (best)" if k == run.best else f"{k}" if k in run.record.kept else f"{k} (not kept)"

    rows = [(name(k), "diverged" if value is None else written(value, run.record.metric), "-" if epoch is None else f"{epoch}")
            for k, (value, epoch) in enumerate(zip(run.validation_metric, run.record.epoch, strict=True))]
    return TextTable(("replicate", f"validation {run.record.metric}", "epoch"), rows)


def read_saved(folder: Path) -> dict[str, Any]:
    """The configuration of the run to continue, so that its options need not be given again.

    It is empty where a run was interrupted before the end of its first epoch, which left nothing to continue from.

    Raises:
        CheckpointError: there is no such folder, or its `config.json` is damaged.
    """
    if not os.path.lexists(folder):
        raise CheckpointError(f"{folder} does not exist, so there is no run to continue; start one without --resume")
    from mncompress.checkpoint import load_record

    saved: dict[str, Any] = to_json(load_record(folder).config) if (folder / "config.json").exists() else {}
    return saved


def make_run_name(config: TrainConfig) -> str:
    """A folder name that tells runs apart: data, activation and hidden layers."""
    data = Path(config.data).stem if config.data.endswith(".npz") else config.data
    words = data, config.activation, "x".join(map(str, config.hidden)) or "none"
    return re.sub(r"[^\w.]+", "-", "-".join(words))


def describe_data(dataset: "Dataset") -> str:
    """One line about what the data was taken for."""
    rows = ", ".join(f"{len(getattr(dataset, split))} {split}" for split in ("train", "calibration", "validation", "test"))
    if dataset.task == "classification":
        outputs = f"{dataset.out_features} classes"
    else:
        hint = "" if (dataset.train.y % 1).any() else "; all are whole numbers: as integers they would be classes"
        targets = "1 target" if dataset.out_features == 1 else f"{dataset.out_features} targets"
        outputs = f"{targets} (regression{hint})"
    return f"{dataset.in_features} features, {outputs}; rows: {rows}"


def describe(progress: "TrainProgress") -> str:
    """One line about where training stands."""
    name, value = progress.metric_name, progress.metric
    metric = "" if value is None else f"  {name} {written(value, name)}"
    speed = f"{progress.networks_epochs_per_second:.3g} networks x epochs/s"
    return f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.4f}{metric}  {speed}"


def written(value: float, metric: str) -> str:
    """An accuracy to four places, an RMSE, which can be of any size, to four digits."""
    return f"{value:.4f}" if metric == "accuracy" else f"{value:#.4g}"


@contextlib.contextmanager
def resumable(folder: Path, epochs: int) -> Iterator[None]:
    """On Ctrl-C tell how to continue, where there is a checkpoint to continue from."""
    try:
        yield
    except KeyboardInterrupt:
        if (folder / "checkpoint.safetensors").is_file():
            place = shlex.quote(str(folder))
            raise KeyboardInterrupt(f"continue with: mncompress train --resume --epochs {epochs} --out {place}") from None
        raise
