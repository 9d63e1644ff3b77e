"""Reading `report.json` back."""

import dataclasses
import json
from pathlib import Path
from typing import Any

from mncompress.errors import CheckpointError, ConfigError
from mncompress.types import Report, from_json

LARGEST_INT, LARGEST = 2**63 - 1, 3.5e38
"""Of a whole number and of any other, in size: what NumPy and float32 have, and what can be drawn."""


def load_report(path: Path) -> Report:
    """Read what `compress` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        report = from_json(Report, json.loads(path.read_text(encoding="utf-8")), where=str(path))
        _check_numbers(dataclasses.asdict(report))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; run mncompress compress again") from None
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged or of another version ({error}); run mncompress compress again") from None
    return report


def _check_numbers(document: Any) -> None:
    """Refuse numbers that no report has (ValueError)."""
    if isinstance(document, dict | list | tuple):
        for each in document.values() if isinstance(document, dict) else document:
            _check_numbers(each)
    elif isinstance(document, int) and abs(document) > LARGEST_INT:
        raise ValueError("a whole number has more than 64 bits")
    elif isinstance(document, float) and not abs(document) <= LARGEST:
        raise ValueError(f"the number {document} is out of range")
