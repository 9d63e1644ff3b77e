"""The options that several commands share, and the parsing of comma-separated lists."""

import contextlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from mncompress.errors import ConfigError
from mncompress.types import from_json

from ._completion import data_names, offer

T = TypeVar("T")
MOST_DIGITS = 18
DATA_HELP = ("digits, mnist, fashion-mnist, kmnist, mnist1d, function:NAME, or an npz file with x_train, y_train, x_test "
             "and y_test.")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, and only the essential result.")]
Out = Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Output folder; by default a new one.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is in the output folder.")]
DataDir = Annotated[str | None, typer.Option(
    "--data-dir", metavar="DIR", help="Where torchvision's data sets are, or are downloaded to.")]


def data_option(remark: str = "") -> Any:
    """The option `--data`, with a remark behind its help."""
    return typer.Option("--data", metavar="NAME|FILE.npz", autocompletion=offer(data_names), help=DATA_HELP + remark)


def check_options(cls: type[T], values: dict[str, Any]) -> T:
    """Build the dataclass `cls` from the values of options.

    Raises:
        typer.BadParameter: one of them cannot be used.
    """
    with usage():
        return from_json(cls, values, where="options")


@contextlib.contextmanager
def usage() -> Iterator[None]:
    """Turn what the library says about the values of options into an error of usage.

    Raises:
        typer.BadParameter: one of them cannot be used.
    """
    try:
        yield
    except ConfigError as error:
        raise typer.BadParameter(str(error).removeprefix("options: ")) from None


def check_choice(text: str, choices: Collection[str], option: str) -> str:
    """The text, which has to be one of `choices`.

    Raises:
        typer.BadParameter: it is not.
    """
    if text not in choices:
        raise typer.BadParameter(f"{text!r} is not one of {', '.join(choices)}", param_hint=option)
    return text


def split_list(text: str, option: str) -> tuple[str, ...]:
    """Split `a,b` at its commas.

    Raises:
        typer.BadParameter: an element is empty.
    """
    parts = tuple(part.strip() for part in text.split(","))
    if not all(parts):
        raise typer.BadParameter(f"{text!r} is not a comma-separated list", param_hint=option)
    return parts


def parse_count(text: str) -> int | None:
    """A whole number below 10^18, or None where the text is something else."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= MOST_DIGITS else None


def parse_sizes(text: str, option: str) -> tuple[int, ...]:
    """Parse `7,7` into positive integers.

    Raises:
        typer.BadParameter: an element is not a positive integer.
    """
    sizes = tuple(parse_count(part) for part in split_list(text, option))
    if not all(sizes):
        raise typer.BadParameter(f"{text!r} is not a comma-separated list of positive integers", param_hint=option)
    return tuple(size for size in sizes if size)
