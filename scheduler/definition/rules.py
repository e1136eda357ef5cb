"""Rules for running a build, given by the build or the operator: limits, retries, failure policy.

Each rule has two forms: text in a setting (``vpc.create.*=5``), and JSON in a build's ``options`` or in a
component. Both are read here; an error text fits behind the place of the rule.
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
"""Keys of a build's ``options`` that are meant for the scheduler; any other is the user's own."""
_PERIODS: Final = {"s": 1.0, "m": 60.0, "h": 3_600.0}
_UNITS: Final = {seconds: unit for unit, seconds in _PERIODS.items()}
MOST: Final = 1_000_000
"""Most requests that a limit may allow, and the largest percentage or number of failures."""
MOST_RULES: Final = 100
"""Most limits of a setting or a build: each is looked at for every kind of request."""
MOST_ATTEMPTS: Final = 1_000
LONGEST: Final = 30 * 86_400.0
"""Longest duration, in seconds."""


@frozen
class LimitRule:
    """At most ``count`` requests on matching subjects: in flight, or started within any ``period``."""

    pattern: str
    count: int
    period: float | None = None
    """Period in seconds; None if the limit is for requests in flight."""

    def __str__(self) -> str:
        rate = "" if self.period is None else f"/{_UNITS[self.period]}"
        return f"{'*' if self.pattern == '*.*.*' else self.pattern}={self.count}{rate}"

    @property
    def kind(self) -> str:
        """The rule without its number, as ``vpc.create.*`` or ``*.create.aws/s``."""
        return str(self).replace(f"={self.count}", "")

    def matches(self, subject: str) -> bool:
        """Whether a request on ``subject`` counts."""
        return matches(self.pattern, subject)


@frozen
class Retry:
    """Rule for retries: the attempts of a component, and the pauses between them."""

    attempts: int = 1
    """Number of attempts in all, including the first."""
    backoff: float = 1.0
    """Longest pause before the second attempt, in seconds; doubled before each further one."""
    max_backoff: float = 60.0
    """Longest pause before any attempt, in seconds."""
    total: float | None = None
    """Seconds from the first attempt after which there is no other."""

    def pause(self, failed: int, luck: float) -> float:
        """Return the seconds to wait after attempt number ``failed``.

        Full jitter (https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/): anything up
        to the pause, so that simultaneous failures do not come back together.

        Args:
            failed: number of the attempt, from 1.
            luck: random number from 0 to 1.
        """
        return luck * min(self.max_backoff, self.backoff * 2.0 ** min(failed - 1, 64))


ONCE: Final = Retry()
"""Rule without a second attempt."""


class OnError(StrEnum):
    """Consequence of an error for the rest of a build."""

    DRAIN = "drain"
    """Nothing new is sent; requests in flight are awaited."""
    CONTINUE = "continue"
    """Components that do not depend on the failed one continue."""


@frozen
class Policy:
    """Options of a build for its run."""

    retry: Retry | None = None
    limits: tuple[LimitRule, ...] = ()
    most_failures: float = 0
    """Failed components with which the build continues; one more halts it. Infinite if none ever does."""

    @classmethod
    def of(cls, options: Any, changes: int) -> tuple["Policy", list[Problem]]:
        """Read a build's ``options``.

        Args:
            options: any JSON value.
            changes: number of changes, for percentages.

        Returns:
            The policy, with defaults in place of unreadable parts; and all problems.
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
"""Policy of a build without options."""
Retries: TypeAlias = Sequence[tuple[str, Retry]]
"""Pairs of a subject pattern and a rule; the first matching one counts."""


def retry_for(retries: Retries, subject: str) -> Retry:
    """Return the operator's rule for a subject."""
    return first_match(retries, subject, ONCE)


def parse_limits(text: str) -> tuple[LimitRule, ...]:
    """Read ``*=500, vpc.create.*=5, *.create.aws=20/s`` as rules.

    Raises:
        InvalidRule: a part of it does not have this form; the message begins with that part.
    """
    rules = []
    for part, pattern, value in _parts(text):
        try:
            rules.append(_limit(pattern, value))
        except InvalidRule as error:
            raise InvalidRule(f"{part[:80]!r} {error}") from None
    return _bounded(rules)


def read_limits(value: Any) -> tuple[LimitRule, ...]:
    """Read limits in JSON: an object of patterns and numbers or rates, or the text of the setting.

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
    count = int(number) if number.isascii() and number.isdigit() and len(number) <= len(str(MOST)) else 0
    if not 1 <= count <= MOST or (slash and unit not in _PERIODS):
        allowed = f"a whole number from 1 to {MOST:,}, or one with /s, /m or /h behind it"
        raise InvalidRule(f"is not {allowed}")
    return LimitRule(read, count, _PERIODS[unit] if slash else None)


def parse_retries(text: str) -> tuple[tuple[str, Retry], ...]:
    """Read ``*.create.aws=5, vpc.*.*=3:2:30s:10m`` as pairs of a pattern and a rule.

    The attempts may be followed by `Retry.backoff`, `Retry.max_backoff` and `Retry.total`, each a duration.

    Raises:
        InvalidRule: a part of it does not have this form; the message begins with that part.
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
    """Read ``{"attempts": 5, "backoff": 1.0, "max_backoff": 60, "total_timeout": 600}``, or parts of it.

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
    if type(attempts) is not int or not 1 <= attempts <= MOST_ATTEMPTS:
        raise InvalidRule(f"attempts: a whole number from 1 to {MOST_ATTEMPTS:,}; it is {found(attempts)}")
    backoff = _seconds(value, "backoff", ONCE.backoff)
    # A backoff above the default maximum raises that maximum.
    most = _seconds(value, "max_backoff", max(ONCE.max_backoff, backoff))
    total = _seconds(value, "total_timeout", math.inf)
    return Retry(attempts, backoff, most, None if total == math.inf else total)


def _seconds(value: Mapping[str, Any], name: str, otherwise: float) -> float:
    if name not in value:
        return otherwise
    given = value[name]
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given <= LONGEST:
        raise InvalidRule(
            f"{name}: seconds, from 0 to {LONGEST:.0f}; it is {found(given)}{in_seconds(given)}"
        )
    return float(given)


def found(value: Any) -> str:
    """Return a JSON value for an error message: itself if it is short, otherwise its kind."""
    if isinstance(value, str):
        return repr(value[:80])
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return str(value)
    return kind(value)


def in_seconds(value: Any) -> str:
    """Return the cure for a duration in text where seconds are wanted: ``: write 600`` for ``10m``."""
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
    """Read a number of components, or a percentage of them, that may fail while the build continues."""
    share = value[:-1].strip() if isinstance(value, str) and value.endswith("%") else None
    if share is not None and share.replace(".", "", 1).isascii() and share.replace(".", "", 1).isdigit():
        percent = float(share)
        if percent <= 100:
            return math.floor(changes * percent / 100)
    elif type(value) is int and 0 <= value <= MOST:
        return value
    raise InvalidRule(
        f"a whole number from 0 to {MOST:,}, or a percentage such as '10%'; it is {found(value)}"
    )


def _parts(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield the parts of a setting, each with its pattern and its value.

    Raises:
        InvalidRule: a part has no ``=``.
    """
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise InvalidRule(f"{part[:80]!r} is not of the form PATTERN=VALUE, such as vpc.create.*=5")
        yield part, pattern, value
