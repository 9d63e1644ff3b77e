"""Reading `report.json` back."""

import json
from pathlib import Path

from mncompress.errors import CheckpointError, ConfigError
from mncompress.types import Report, from_json


def load_report(path: Path) -> Report:
    """Read what `compress` wrote.

    Raises:
        CheckpointError: the file is missing or damaged.
    """
    try:
        return from_json(Report, json.loads(path.read_text(encoding="utf-8")), where=str(path))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; run mncompress compress again") from None
    except (OSError, ValueError, RecursionError, ConfigError) as error:
        raise CheckpointError(f"{path} is damaged or of another version ({error}); run mncompress compress again") from None
