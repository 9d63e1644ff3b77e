"""The one sink of the command line: results on stdout, progress on stderr.

While an `Output` is open, whatever a library prints goes to stderr, so that stdout holds the result and nothing else.
"""

import contextlib
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TextIO

from ._interrupts import begin_work

PIPE_WIDTH = 1000
"""Columns where stdout is no terminal: wide enough that no table is folded there."""


class Update(Protocol):
    """Reports how far a task is; `line` marks a moment worth a line of its own where there is no bar."""

    def __call__(self, fraction: float, text: str, *, line: bool) -> None:
        """Report `fraction` in [0, 1], and `text` beside it."""


@dataclass(frozen=True)
class TextTable:
    """A table of strings; every column but the first is aligned to the right where it holds numbers."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    text_columns: frozenset[str] = frozenset()
    """Columns aligned to the left, besides the first."""


@dataclass(frozen=True)
class Output:
    """Where a command prints, and how much."""

    as_json: bool
    quiet: bool
    stdout: TextIO

    @property
    def width(self) -> int | None:
        """Columns of the terminal that stdout is; None where it is none."""
        return shutil.get_terminal_size().columns if self.stdout.isatty() else None

    def status(self, text: str) -> None:
        """Say on stderr what is being done."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def bar(self) -> Iterator[Update]:
        """Yield the update of a progress bar: a bar on a terminal, elsewhere lines, and nothing with `--quiet`."""
        if self.quiet or not sys.stderr.isatty():
            yield self._update_line
            return
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        columns = BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn()
        with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as progress:
            task = progress.add_task("starting", total=1.0)

            def update(fraction: float, text: str, *, line: bool) -> None:
                progress.update(task, completed=fraction, description=text)

            yield update

    def show(self, document: Any, *blocks: str | TextTable, essential: str) -> None:
        """Print the result: the JSON `document`, or with `--quiet` the `essential` line, or else the `blocks`."""
        if self.as_json:
            blocks = (json.dumps(document, indent=2, allow_nan=False),)
        elif self.quiet:
            blocks = (essential,)
        for block in blocks:
            if isinstance(block, TextTable):
                self._print_table(block)
            else:
                print(block, file=self.stdout)
        self.stdout.flush()  # so that a full disk or a closed pipe is told now

    def _update_line(self, fraction: float, text: str, *, line: bool) -> None:
        if line:
            self.status(text)

    def _print_table(self, table: TextTable) -> None:
        from rich.console import Console
        from rich.table import Table

        drawn = Table(box=None, pad_edge=False, header_style="bold")
        for position, name in enumerate(table.columns):
            drawn.add_column(name, justify="left" if position == 0 or name in table.text_columns else "right")
        for row in table.rows:
            drawn.add_row(*row)
        Console(file=self.stdout, width=self.width or PIPE_WIDTH, markup=False, highlight=False, emoji=False).print(drawn)


@contextlib.contextmanager
def open_output(as_json: bool, quiet: bool) -> Iterator[Output]:
    """Yield the sink, with everything else that is printed on stdout meanwhile sent to stderr."""
    begin_work()
    output = Output(as_json, quiet, sys.stdout)
    with contextlib.redirect_stdout(sys.stderr):
        yield output
