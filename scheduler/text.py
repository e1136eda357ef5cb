"""Text to people and from them: without secrets and control characters, and with readable numbers."""

import math
import re
from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final

_UNBROKEN = re.compile(r"[^\s\"']+")
_CUT = "..."
CUT = " ... (cut: "
"""Beginning of the mark at the end of a text that was cut."""


def mask_url(text: str) -> str:
    """Return ``text`` with the user information of every URL in it replaced by ``***``.

    A password may contain slashes and commas, so everything up to the last ``@`` is masked: rather too much.
    """
    return _UNBROKEN.sub(_without_user, text) if "://" in text and "@" in text else text


def _without_user(match: re.Match[str]) -> str:
    before, separator, rest = match[0].partition("://")
    _, at, host = rest.rpartition("@")
    return f"{before}{separator}***@{host}" if at else match[0]


def printable(text: str, limit: int = 0) -> str:
    """Return ``text`` on one line, without anything that a terminal would obey, cut to ``limit`` characters.

    Ids and error texts come from elsewhere: an escape sequence in them could rewrite the screen.
    """
    if limit and len(text) > limit:
        text = text[: limit - len(_CUT)] + _CUT
    if text.isprintable():
        return text
    return "".join(_harmless(character) for character in text)


def shortened(text: str, limit: int) -> str:
    """Return printable text that is cut in the middle: ids mostly differ at their ends."""
    if len(text) > limit:
        tail = (limit - 1) // 2
        text = f"{text[: limit - 1 - tail]}…{text[len(text) - tail :]}"
    return printable(text)


def _harmless(character: str) -> str:
    if character.isprintable():
        return character
    return " " if character.isspace() else character.encode("unicode_escape").decode("ascii")


def seconds(value: float) -> str:
    """Return a duration for people: ``0.4s``, ``12.3s``, ``4m05s``, ``2h03m``."""
    tenths = round(max(0.0, value), 1)
    if tenths < 60:
        return f"{tenths:.1f}s"
    minutes, rest = divmod(int(tenths), 60)
    if minutes < 60:
        return f"{minutes}m{rest:02}s"
    return f"{minutes // 60}h{minutes % 60:02}m"


def so_far(progress: float | None, message: str) -> str:
    """Return what a connector says of its work, on one line: ``40 %, attaching``; empty for nothing."""
    share = "" if progress is None else f"{progress * 100:.0f} %"
    return ", ".join(filter(None, (share, printable(message))))


_UNITS: Final = {"d": 86_400.0, "h": 3_600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_DURATION: Final = re.compile(
    "".join(rf"(?:(?P<{unit}>[0-9]+(?:\.[0-9]+)?){unit}\s*)?" for unit in _UNITS), re.ASCII
)
DURATIONS: Final = "30 (seconds), 250ms, 10m, 1h30m or 7d"
"""Forms of a duration, for error messages."""


def read_duration(text: str) -> float:
    """Read a duration in seconds: a number of seconds, or numbers with units as in ``1h30m`` and ``250ms``.

    Raises:
        ValueError: it is neither.
    """
    text = text.strip()
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        return float(text)
    # Divided by a thousand, not multiplied with a thousandth: 250 of them are 0.25 exactly.
    parts = found.groupdict(default="0")
    return float(parts.pop("ms")) / 1_000 + sum(
        float(number) * _UNITS[unit] for unit, number in parts.items()
    )


def write_duration(value: float) -> str:
    """Write seconds in the largest units that fit, so that `read_duration` reads them: ``7d``, ``1h30m``."""
    if not math.isfinite(value):
        return f"{value}s"
    whole, rest = int(value), value - int(value)
    if rest or whole <= 0:
        return (
            f"{round(value * 1_000)}ms"
            if 0 < value < 1 and not round(value * 1_000, 6) % 1
            else f"{value:g}s"
        )
    parts = []
    for unit in ("d", "h", "m", "s"):
        number, whole = divmod(whole, int(_UNITS[unit]))
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def moment(then: float, now: float, zone: tzinfo | None = None) -> str:
    """Return a time in the past for people: ``today 09:12``, ``yesterday 17:03``, ``Mon 12 Jan 17:03``.

    The year is added where it is another one.

    Args:
        then: the time, in seconds since 1970.
        now: the present, likewise.
        zone: time zone; None: that of this computer.
    """
    told, today = datetime.fromtimestamp(then, zone), datetime.fromtimestamp(now, zone)
    if told.date() == today.date():
        return f"today {told:%H:%M}"
    if told.date() == today.date() - timedelta(days=1):
        return f"yesterday {told:%H:%M}"
    year = "" if told.year == today.year else f" {told.year}"
    return f"{_DAYS[told.weekday()]} {told.day} {_MONTHS[told.month - 1]}{year} {told:%H:%M}"


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
"""Names in English whatever the locale, as in all other texts."""


def count(number: int, noun: str) -> str:
    """Return a number and its noun: ``1 component``, ``1,234 components``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], total: int) -> str:
    """Return names as a list of which there may be more: ``a, b and 3 more``."""
    if not names:
        return "something"
    more = f" and {total - len(names):,} more" if total > len(names) else ""
    return ", ".join(names) + more


def doing(number: int, noun: str, verb: str) -> str:
    """Return a number, noun and verb: ``1 component waits``; of ``be``: ``1 build is``, ``2 builds are``."""
    return f"{count(number, noun)} {agreeing(number, verb)}"


def agreeing(number: int, verb: str) -> str:
    """Return the verb for a number: ``waits`` or ``wait``, ``is`` or ``are``, ``does`` or ``do``."""
    one, several = {"be": ("is", "are"), "do": ("does", "do")}.get(verb, (f"{verb}s", verb))
    return one if number == 1 else several
