"""Settings, and the flags and variables they come from."""

import pwd
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
from support.fake_bus import FakeBus

from scheduler.bus.options import BusOptions
from scheduler.commands.flags import BrokerFlags, QuietLogFlags, settings_of
from scheduler.commands.service_flags import BuildFlags, EmbeddedFlags, LogFlags, ServiceFlags, StoreFlags
from scheduler.commands.simulator_flags import SimulatorFlags
from scheduler.config import (
    DEFAULT_SERVERS,
    RANGES,
    Settings,
    StoreName,
    parse_timeouts,
)
from scheduler.config.contexts import ContextOption
from scheduler.config.web import WebSettings
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Resend
from scheduler.definition.rules import LimitRule, Retry
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.errors import InvalidSettings
from scheduler.local.simulator import Behaviour
from scheduler.process import open_store
from scheduler.setting import flag_of, parse_number, settings_in, variables_of


def test_the_defaults_are_those_of_the_specification() -> None:
    """Without flags and variables the service has the documented defaults."""
    settings = Settings()
    assert (settings.store, settings.replicas, settings.capture) == ("auto", 1, ())
    assert (settings.reply_bytes, settings.keep, settings.broker_grace) == (1 << 30, 604_800.0, 600.0)
    assert settings.resend_for("vpc.create.aws") is Resend.UNSENT
    assert settings.limits.max_definition_bytes == 64 << 20
    assert settings.bus.servers == DEFAULT_SERVERS
    assert settings.limits == DEFAULT_LIMITS
    assert (settings.attempt_timeout, settings.start_timeout, settings.store_timeout) == (3600.0, 10.0, 30.0)
    assert (settings.grace, settings.max_builds) == (25.0, 10_000)
    assert (settings.max_in_flight, settings.max_in_flight_per_build) == (2_000, 500)
    assert (settings.templates, settings.unresolved) == ("all", "error")
    assert not settings.embedded
    assert settings.data_dir.is_absolute()


