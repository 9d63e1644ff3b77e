"""From a recipe file and the command line to a `TrainConfig`.

A recipe is TOML whose keys are the long option names with underscores. What it leaves out keeps the default of
`TrainConfig`, and the command line overrides it.
"""

import dataclasses
import difflib
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from mncompress.errors import ConfigError
from mncompress.types import TrainConfig, from_json

from ._options import check_options, parse_sizes

KEYS = tuple(field.name for field in dataclasses.fields(TrainConfig))


def read_recipe(path: Path) -> dict[str, Any]:
    """Read a recipe and check its keys; its values are checked with the options that override them.

    Raises:
        ConfigError: the file is missing, is no TOML, or has an unknown key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"recipe {path}: no such file") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"recipe {path} is not TOML: {error}") from None
    for key in document:
        if key not in KEYS:
            close = difflib.get_close_matches(key.replace("-", "_"), KEYS, n=1)
            hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(KEYS)}"
            raise ConfigError(f"recipe {path}: unknown key {key!r}; {hint}")
    try:
        document = parse_strings(document)
    except typer.BadParameter as error:
        raise ConfigError(f"recipe {path}: hidden: {error.message}") from None
    return document


def make_config(base: Mapping[str, Any], options: Mapping[str, Any], recipe: Path | None = None) -> TrainConfig:
    """Merge the options that were given over a base such as a recipe.

    Raises:
        ConfigError: the recipe has a value that cannot be used, whatever the options.
        typer.BadParameter: an option has, by itself or beside the recipe's.
    """
    given = parse_strings({key: value for key, value in options.items() if key in KEYS and value is not None})
    try:
        return check_options(TrainConfig, {**base, **given})
    except typer.BadParameter:
        if recipe:
            from_json(TrainConfig, dict(base), where=f"recipe {recipe}")
        raise


def parse_strings(values: dict[str, Any]) -> dict[str, Any]:
    """Parse what the command line writes otherwise than TOML: `hidden` as `7,7`, or `none` for no hidden layer.

    Raises:
        typer.BadParameter: it is neither.
    """
    hidden = values.get("hidden")
    if not isinstance(hidden, str):
        return values
    return {**values, "hidden": () if hidden.strip() == "none" else parse_sizes(hidden, "--hidden")}
