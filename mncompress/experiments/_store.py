"""Results as JSON files, each named by a hash of what determines it, so that nothing is computed twice."""

import hashlib
import json
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mncompress.errors import CheckpointError, ConfigError
from mncompress.files import write_text
from mncompress.types import TrainConfig, from_json, to_json

FREE = ("device", "data_dir")
"""The fields of a configuration that do not belong to the recipe."""


class Result(Protocol):
    """What a file holds, a dataclass."""

    @property
    def key(self) -> str:
        """The file's name, without its suffix."""

    @property
    def schema(self) -> str:
        """The version of the format."""


R = TypeVar("R", bound=Result)


def hash_recipe(schema: str, config: TrainConfig, data_hash: str, **others: Any) -> str:
    """The name of a result: the SHA-256 of everything that determines it."""
    document = {"schema": schema, "config": without_free(to_json(config)), "data_hash": data_hash, **others}
    return hashlib.sha256(json.dumps(document, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def without_free(config: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a configuration's JSON form."""
    return {name: value for name, value in config.items() if name not in FREE}


def write_result(folder: Path, document: dict[str, Any]) -> None:
    """Write a result, atomically."""
    write_text(folder / f"{document['key']}.json", json.dumps(document, allow_nan=False) + "\n")


def read_result(cls: type[R], path: Path, schema: str) -> R:
    """A result that was computed before.

    Raises:
        CheckpointError: the file is damaged, or holds another result than its name says.
    """
    try:
        result = from_json(cls, json.loads(path.read_text(encoding="utf-8")), where=path.name)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read ({error.strerror or error})") from None
    except (ValueError, RecursionError):
        raise CheckpointError(f"{path.name} is truncated or no JSON") from None
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if result.schema != schema or result.key != path.stem:
        raise CheckpointError(f"{path.name} holds another result than its name says")
    return result
