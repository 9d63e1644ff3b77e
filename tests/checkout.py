"""The sources, which lie beside the tests in a checkout; where an installed wheel is tested, only the tests are there."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HAS_SOURCES = (ROOT / "mncompress" / "__init__.py").is_file()
REASON = "about the sources, which are not here: an installed package is tested"
needs_sources = pytest.mark.skipif(not HAS_SOURCES, reason=REASON)


def skip_without_sources() -> None:
    """For fixtures, which take no marks."""
    if not HAS_SOURCES:
        pytest.skip(REASON)
