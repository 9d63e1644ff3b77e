"""What a scenario found."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Result:
    """One row of the table of results."""

    part: str
    what: str
    cases: int
    failures: tuple[str, ...] = ()
    """One line for each case that was not met well, with what is needed to make it again."""
    measured: str = ""
    """Anything else worth a cell: largest error, memory, how often what was refused."""
