"""`mncompress evaluate`: the accuracy or the error of any ONNX file on a data set."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mncompress.types import to_json

from ._options import DataDir, Json, Quiet, data_option
from ._output import open_output

if TYPE_CHECKING:
    from mncompress.benchmark import Evaluation

LONGEST_SEED = 20
"""Digits; a longer number in a file was not written by compress."""


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL.onnx", help="Any ONNX file from a batch of rows in float32 to logits, "
                                          "probabilities or targets.",
                                          show_default=False)],
    data: Annotated[str, data_option()],
    data_dir: DataDir = None,
    seed: Annotated[int | None, typer.Option(
        help="Draws the test split where the data has none of its own.  [default: the run's, as the file has it]",
        show_default=False)] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure any ONNX file on the test split of a data set."""
    from mncompress.benchmark import evaluate as evaluate_model
    from mncompress.data import load_dataset
    from mncompress.runtime import make_session, model_info

    with open_output(as_json, quiet) as output:
        session = make_session(model)
        written = model_info(session, name=str(model)).metadata.get("seed", "")
        if seed is None:
            seed = int(written) if written.isdecimal() and len(written) < LONGEST_SEED else 0
        test = load_dataset(data, data_dir=data_dir, seed=seed).test
        evaluation = evaluate_model(session, test.x, test.y)
        metric = describe(evaluation)
        output.show(to_json(evaluation), f"{metric}, loss {evaluation.loss:.6g} on {evaluation.samples} test samples",
                    essential=metric)


def describe(evaluation: "Evaluation") -> str:
    """The accuracy, or for regression the root mean squared error."""
    return f"rmse {evaluation.rmse:.6g}" if evaluation.accuracy is None else f"accuracy {evaluation.accuracy:.4f}"
