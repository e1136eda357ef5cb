"""How a build is to be run, where it or the operator has a say: limits, retries, what an error means.

Each rule is written in two forms: as text in a setting (``vpc.create.*=5``), and as JSON in a build's
``options`` or in a component. Both are read here, and what is wrong with them is said in words that fit
behind the place where it stands.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, Final, TypeAlias

from attrs import frozen

from scheduler.definition.nearly import nearly
from scheduler.definition.patterns import FORM, first_match, matches, read_pattern
from scheduler.definition.strictjson import kind
from scheduler.errors import InvalidRule, Problem
from scheduler.text import DURATIONS, read_duration

OPTIONS: Final = ("retry", "limits", "on_error", "max_failures")
"""Keys of a build's ``options`` that speak to the scheduler; any other is the user's own."""
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0}
_UNITS: Final = {seconds: unit for unit, seconds in _PERIODS.items()}
_MOST: Final = 1_000_000
"""What a limit may allow, and the percentages and numbers of failures."""
MOST_RULES: Final = 100
"""Limits that a setting or a build may have: each is looked at for every kind of request."""
_MOST_ATTEMPTS: Final = 1_000
_LONGEST: Final = 30 * 86_400.0
"""Seconds."""


@frozen
class LimitRule:
    """At most ``count`` requests on matching subjects: in flight, or begun within any ``period`` seconds."""

    pattern: str
    count: int
    period: float | None = None
    """Seconds; None where it is about what is in flight."""

    def __str__(self) -> str:
        rate = "" if self.period is None else f"/{_UNITS[self.period]}"
        return f"{'*' if self.pattern == '*.*.*' else self.pattern}={self.count}{rate}"

    def matches(self, subject: str) -> bool:
        """Whether a request on ``subject`` counts."""
        return matches(self.pattern, subject)


@frozen
class Retry:
    """How often, and when, a component is sent again that failed."""

    attempts: int = 1
    """In all, the first one included."""
    backoff: float = 1.0
    """Seconds of pause at most before the second attempt; doubled before each further one."""
    max_backoff: float = 60.0
    """... but at most so many."""
    total: float | None = None
    """Seconds from the first attempt after which there is no other."""

    def pause(self, failed: int, luck: float) -> float:
        """Seconds to wait after attempt number ``failed``.

        Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): anything up
        to the pause, so that what failed together does not come back together.

        Args:
            failed: the number of the attempt, from 1.
            luck: from 0 to 1, random.
        """
        return luck * min(self.max_backoff, self.backoff * 2.0 ** min(failed - 1, 64))


ONCE: Final = Retry()
"""No second attempt."""


class OnError(StrEnum):
    """What an error means for the rest of a build."""

    DRAIN = "drain"
    """Nothing new is sent; what is in flight is awaited."""
    CONTINUE = "continue"
    """What does not depend on it goes on."""


@frozen
class Policy:
    """What a build says in its ``options`` of how it is to be run."""

    retry: Retry | None = None
    limits: tuple[LimitRule, ...] = ()
    most_failures: float = 0
    """Failed components that the build goes on with; one more halts it. Infinite where none does."""

    @classmethod
    def of(cls, options: Any, changes: int) -> tuple["Policy", list[Problem]]:
        """Read a build's ``options``.

        Args:
            options: whatever stands there.
            changes: how many there are: percentages are of them.

        Returns:
            The policy, the default in place of what cannot be read; and everything that is wrong.
        """
        problems: list[Problem] = []
        if not isinstance(options, Mapping):
            return cls(), problems

        def read(name: str, reader: Callable[[Any], Any]) -> Any:
            if options.get(name) is None:
                return None
            try:
                return reader(options[name])
            except InvalidRule as error:
                problems.append(Problem(f"options.{name}", str(error)))
                return None

        retry = read("retry", read_retry)
        limits = read("limits", read_limits)
        on_error = read("on_error", _read_on_error)
        most = read("max_failures", lambda value: _read_most_failures(value, changes))
        if on_error is OnError.DRAIN and most:
            text = "cannot go with on_error 'drain', after which nothing new is sent: leave one of them out"
            problems.append(Problem("options.max_failures", text))
        if most is None:
            most = math.inf if on_error is OnError.CONTINUE else 0
        return cls(retry, limits or (), most), problems


DEFAULT_POLICY: Final = Policy()
"""Of a build that says nothing."""
Retries: TypeAlias = Sequence[tuple[str, Retry]]
"""Pairs of a subject pattern and a rule; the first that matches counts."""


def retry_for(retries: Retries, subject: str) -> Retry:
    """The rule for a subject among those of the operator."""
    return first_match(retries, subject, ONCE)


def parse_limits(text: str) -> tuple[LimitRule, ...]:
    """``*=500, vpc.create.*=5, *.create.aws=20/s`` as rules.

    Raises:
        InvalidRule: a part of it is not of this form; the message begins with that part.
    """
    rules = []
    for part, pattern, value in _parts(text):
        try:
            rules.append(_limit(pattern, value))
        except InvalidRule as error:
            raise InvalidRule(f"{part[:80]!r} {error}") from None
    return _bounded(rules)


def read_limits(value: Any) -> tuple[LimitRule, ...]:
    """Limits as JSON: an object of patterns and numbers or rates, or the text of the setting.

    Raises:
        InvalidRule: it is neither.
    """
    if isinstance(value, str):
        return parse_limits(value)
    if not isinstance(value, Mapping):
        raise InvalidRule(
            f'an object such as {{"vpc.create.*": 5, "*.create.aws": "20/s"}}; it is {found(value)}'
        )
    rules = []
    for pattern, count in value.items():
        if isinstance(count, bool) or not isinstance(count, int | str):
            raise InvalidRule(
                f"{pattern[:80]!r}: a whole number, or a rate such as '20/s'; it is {kind(count)}"
            )
        try:
            rules.append(_limit(pattern, str(count)))
        except InvalidRule as error:
            raise InvalidRule(f"{pattern[:80]!r}: {str(count)[:80]!r} {error}") from None
    return _bounded(rules)


def _bounded(rules: list[LimitRule]) -> tuple[LimitRule, ...]:
    if len(rules) > MOST_RULES:
        raise InvalidRule(f"at most {MOST_RULES} limits; there are {len(rules)}")
    return tuple(rules)


def _limit(pattern: str, text: str) -> LimitRule:
    read = read_pattern(pattern)
    if read is None:
        raise InvalidRule(f"has a pattern that {FORM}")
    number, slash, unit = (piece.strip() for piece in text.partition("/"))
    count = int(number) if number.isascii() and number.isdigit() and len(number) <= len(str(_MOST)) else 0
    if not 1 <= count <= _MOST or (slash and unit not in _PERIODS):
        allowed = f"a whole number from 1 to {_MOST:,}, or one with /s, /m or /h behind it"
        raise InvalidRule(f"is not {allowed}")
    return LimitRule(read, count, _PERIODS[unit] if slash else None)


def parse_retries(text: str) -> tuple[tuple[str, Retry], ...]:
    """``*.create.aws=5, vpc.*.*=3:2:30s:10m`` as pairs of a pattern and a rule.

    Behind the attempts may stand `Retry.backoff`, `Retry.max_backoff` and `Retry.total`, each a duration.

    Raises:
        InvalidRule: a part of it is not of this form; the message begins with that part.
    """
    pairs = []
    for part, pattern, value in _parts(text):
        read = read_pattern(pattern)
        if read is None:
            raise InvalidRule(f"{part[:80]!r} has a pattern that {FORM}")
        try:
            pairs.append((read, read_retry(_numbered(value.split(":")))))
        except InvalidRule as error:
            form = "PATTERN=ATTEMPTS[:BACKOFF[:MAX_BACKOFF[:TOTAL]]], such as vpc.create.*=5:1s:1m"
            raise InvalidRule(f"{part[:80]!r} is not {form}: {error}") from None
    return tuple(pairs)


def _numbered(pieces: list[str]) -> dict[str, float]:
    if len(pieces) > len(_RETRY_FIELDS):
        raise InvalidRule("has more than four parts")
    attempts, *times = pieces
    numbers = {"attempts": _whole(attempts)}
    return numbers | {name: _duration(piece) for name, piece in zip(_RETRY_FIELDS[1:], times, strict=False)}


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InvalidRule(f"{text[:40]!r} is no whole number") from None


def _duration(text: str) -> float:
    try:
        return read_duration(text)
    except ValueError:
        raise InvalidRule(f"{text[:40]!r} is no duration, such as {DURATIONS}") from None


_RETRY_FIELDS: Final = ("attempts", "backoff", "max_backoff", "total_timeout")


def read_retry(value: Any) -> Retry:
    """``{"attempts": 5, "backoff": 1.0, "max_backoff": 60, "total_timeout": 600}``; each may be left out.

    Raises:
        InvalidRule: it is something else.
    """
    if not isinstance(value, Mapping):
        cure = f': write {{"attempts": {value}}}' if type(value) is int else ""
        form = '{"attempts": 5, "backoff": 1.0, "max_backoff": 60}'
        raise InvalidRule(f"an object such as {form}; it is {found(value)}{cure}")
    for name in value:
        if name not in _RETRY_FIELDS:
            meant = nearly(name, _RETRY_FIELDS)
            cure = "" if meant is None else f"; did you mean {meant!r}?"
            raise InvalidRule(f"{name[:80]!r} is none of {', '.join(_RETRY_FIELDS)}{cure}")
    attempts = value.get("attempts", ONCE.attempts)
    if type(attempts) is not int or not 1 <= attempts <= _MOST_ATTEMPTS:
        raise InvalidRule(f"attempts: a whole number from 1 to {_MOST_ATTEMPTS:,}; it is {found(attempts)}")
    backoff = _seconds(value, "backoff", ONCE.backoff)
    # Who only asks for longer pauses than the longest means them.
    most = _seconds(value, "max_backoff", max(ONCE.max_backoff, backoff))
    total = _seconds(value, "total_timeout", math.inf)
    return Retry(attempts, backoff, most, None if total == math.inf else total)


def _seconds(value: Mapping[str, Any], name: str, otherwise: float) -> float:
    if name not in value:
        return otherwise
    given = value[name]
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= _LONGEST:
        raise InvalidRule(
            f"{name}: seconds, from 0 to {_LONGEST:.0f}; it is {found(given)}{in_seconds(given)}"
        )
    return float(given)


def found(value: Any) -> str:
    """A JSON value in an error message: itself where it is short, otherwise what it is."""
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return str(value)
    return kind(value)


def in_seconds(value: Any) -> str:
    """The cure where seconds are wanted and a text says a duration: ``: write 600`` for ``10m``."""
    try:
        seconds = read_duration(value) if isinstance(value, str) else -1.0
    except ValueError:
        return ""
    return f": write {seconds:g}" if 0 < seconds < 1e6 else ""


def _read_on_error(value: Any) -> OnError:
    if value not in list(OnError):
        raise InvalidRule(f"one of {', '.join(OnError)}; it is {found(value)}")
    return OnError(value)


def _read_most_failures(value: Any, changes: int) -> int:
    """A number of components, or a percentage of them: as many may fail, and the build goes on."""
    share = value[:-1].strip() if isinstance(value, str) and value.endswith("%") else None
    if share is not None and share.replace(".", "", 1).isascii() and share.replace(".", "", 1).isdigit():
        percent = float(share)
        if percent <= 100:
            return math.floor(changes * percent / 100)
    elif type(value) is int and 0 <= value <= _MOST:
        return value
    raise InvalidRule(
        f"a whole number from 0 to {_MOST:,}, or a percentage such as '10%'; it is {found(value)}"
    )


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """The parts of a setting, each with its pattern and what stands behind it.

    Raises:
        InvalidRule: a part has no ``=``.
    """
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InvalidRule(f"{part[:80]!r} is not of the form PATTERN=VALUE, such as vpc.create.*=5")
        yield part, pattern, value
