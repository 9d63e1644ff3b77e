"""How numbers are written: the one place, so that a number reads the same wherever it stands. None reads as an em dash."""

import math
from collections.abc import Callable

_MINUS, _NARROW, _NONE = "\N{MINUS SIGN}", "\N{NARROW NO-BREAK SPACE}", "\N{EM DASH}"


def percent(share: float | None, digits: int = 2) -> str:
    """A fraction as per cent: 0.9741 is `97.41 %`."""
    return _NONE if share is None else f"{100 * share:.{digits}f}{_NARROW}%"


def count(value: int | None) -> str:
    """An integer with its thousands apart."""
    return _NONE if value is None else f"{value:,}".replace(",", _NARROW).replace("-", _MINUS)


def error(value: float | None) -> str:
    """A magnitude to two digits, always in the same form: `1.2e-04`, and `0` only for zero."""
    if value is None:
        return _NONE
    return "0" if value == 0 else f"{value:.1e}"


def at_most(bound: float | None) -> str:
    """An upper bound to two digits, rounded up: what is written is a bound too."""
    if bound is None or bound == 0:
        return error(bound)
    unit = 10.0 ** (math.floor(math.log10(bound)) - 1)
    return error(math.ceil(bound / unit * (1 - 1e-12)) * unit)


def share_at_least(share: float | None) -> str:
    """A guaranteed share as per cent, rounded down."""
    return percent(None if share is None else math.floor(1000 * share * (1 + 1e-12)) / 1000, 1)


def plain(written: str) -> str:
    """A magnitude as `error` and `at_most` write it, for a headline: 3.4e-02 is `0.034`, 1.2e-05 is `1.2·10⁻⁵`."""
    digits, _, exponent = written.partition("e")
    if not exponent:
        return written
    power = int(exponent)
    if -4 < power < 4:
        return f"{float(written):.{max(1 - power, 0)}f}"
    return digits + _power_of_ten(power)


def _power_of_ten(power: int) -> str:
    return "·10" + str(power).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))


def share(value: float) -> str:
    """By how much a number changed, from the ratio of after to before: 0.55 is `−45 %`."""
    return f"{100 * (value - 1):+.0f}{_NARROW}%".replace("-", _MINUS)


def fixed(value: float | None, digits: int = 5) -> str:
    """A number to so many significant digits, trailing zeros kept: for numbers to be compared. 682970 is `6.8297·10⁵`."""
    if value is None:
        return _NONE
    written, _, exponent = f"{value:#.{digits}g}".partition("e")
    return written.rstrip(".").replace("-", _MINUS) + (_power_of_ten(int(exponent)) if exponent else "")


def number(value: float | None, digits: int = 4) -> str:
    """A number to so many significant digits."""
    return _NONE if value is None else f"{value:.{digits}g}".replace("-", _MINUS)


def ratio(value: float | None) -> str:
    """A ratio: `1.53×`."""
    return _NONE if value is None else f"{value:.2f}×"


def microseconds(value: float) -> str:
    """A duration in microseconds to at least three digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def file_size(value: int) -> str:
    """Bytes: `31.5 kB` or `1.22 MB`, in units of 1000."""
    return f"{value / 1e3:.1f}{_NARROW}kB" if value < 999_950 else f"{value / 1e6:.2f}{_NARROW}MB"


def words(name: object) -> str:
    """A name of the software in plain words: `piecewise_linear` is `piecewise linear`."""
    return str(name).replace("_", " ")


FILTERS: dict[str, Callable[..., str]] = {
    function.__name__: function for function in (
        percent, share_at_least, share, count, error, at_most, plain, fixed, number, ratio, microseconds, file_size, words)
}
