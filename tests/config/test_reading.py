"""Settings that are written as one text and kept as several values."""

import pytest

from scheduler.config import (
    Settings,
    parse_capture,
    parse_heartbeats,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_timeouts,
)
from scheduler.definition.model import Resend
from scheduler.definition.rules import LimitRule, Retry
from scheduler.errors import InvalidSettings


def test_timeouts_keep_their_order() -> None:
    """Timeouts by subject are read in the order in which they are written."""
    assert parse_timeouts("vpc.create.*=10m, *.delete.*=300,") == (
        ("vpc.create.*", 600.0),
        ("*.delete.*", 300.0),
    )
    assert parse_timeouts(" ") == ()


@pytest.mark.parametrize(
    "text",
    ["vpc.create.*=5x", "vpc.create.*=31d", "vpc.create.*=0ms",
     "vpc", "vpc.create.*", "vpc.create=5", "vpc.create.>=5", "a..b=5", "a.b.c=", "a.b.c=x", "a.b.c=nan",
     "a.b.c=0", "a.b.c=-1", "a.b.c=inf", "a b.c.d=5", "a.b.c.d=5", "=5", "a*.b.c=5"],
)  # fmt: skip
def test_what_is_no_timeout_is_refused(text: str) -> None:
    """A pattern or number of seconds that cannot be meant is refused."""
    with pytest.raises(InvalidSettings, match=r"^--timeouts \(SCHEDULER_TIMEOUTS\): "):
        parse_timeouts(text)


@pytest.mark.parametrize("text", ["vpc.create.*=25h", "vpc.*.*", "vpc.*.*=0", "a..b=5", "a.b.c=soon"])
def test_what_is_no_time_for_heartbeats_is_refused(text: str) -> None:
    """They are written as timeouts are, and last at most a day."""
    assert parse_heartbeats("vpc.*.*=30, *.*.aws=24h") == (("vpc.*.*", 30.0), ("*.*.aws", 86_400.0))
    with pytest.raises(InvalidSettings, match=r"^--heartbeats \(SCHEDULER_HEARTBEATS\): "):
        parse_heartbeats(text)


def test_what_is_sent_again_is_said_by_subject() -> None:
    """The first pattern that matches a request decides; a bare word, wherever it stands, all the rest."""
    settings = Settings(resend=parse_resend("never, vpc.create.* = always, vpc.*.*=unsent,"))
    subjects = ("vpc.create.aws", "vpc.delete.aws", "network.create.aws")
    assert [settings.resend_for(subject) for subject in subjects] == ["always", "unsent", "never"]
    assert Settings(resend=parse_resend("vpc.create.*=always")).resend_for("vpc.delete.aws") == "unsent"
    assert parse_resend(" ") == ()


@pytest.mark.parametrize(
    "text",
    ["sometimes", "vpc.create.*", "vpc.create.*=", "vpc.create.*=sometimes", "=always", "always=never",
     "vpc.create=always", "vpc.create.>=always", "a b.c.d=always", "always, never", "always, always"],
)  # fmt: skip
def test_what_is_no_rule_for_sending_again_is_refused(text: str) -> None:
    """A word, a pattern or a mixture that cannot be meant is refused."""
    with pytest.raises(InvalidSettings, match=r"^--resend \(SCHEDULER_RESEND\): "):
        parse_resend(text)


def test_a_star_alone_is_every_subject() -> None:
    """Where a pattern of three words may stand, ``*`` may."""
    assert parse_timeouts("vpc.create.*=1, *=2") == (("vpc.create.*", 1.0), ("*.*.*", 2.0))
    assert parse_resend("*=always, never") == (("*.*.*", Resend.ALWAYS), ("*.*.*", Resend.NEVER))


def test_limits_on_requests_are_read() -> None:
    """What is in flight and what begins, by subject."""
    settings = Settings(rules=parse_rules("*=500, *.create.aws=20/s"))
    assert settings.rules == (LimitRule("*.*.*", 500), LimitRule("*.create.aws", 20, 1.0))
    assert Settings().rules == parse_rules("") == ()


@pytest.mark.parametrize("text", ["vpc", "vpc=5", "vpc.create.*=0", "*=5/d", "*=many"])
def test_what_is_no_limit_is_refused(text: str) -> None:
    """The message names the flag, the variable and the part that is wrong."""
    with pytest.raises(InvalidSettings, match=r"^--limits \(SCHEDULER_LIMITS\): '"):
        parse_rules(text)


def test_retries_are_said_by_subject() -> None:
    """The first pattern that matches decides; without any nothing is sent a second time."""
    settings = Settings(retries=parse_retry_rules("vpc.create.*=5:2:30s:10m, *=2"))
    assert settings.retry_for("vpc.create.aws") == Retry(5, 2, 30, 600)
    assert settings.retry_for("vpc.delete.aws") == Retry(2)
    assert Settings().retry_for("vpc.create.aws") == Retry(1)


@pytest.mark.parametrize("text", ["5", "vpc=5", "*=0", "*=1:2:3:4:5", "*=5:x"])
def test_what_is_no_rule_for_retries_is_refused(text: str) -> None:
    """The message names the flag, the variable and the part that is wrong."""
    with pytest.raises(InvalidSettings, match=r"^--retries \(SCHEDULER_RETRIES\): '"):
        parse_retry_rules(text)


def test_captured_types_are_named_once() -> None:
    """Types are separated by commas; what is named twice counts once."""
    assert parse_capture("vpc, network,vpc,") == ("vpc", "network")
    assert parse_capture("") == ()


@pytest.mark.parametrize("text", ["*", ">", "vpc.create", "a b", "x" * 65, "build", "service", "_vpc", "é"])
def test_what_is_no_type_to_capture_is_refused(text: str) -> None:
    """Neither wildcards nor what could never be a component's type."""
    with pytest.raises(InvalidSettings, match=r"^--capture \(SCHEDULER_CAPTURE\): "):
        parse_capture(text)
    with pytest.raises(InvalidSettings, match="--capture"):
        Settings(capture=(text,))
