"""The one table from errors to exit codes.

| what happened | stderr | exit |
|---|---|---|
| `MncompressError`, `OSError` (no space, no permission), `MemoryError` | one line | 1 |
| an option whose value cannot be parsed, or cannot be used whatever it meets | usage and one line, by Typer | 2 |
| Ctrl-C | one line, with how to go on where there is a way | 130 |
| anything else is a bug | the traceback | 1 |
"""

import contextlib
import errno
from collections.abc import Iterator
from typing import Any

import typer
from typer.core import TyperGroup

from mncompress.errors import MncompressError

from ._interrupts import was_interrupted


class CommandGroup(TyperGroup):
    """Runs a command and turns its errors into exit codes."""

    def make_context(self, *args: Any, **kwargs: Any) -> Any:
        """Parse the command line."""
        with exit_codes():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was parsed."""
        with exit_codes():
            return super().invoke(ctx)


@contextlib.contextmanager
def exit_codes() -> Iterator[None]:
    """Apply the table of this module to what is raised inside.

    Raises:
        typer.Exit: with the code of the table. A closed pipe is left to Typer, which ends silently.
    """
    try:
        try:
            yield
        except Exception as error:
            if was_interrupted():       # of which a library made something else
                raise KeyboardInterrupt from error
            raise
    except MncompressError as error:
        fail(f"error: {error}", 1)
    except OSError as error:
        if error.errno == errno.EPIPE:
            raise
        where = f"{error.filename}: " if error.filename else ""
        fail(f"error: {where}{error.strerror or error}", 1)
    except MemoryError as error:
        fail(f"error: not enough memory: {error}" if str(error) else "error: not enough memory", 1)
    except KeyboardInterrupt as interrupt:
        fail("; ".join(["interrupted", *map(str, interrupt.args)]), 130)


def fail(message: str, code: int) -> None:
    """Say `message` in one line on stderr and exit with `code`."""
    typer.echo("mncompress: " + " ".join(message.split()), err=True)
    raise typer.Exit(code)