def test_a_user_without_a_home_has_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container under a number that nobody has: a service that keeps nothing there runs as ever."""

    def unknown(number: int) -> None:
        raise KeyError(f"uid not found: {number}")

    for name in ("HOME", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    assert Settings().data_dir == Path("/nonexistent/scheduler")


def test_the_flags_have_the_defaults_of_the_settings() -> None:
    """Flags that nobody gives make the settings that nobody changes."""
    given = settings_of(
        BrokerFlags(), EmbeddedFlags(), StoreFlags(), BuildFlags(), ServiceFlags(), LogFlags()
    )
    assert given == Settings()


@pytest.mark.parametrize("store", ["auto", "jetstream", "memory"])
def test_references_are_expressions_too_and_an_error_where_they_lead_to_nothing(store: StoreName) -> None:
    """That is how they are read, unless something else is set."""
    settings = Settings(store=store)
    assert (settings.templates, settings.unresolved) == (Templates.ALL, OnUnresolved.ERROR)


def test_with_the_ernest_store_references_are_read_as_its_mapper_needs_it() -> None:
    """Only ``$(path)``, and what leads to nothing is kept, unless something else is set."""
    settings = Settings(store="ernest")
    assert (settings.templates, settings.unresolved) == (Templates.ERNEST, OnUnresolved.KEEP)
    settings = settings_of(StoreFlags(store="ernest"), BuildFlags(unresolved=OnUnresolved.ERROR))
    assert (settings.templates, settings.unresolved) == (Templates.ERNEST, OnUnresolved.ERROR)
    settings = settings_of(BuildFlags(templates=Templates.ALL), StoreFlags(store="ernest"))
    assert (settings.templates, settings.unresolved) == (Templates.ALL, OnUnresolved.KEEP)


async def test_how_references_are_read_is_said_where_the_ernest_store_decides_it(fake_bus: FakeBus) -> None:
    """At start, since nobody has asked for it in so many words."""
    with structlog.testing.capture_logs() as logs:
        await open_store(Settings(store="ernest", templates=Templates.ALL), fake_bus)
        await open_store(Settings(store="memory"), fake_bus)
    [line] = logs
    assert (line["log_level"], line["templates"], line["unresolved"]) == ("info", "all", "keep")


def test_every_setting_has_a_flag() -> None:
    """There is no setting that only a programmer can reach."""
    flags = {
        name
        for group in (BrokerFlags, EmbeddedFlags, StoreFlags, BuildFlags, ServiceFlags, LogFlags)
        for name in attrs.fields_dict(group)
    }
    settings = set(attrs.fields_dict(Settings)) - {"bus", "limits", "rules", "page"}
    settings |= {declared.name or one.name for one, declared in settings_in(WebSettings)}
    broker = set(attrs.fields_dict(BusOptions))
    broker -= {"servers", "name", "chosen", "origin", "max_queued_messages", "max_queued_bytes"}
    assert flags == settings | set(attrs.fields_dict(Limits)) | broker | {"nats_url", "limits", "context"}


@pytest.mark.parametrize("holder", [BusOptions, ContextOption, Settings, WebSettings, Limits, Behaviour])
def test_a_setting_is_explained_in_one_sentence(holder: type) -> None:
    """Its help ends with a full stop, and what the documentation adds to it does, too."""
    for attribute, declared in settings_in(holder):
        for text in filter(None, (declared.help, declared.more)):
            assert text.endswith("."), attribute.name


@pytest.mark.parametrize(
    "group", [BrokerFlags, EmbeddedFlags, StoreFlags, BuildFlags, ServiceFlags, LogFlags, SimulatorFlags]
)
def test_every_flag_has_its_variable(group: type) -> None:
    """A flag is named after its setting, and so is its variable."""
    for field in attrs.fields(group):
        parameter = field.type.__metadata__[0]
        assert parameter.name == (flag_of(field.name),)
        assert parameter.env_var == variables_of(field.name)
        assert parameter.help


def test_numbers_have_ranges_everywhere() -> None:
    """Every number among the settings and limits is held to a range."""
    numbers = {
        field.name
        for holder in (Settings(), DEFAULT_LIMITS)
        for field in attrs.fields(type(holder))
        if type(getattr(holder, field.name)) in {int, float}
    }
    assert numbers == set(RANGES)


@pytest.mark.parametrize("name", sorted(RANGES))
def test_the_ends_of_a_range_are_allowed_and_what_is_beyond_is_not(name: str) -> None:
    """Both ends of a range are good values, one step further is none, and the message says the range."""
    allowed = RANGES[name]
    step = 1 if allowed.whole else 0.5

    def make(value: float) -> object:
        given: dict[str, Any] = {name: value}
        return Settings(limits=Limits(**given)) if name in attrs.fields_dict(Limits) else Settings(**given)

    make(allowed.low)
    make(allowed.high)
    for value in (allowed.low - step, allowed.high + step):
        with pytest.raises(InvalidSettings) as caught:
            make(value)
        assert flag_of(name) in str(caught.value)
        assert variables_of(name)[0] in str(caught.value)
        assert str(allowed) in str(caught.value)


@pytest.mark.parametrize(
    "text",
    ["nan", "inf", "-inf", "1e400", "", "five", "-1", "3600.1", "61m", "1h1s", "3600001ms", "5x", "5 m"],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    """What is not finite, not in range or no duration is refused, as it was written, with what may be."""
    with pytest.raises(InvalidSettings) as caught:
        parse_number("grace", text, RANGES["grace"])
    assert str(caught.value) == (
        f"--grace (SCHEDULER_GRACE): {text!r} is not a duration from 0s to 1h,"
        " such as 30 (seconds), 250ms, 10m, 1h30m or 7d"
    )


DURATIONS = [name for name, allowed in RANGES.items() if allowed.duration]


@pytest.mark.parametrize("name", DURATIONS)
def test_every_duration_takes_units(name: str) -> None:
    """Each setting that is a time takes numbers with units, and plain seconds."""
    allowed = RANGES[name]
    assert parse_number(name, "20m", allowed) == 1_200
    assert parse_number(name, "1m30s", allowed) == 90
    assert parse_number(name, "250ms", allowed) == 0.25
    assert all(parse_number(name, text, allowed) == 30 for text in ("0.5m", "30", "3e1"))


def test_every_time_is_a_duration() -> None:
    """The settings under the heading of times are those that take units."""
    assert set(DURATIONS) == {
        *("attempt_timeout", "start_timeout", "store_timeout", "grace", "broker_grace", "keep")
    }


@pytest.mark.parametrize("text", ["1.5", "1e3", "0", "1000001", "٣x", "True"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    """Where a count is wanted, fractions and texts are refused."""
    with pytest.raises(InvalidSettings, match="is not a whole number from 1 to 1,000,000"):
        parse_number("max_builds", text, RANGES["max_builds"])


def test_a_truth_value_is_no_number() -> None:
    """Python's True is 1, but it is no count of builds."""
    with pytest.raises(InvalidSettings):
        Settings(max_builds=True)


