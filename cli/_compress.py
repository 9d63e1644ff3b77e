"""`mncompress compress`: a run folder in, ONNX files and a report out."""

from pathlib import Path
from typing import Annotated

import typer

from mncompress.files import new_folder
from mncompress.types import Budget

from ._completion import offer_field
from ._options import DataDir, Json, Out, Overwrite, Quiet, check_options, data_option, parse_count
from ._output import open_output
from ._summary import show_result


def parse_replicate(text: str) -> int | None:
    """Parse `--replicate`: a number, or None for `best`.

    Raises:
        typer.BadParameter: the text is neither.
    """
    if text == "best":
        return None
    number = parse_count(text)
    if number is None:
        raise typer.BadParameter(f"{text!r} is neither a number nor best", param_hint="--replicate")
    return number


def compress(
    run_dir: Annotated[Path, typer.Argument(metavar="RUN_DIR", help="A folder written by train.", show_default=False)],
    max_drop: Annotated[float | None, typer.Option(
        help="Allowed loss on the validation split: points of accuracy, or per cent of RMSE for regression.")] = None,
    max_logit_error: Annotated[float | None, typer.Option(help="Allowed change of any output.")] = None,
    max_error_bound: Annotated[float | None, typer.Option(
        help="Allowed change of any output, proven for all inputs that stay in the data's ranges of features and pre-activations.",
    )] = None,
    preset: Annotated[str | None, typer.Option(
        help=f"exact, default or aggressive.  [default: {Budget.preset}]", show_default=False,
        autocompletion=offer_field(Budget, "preset"))] = None,
    target_macs: Annotated[str | None, typer.Option(
        metavar="N|P%", help="Multiply-adds to come down to, or their share of the original's, with the best accuracy.")] = None,
    target_latency: Annotated[float | None, typer.Option(
        metavar="US", help="Microseconds to come down to, for a batch of one on the CPU under one thread.")] = None,
    include: Annotated[list[str] | None, typer.Option(
        metavar="PATTERN", help="Activated layers that may change, by number or name such as body.0.*; repeatable.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(metavar="PATTERN", help="Those that may not; repeatable.")] = None,
    plan: Annotated[Path | None, typer.Option(metavar="FILE", help="Carry out this plan.json, perhaps edited.")] = None,
    finetune: Annotated[int, typer.Option(metavar="N", min=0, help="Epochs of distillation afterwards.")] = 0,
    target: Annotated[str | None, typer.Option(
        help="What is to be fast: native kernels, portable standard operators, or auto: native where they are built.  "
             f"[default: {Budget.target}]", show_default=False, autocompletion=offer_field(Budget, "target"))] = None,
    replicate: Annotated[str, typer.Option(metavar="K|best", help="Which network of the run.")] = "best",
    data: Annotated[str | None, data_option("  [default: the run's]")] = None,
    data_dir: DataDir = None,
    opset: Annotated[int, typer.Option(help="ONNX opset of the files.")] = 18,
    out: Out = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Replace learned activations by what is cheap, and write ONNX. Each becomes the cheapest thing that computes the same."""
    limits = {"max_drop": max_drop, "max_logit_error": max_logit_error, "max_error_bound": max_error_bound, "preset": preset,
              "target": target, "target_macs": target_macs, "target_latency": target_latency, "include": tuple(include or ()),
              "exclude": tuple(exclude or ())}
    given = {name: value for name, value in limits.items() if value not in (None, ())}
    budget = check_options(Budget, given) if given or plan is None else None
    number = parse_replicate(replicate)
    folder = out or new_folder(run_dir, "compressed")

    from mncompress.checkpoint import load_run
    from mncompress.export import check_opset
    from mncompress.pipeline import compress as compress_run
    from mncompress.pipeline import load_plan

    if reason := check_opset(opset):
        raise typer.BadParameter(reason, param_hint="--opset")
    with open_output(as_json, quiet) as output:
        show_result(output, compress_run(
            load_run(run_dir), budget, out=folder, overwrite=overwrite, replicate=number, data=data, data_dir=data_dir,
            opset_version=opset, plan=None if plan is None else load_plan(plan), finetune=finetune, progress=output.status))
