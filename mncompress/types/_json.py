"""Values to JSON and back, through pydantic."""

import math
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic_core import SchemaError

from mncompress.errors import ConfigError

PathLike = str | Path
T = TypeVar("T")

STRICT = ConfigDict(extra="forbid")
"""For values that people write by hand: an unknown field is an error."""


def from_json(cls: type[T], document: Any, *, where: str) -> T:
    """Build a value of the dataclass `cls` from parsed JSON (or TOML), checking every field's name and type.

    Raises:
        ConfigError: one line naming `where`, the field and what is wrong with it.
    """
    try:
        value: T = _adapter(cls).validate_python(document)
        return value
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        location = ".".join(str(part) for part in first["loc"]) or "document"
        raise ConfigError(f"{where}: {location}: {first['msg'].removeprefix('Value error, ')}") from None
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None


def to_json(value: Any) -> Any:
    """The JSON form of a dataclass: tuples become lists, paths become strings."""
    return _adapter(type(value)).dump_python(value, mode="json")


def null_not_finite(document: Any) -> Any:
    """A JSON document with null in the place of infinities and NaN, which JSON does not have."""
    if isinstance(document, dict):
        return {key: null_not_finite(value) for key, value in document.items()}
    if isinstance(document, list):
        return [null_not_finite(value) for value in document]
    return None if isinstance(document, float) and not math.isfinite(document) else document


_adapters: dict[Any, TypeAdapter[Any]] = {}


def _adapter(cls: Any) -> TypeAdapter[Any]:
    try:
        if cls not in _adapters:
            _adapters[cls] = TypeAdapter(cls)
        return _adapters[cls]
    except SchemaError as error:
        if "KeyboardInterrupt" in str(error):       # pydantic wraps what interrupts it
            raise KeyboardInterrupt from error
        raise
