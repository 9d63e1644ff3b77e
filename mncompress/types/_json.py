"""Values to JSON and back, through pydantic."""

import math
import os
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import numpy as np
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


def settle_fields_(value: Any) -> None:
    """Make each field of a frozen dataclass what its type says: of a NumPy number a number, of a list a tuple, of a path its text.

    Raises:
        ConfigError: a field cannot be of its type, or is none of the choices that there are; it names the field.
    """
    for name, adapter in _field_adapters(type(value)).items():
        given = getattr(value, name)
        plain = given.item() if isinstance(given, np.generic) else os.fspath(given) if isinstance(given, os.PathLike) else given
        try:
            object.__setattr__(value, name, adapter.validate_python(plain))
        except ValidationError as error:
            raise ConfigError(f"{name}: {error.errors(include_url=False)[0]['msg']}, got {given!r:.100}") from None


_fields: dict[type, dict[str, TypeAdapter[Any]]] = {}


def _field_adapters(cls: Any) -> dict[str, TypeAdapter[Any]]:
    if cls not in _fields:
        _fields[cls] = {name: _adapter(hint) for name, hint in get_type_hints(cls).items() if name in cls.__dataclass_fields__}
    return _fields[cls]


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
