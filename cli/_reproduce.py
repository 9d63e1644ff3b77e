"""`mncompress reproduce`: the paper's figures with replicates, intervals and verdicts."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mncompress.files import new_folder
from mncompress.types import TrainConfig, null_not_finite, to_json

from ._completion import EXPERIMENTS, data_names, offer, offer_option
from ._options import DataDir, Json, Out, Quiet, check_choice, check_options
from ._output import Output, TextTable, open_output

if TYPE_CHECKING:
    from mncompress.experiments import Plan, Reproduction, Verdict

HOUR, MINUTE = 3600, 60


def reproduce(
    name: Annotated[str, typer.Argument(
        metavar="NAME", help="fig4, fig5, fig6, fig7, fig8, fig9, fig10, families, or all.", show_default=False,
        autocompletion=offer(EXPERIMENTS))],
    data: Annotated[str | None, typer.Option(
        "--data", metavar="NAME|FILE.npz", autocompletion=offer(data_names),
        help="As for train; figures need classes.  [default: mnist, and every data set for families]")] = None,
    data_dir: DataDir = None,
    replicates: Annotated[int, typer.Option("--replicates", help="Networks for each cell; intervals need at least 2.")] = 32,
    epochs: Annotated[int, typer.Option("--epochs", help="Passes over the training split.")] = 100,
    device: Annotated[str, typer.Option(
        "--device", help="auto, cpu, cuda or mps.", autocompletion=offer_option("device"))] = "auto",
    workers: Annotated[int, typer.Option(
        "--workers", min=1, help="Processes that compute side by side; on a GPU, several keep it busy.")] = 1,
    out: Out = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue in --out: what is computed there stays.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Compute the paper's figures again. With intervals, and a verdict on each of its claims."""
    check_choice(name, EXPERIMENTS, "NAME")
    if resume and out is None:
        raise typer.BadParameter("--resume needs the folder to continue in --out", param_hint="--resume")
    options = {"data": data or "mnist", "data_dir": data_dir, "replicates": replicates, "epochs": epochs, "device": device}
    settings = check_options(TrainConfig, options)
    folder = out or new_folder(Path("runs"), f"reproduce-{name}")

    from mncompress.experiments import reproduce as reproduce_experiments

    with open_output(as_json, quiet) as output:
        try:
            with output.bar() as update:
                done = reproduce_experiments(name, settings, folder, data_sets=data and (data,), resume=resume, workers=workers,
                                             tell=output.status, progress=lambda share, text: update(share, text, line=False),
                                             planned=lambda plan: tell_plan(output, plan, settings))
        except KeyboardInterrupt:
            if not folder.exists():
                raise KeyboardInterrupt("nothing was finished yet") from None
            raise KeyboardInterrupt("finished cells are kept; continue with the same options and "
                                    f"--resume --out {shlex.quote(str(folder))}") from None
        output.show(make_document(done), make_table(done.verdicts), f"files: {folder}", essential=str(folder))


def tell_plan(output: Output, plan: "Plan", settings: TrainConfig) -> None:
    """What is about to be computed, and how long it may take."""
    parts = ", ".join(f"{name} {count}" for name, count in plan.experiments.items())
    duration = f"about {describe_duration(plan.seconds)} of training one cell after the other"
    output.status(f"{plan.cells} cells ({parts}; shared ones count once), {plan.finished} finished; to train: "
                  f"{plan.networks} networks for {plan.epochs} epochs, {duration}")
    if settings.replicates == 1:
        output.status("a single replicate gives no intervals, and every claim stays undecided; use --replicates 2 or more")


def describe_duration(seconds: float) -> str:
    """A duration in the unit that fits."""
    if seconds >= HOUR:
        return f"{seconds / HOUR:.1f} h"
    return f"{seconds / MINUTE:.1f} min" if seconds >= MINUTE else f"{seconds:.0f} s"


def make_document(done: "Reproduction") -> dict[str, Any]:
    """The JSON document."""
    document: dict[str, Any] = null_not_finite(to_json(done))
    return document


def make_table(verdicts: tuple["Verdict", ...]) -> TextTable:
    """One line for each claim."""
    rows = [(verdict.figure, verdict.statement, verdict.outcome) for verdict in verdicts]
    return TextTable(("figure", "claim", "verdict"), rows, text_columns=frozenset({"claim", "verdict"}))