def test_the_first_pattern_that_matches_gives_the_timeout() -> None:
    """A request's timeout is that of the first matching pattern, otherwise the general one."""
    settings = Settings(timeouts=parse_timeouts("vpc.*.aws=1,*.create.*=2,*.*.fake=3"), attempt_timeout=9.0)
    subjects = ("vpc.create.aws", "vpc.create.azure", "net.delete.fake", "net.delete.aws")
    assert [settings.timeout_for(subject) for subject in subjects] == [1.0, 2.0, 3.0, 9.0]


def test_heartbeats_are_asked_for_by_subject_or_not_at_all() -> None:
    """The first pattern that matches counts; nothing is asked of any other connector."""
    settings = Settings(heartbeats=(("vpc.*.*", 30.0), ("*.*.aws", 60.0)))
    subjects = ("vpc.create.aws", "net.create.aws", "net.create.gcp")
    assert [settings.heartbeat_for(subject) for subject in subjects] == [30.0, 60.0, None]
    with pytest.raises(InvalidSettings, match="--heartbeats"):
        Settings(heartbeats=(("vpc.*.*", 0.0),))


def test_rules_for_sending_again_are_checked_wherever_they_come_from() -> None:
    """A program that makes settings is held to the same patterns."""
    with pytest.raises(InvalidSettings, match="--resend"):
        Settings(resend=(("vpc", Resend.ALWAYS),))


def test_patterns_of_limits_and_retries_are_checked_wherever_they_come_from() -> None:
    """A program that makes settings is held to the same patterns."""
    with pytest.raises(InvalidSettings, match="--limits"):
        Settings(rules=(LimitRule("vpc", 5),))
    with pytest.raises(InvalidSettings, match="--retries"):
        Settings(retries=(("vpc", Retry(2)),))


@pytest.mark.parametrize("name", ["store", "log_level", "log_format"])
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(name: str) -> None:
    """A wrong word is answered with the right ones."""
    given: dict[str, Any] = {name: "x"}
    with pytest.raises(InvalidSettings, match=rf"^{flag_of(name)} \(.*\): 'x' is not one of: \w+, "):
        Settings(**given)


@pytest.mark.parametrize("name", ["", "a b", "a\n", "x" * 129, "é"])
def test_an_instance_name_is_plain(name: str) -> None:
    """An instance's name can be used in subjects, logs and JSON alike."""
    with pytest.raises(InvalidSettings, match="--name"):
        Settings(name=name)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"user": "joe"}, "--user (SCHEDULER_USER) is given without --password (SCHEDULER_PASSWORD)"),
        ({"password": "p"}, "--password (SCHEDULER_PASSWORD) is given without --user (SCHEDULER_USER)"),
        (
            {"credentials": Path("/no/where")},
            "--credentials (SCHEDULER_CREDENTIALS): cannot read '/no/where'",
        ),
        ({"inbox_prefix": "a b"}, "--inbox-prefix (SCHEDULER_INBOX_PREFIX): "),
        ({"tls_ca": Path("/dev/null")}, "--tls-ca (SCHEDULER_TLS_CA): "),
        (
            {"token": "sesame", "nats_url": "nats://u:p@h"},
            "--token (SCHEDULER_TOKEN) and user information in a server's URL; choose one",
        ),
    ],
)
def test_contradictions_about_the_login_name_the_flags(flags: dict[str, Any], message: str) -> None:
    """What cannot be right about the login is said in terms of flags and variables, without secrets."""
    with pytest.raises(InvalidSettings) as caught:
        settings_of(BrokerFlags(**flags))
    assert message in str(caught.value)
    assert "sesame" not in str(caught.value)


def test_the_embedded_broker_is_not_asked_for_a_login() -> None:
    """With a broker of our own, what is set for another one does not matter."""
    assert settings_of(BrokerFlags(nats_url="http://x"), EmbeddedFlags(embedded=True)).embedded


def test_a_setting_never_shows_a_password() -> None:
    """Settings in a traceback or a log line hold no secret."""
    settings = settings_of(BrokerFlags(nats_url="nats://joe:hunter2@h"))
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(settings_of(BrokerFlags(user="joe", password="hunter2")))


def test_commands_that_print_results_log_less() -> None:
    """A command whose output is a result logs errors, the service from information on."""
    assert (settings_of(QuietLogFlags()).log_level, Settings().log_level) == ("error", "info")
