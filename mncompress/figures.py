"""Figures of matplotlib as files: no window, no global state, the same bytes every time."""

from pathlib import Path
from typing import TYPE_CHECKING

from mncompress.errors import ConfigError
from mncompress.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = ("png", "svg")
DPI = 130


def save_figure(path: Path, figure: "Figure") -> None:
    """Write a figure as PNG or SVG, by the suffix of `path`, atomically.

    Raises:
        ConfigError: another suffix.
        OutputError: `path` cannot be written.
    """
    from matplotlib import rc_context  # takes long to import

    kind = path.suffix.removeprefix(".")
    if kind not in FORMATS:
        raise ConfigError(f"{path} ends neither in .png nor in .svg; choose one of them for the picture")
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "mncompress"}):
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={"Date": None} if kind == "svg" else None)
