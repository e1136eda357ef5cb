"""Reads and checks settings that are written as one text and kept as several values."""

from typing import Final, TypeAlias

from scheduler.definition.model import Resend
from scheduler.definition.patterns import EVERY, FORM, read_pattern
from scheduler.definition.rules import LimitRule, Retry, parse_limits, parse_retries
from scheduler.definition.subjects import token_problem
from scheduler.errors import InvalidRule
from scheduler.setting import Range, invalid, wrong
from scheduler.text import read_duration, write_duration

Timeouts: TypeAlias = tuple[tuple[str, float], ...]
"""Pairs of a subject pattern (``vpc.create.*``) and seconds; the first that matches counts."""
Resends: TypeAlias = tuple[tuple[str, Resend], ...]
"""Pairs of a subject pattern and what to do; the first that matches counts."""
Retries: TypeAlias = tuple[tuple[str, Retry], ...]
"""Pairs of a subject pattern and a rule; the first that matches counts."""

ATTEMPT_TIMEOUT: Final = Range(0.001, 30 * 86_400.0, duration=True)
"""Range of the time that a connector may take to answer."""
HEARTBEAT: Final = Range(0.001, 86_400.0, duration=True)
"""Range of the time within which a connector has to beat again."""
_MOST_PROVIDERS: Final = 32


def parse_timeouts(text: str) -> Timeouts:
    """Parse ``vpc.create.*=10m, *.delete.*=300`` into pairs of a pattern and seconds.

    Raises:
        InvalidSettings: a part of it is not of this form, or its duration is out of range.
    """
    return _parse_durations("timeouts", text, ATTEMPT_TIMEOUT)


def parse_heartbeats(text: str) -> Timeouts:
    """Parse ``vpc.create.*=30, *.*.aws=1m`` as `parse_timeouts` does.

    Raises:
        InvalidSettings: a part of it is not of this form, or its duration is out of range.
    """
    return _parse_durations("heartbeats", text, HEARTBEAT)


def _parse_durations(name: str, text: str, allowed: Range) -> Timeouts:
    pairs = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, seconds = (piece.strip() for piece in part.partition("="))
        try:
            value = read_duration(seconds)
        except ValueError:
            equals = ""
        if not equals:
            raise invalid(name, part, "is not of the form PATTERN=DURATION, such as vpc.create.*=10m")
        pairs.append((checked_pattern(name, pattern), value))
    check_durations(name, tuple(pairs), allowed)
    return tuple(pairs)


def check_durations(name: str, pairs: Timeouts, allowed: Range) -> None:
    """Check durations by subject, in the setting ``name``.

    Raises:
        InvalidSettings: a pattern is none, or a duration is out of range.
    """
    for pattern, seconds in pairs:
        checked_pattern(name, pattern)
        if not allowed.low <= seconds <= allowed.high:
            raise invalid(name, f"{pattern}={write_duration(seconds)}", f"does not have {allowed}")


def checked_pattern(name: str, text: str) -> str:
    """Return ``text`` as a pattern of subjects, in the setting ``name``.

    Raises:
        InvalidSettings: it is none.
    """
    pattern = read_pattern(text)
    if pattern is None:
        raise invalid(name, text, FORM)
    return pattern


def parse_resend(text: str) -> Resends:
    """Parse ``never, vpc.create.*=always`` into pairs of pattern and word; a bare word is for all the rest.

    Raises:
        InvalidSettings: a part of it is not of this form, or there are two bare words.
    """
    pairs: list[tuple[str, Resend]] = []
    rest: list[tuple[str, Resend]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        pattern, equals, word = (piece.strip() for piece in part.rpartition("="))
        if word not in list(Resend) or (equals and not pattern):
            allowed = f"is neither one of {', '.join(Resend)}, nor PATTERN=WORD, such as vpc.create.*=always"
            raise invalid("resend", part, allowed)
        if equals:
            pairs.append((checked_pattern("resend", pattern), Resend(word)))
        else:
            rest.append((EVERY, Resend(word)))
    if len(rest) > 1:
        raise invalid("resend", text, "has more than one word that is for all the rest")
    return (*pairs, *rest)


def parse_rules(text: str) -> tuple[LimitRule, ...]:
    """Parse limits on requests with `scheduler.definition.rules.parse_limits`.

    Raises:
        InvalidSettings: one of them is none.
    """
    try:
        return parse_limits(text)
    except InvalidRule as error:
        raise wrong("limits", error) from None


def parse_retry_rules(text: str) -> Retries:
    """Parse rules for retries with `scheduler.definition.rules.parse_retries`.

    Raises:
        InvalidSettings: a part of it is no such rule.
    """
    try:
        return parse_retries(text)
    except InvalidRule as error:
        raise wrong("retries", error) from None


def parse_capture(text: str) -> tuple[str, ...]:
    """Parse comma-separated component types, each once.

    Raises:
        InvalidSettings: one of them cannot be a component's type.
    """
    types = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    check_capture(types)
    return types


def check_capture(types: tuple[str, ...]) -> None:
    """Check the types whose replies are captured.

    Raises:
        InvalidSettings: one of them cannot be a component's type.
    """
    for type_ in types:
        if token_problem("_component", type_) is not None:
            raise invalid("capture", type_, "is no component type, such as vpc")


def parse_providers(text: str) -> tuple[str, ...]:
    """Parse comma-separated providers, each once.

    Raises:
        InvalidSettings: one of them cannot be a component's provider, or there are too many.
    """
    providers = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    check_providers(providers)
    return providers


def check_providers(providers: tuple[str, ...]) -> None:
    """Check the providers whose replies are captured apart.

    Raises:
        InvalidSettings: one of them cannot be a component's provider, or there are too many.
    """
    for provider in providers:
        if token_problem("_provider", provider) is not None:
            raise invalid("capture_providers", provider, "is no provider, such as aws")
    if len(providers) > _MOST_PROVIDERS:
        many = f"{len(providers)} providers"
        raise invalid("capture_providers", many, f"is more than {_MOST_PROVIDERS}: each has a stream")
