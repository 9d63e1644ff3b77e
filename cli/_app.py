"""The application: its commands in the order of the pipeline, and `--version`.

Starting up imports neither torch nor onnxruntime: a command imports the library function it calls when it is called.
"""

from importlib.metadata import version
from typing import Annotated, Any

import typer

from mncompress.memory import keep_freed_memory

from ._benchmark import benchmark
from ._completion import CompletingGroup
from ._compress import compress
from ._evaluate import evaluate
from ._inspect import inspect
from ._interrupts import ending_at_once
from ._quickstart import quickstart
from ._reproduce import reproduce
from ._train import train


class App(typer.Typer):
    """Ends at once when it is interrupted before its work begins."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line."""
        with ending_at_once():
            return super().__call__(*args, **kwargs)


app = App(
    name="mncompress",
    cls=CompletingGroup,
    help="Train networks with learned activations, replace each activation by the cheapest thing that computes the "
         "same, and export to ONNX.",
    epilog="Exit codes: 0 done, 1 an error told in one line on stderr, 2 wrong usage, 130 interrupted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def print_version(wanted: bool) -> None:
    """Print the version of the installed package and stop."""
    if wanted:
        typer.echo(f"mncompress {version('mncompress')}")
        raise typer.Exit


KEEPING = {"quickstart", "train", "compress", "reproduce"}
"""Commands that keep the memory which they free, being faster so; what the others measure is an ordinary process."""


@app.callback()
def main(
    context: typer.Context,
    show_version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=print_version, help="Print the version and exit."),
    ] = False,
) -> None:
    """Options that stand before the command."""
    if context.invoked_subcommand in KEEPING:
        keep_freed_memory()


for command in (quickstart, train, compress, evaluate, benchmark, inspect, reproduce):
    app.command()(command)
