"""Settings, the flags and variables they come from, and the log."""

import json
import logging
import math
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import attrs
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from support.fake_bus import FakeBus

from scheduler.bus.options import BusOptions, parse_servers
from scheduler.cli import build_app
from scheduler.commands.catalogue import NAMES as COMMANDS
from scheduler.commands.flags import BrokerFlags, QuietLogFlags, settings_of
from scheduler.commands.service_flags import BuildFlags, EmbeddedFlags, LogFlags, ServiceFlags, StoreFlags
from scheduler.commands.simulator_flags import SimulatorFlags
from scheduler.commands.variables import misspelt_variables, our_variables
from scheduler.config import (
    DEFAULT_SERVERS,
    RANGES,
    Settings,
    StoreName,
    parse_capture,
    parse_resend,
    parse_retry_rules,
    parse_rules,
    parse_timeouts,
)
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Resend
from scheduler.definition.rules import LimitRule, Retry
from scheduler.definition.secrets.names import MASK
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.errors import InvalidSettings
from scheduler.local.simulator import Behaviour
from scheduler.log import configure_logging, mask_secrets
from scheduler.process import open_store
from scheduler.setting import flag_of, parse_number, settings_in, variables_of
from scheduler.text import mask_url, printable, read_duration, seconds, write_duration


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
    settings = set(attrs.fields_dict(Settings)) - {"bus", "limits", "rules"}
    broker = set(attrs.fields_dict(BusOptions))
    broker -= {"servers", "name", "max_queued_messages", "max_queued_bytes"}
    assert flags == settings | set(attrs.fields_dict(Limits)) | broker | {"nats_url", "limits"}


@pytest.mark.parametrize("holder", [BusOptions, Settings, Limits, Behaviour])
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10m", 600.0),
        ("7d", 604_800.0),
        ("1h30m", 5_400.0),
        (" 1d 2h 3m 4s 5ms ", 93_784.005),
        ("250ms", 0.25),
        ("1.5h", 5_400.0),
        ("0s", 0.0),
        ("90", 90.0),
        ("0.1", 0.1),
        ("1e3", 1_000.0),
        ("-5", -5.0),
    ],
)
def test_durations_are_read(text: str, expected: float) -> None:
    """Plain numbers are seconds; units stand from the largest to the smallest, each once."""
    assert read_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", " ", "m", "1h1h", "30m1h", "5M", "5 min", "1h30", "-5m", "1.m", ".5m", "٣m", "5m,", "1m30s4"]
)
def test_what_is_no_duration_is_not_read(text: str) -> None:
    """Units that are unknown, doubled or in another order, and numbers behind them, are refused."""
    with pytest.raises(ValueError, match="could not convert"):
        read_duration(text)


@given(st.one_of(st.integers(0, 10**9), st.integers(0, 10**6).map(lambda number: number / 1_000)))
def test_durations_are_written_as_they_are_read(value: float) -> None:
    """What is shown as a default can be given as a value."""
    assert read_duration(write_duration(value)) == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize("text", ["1.5", "1e3", "0", "1000001", "٣x", "True"])
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    """Where a count is wanted, fractions and texts are refused."""
    with pytest.raises(InvalidSettings, match="is not a whole number from 1 to 1,000,000"):
        parse_number("max_builds", text, RANGES["max_builds"])


def test_a_truth_value_is_no_number() -> None:
    """Python's True is 1, but it is no count of builds."""
    with pytest.raises(InvalidSettings):
        Settings(max_builds=True)


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("nats://a:4222", ("nats://a:4222",)),
        ("a", ("nats://a",)),
        ("a:1, tls://b:2 ,", ("nats://a:1", "tls://b:2")),
        ("nats://u:p@h:4222/", ("nats://u:p@h:4222/",)),
        ("nats://[::1]:4222", ("nats://[::1]:4222",)),
    ],
)
def test_servers_may_be_several_and_without_a_scheme(text: str, servers: tuple[str, ...]) -> None:
    """Addresses are separated by commas, and nats:// is what a bare one means."""
    assert parse_servers(text) == servers


@pytest.mark.parametrize(
    "text",
    [
        "",
        " , ",
        "http://h",
        "nats://",
        "nats://h:0",
        "nats://h:99999",
        "nats://h:x",
        "h/path",
        "nats://h?q",
        "nats://a b",
    ],
)
def test_what_is_no_server_is_refused(text: str) -> None:
    """An address that no broker can have is refused, naming flag and both variables."""
    with pytest.raises(InvalidSettings, match=r"^--nats-url \(NATS_URL, NATS_URI\): "):
        parse_servers(text)


@pytest.mark.parametrize(
    "text", ["nats://joe:hunter2@h:0", "joe:hunter2@h:x", "nats://joe:hun,ter2@h", "nats://joe:a/hunter2@h:x"]
)
def test_a_password_in_a_wrong_address_is_not_shown(text: str) -> None:
    """What is wrong with an address is said without its user and password."""
    with pytest.raises(InvalidSettings) as caught:
        parse_servers(text)
    assert not any(part in str(caught.value) for part in ("joe", "hun", "ter2"))


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


def test_the_first_pattern_that_matches_gives_the_timeout() -> None:
    """A request's timeout is that of the first matching pattern, otherwise the general one."""
    settings = Settings(timeouts=parse_timeouts("vpc.*.aws=1,*.create.*=2,*.*.fake=3"), attempt_timeout=9.0)
    subjects = ("vpc.create.aws", "vpc.create.azure", "net.delete.fake", "net.delete.aws")
    assert [settings.timeout_for(subject) for subject in subjects] == [1.0, 2.0, 3.0, 9.0]


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


def test_rules_for_sending_again_are_checked_wherever_they_come_from() -> None:
    """A program that makes settings is held to the same patterns."""
    with pytest.raises(InvalidSettings, match="--resend"):
        Settings(resend=(("vpc", Resend.ALWAYS),))


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


def test_patterns_of_limits_and_retries_are_checked_wherever_they_come_from() -> None:
    """A program that makes settings is held to the same patterns."""
    with pytest.raises(InvalidSettings, match="--limits"):
        Settings(rules=(LimitRule("vpc", 5),))
    with pytest.raises(InvalidSettings, match="--retries"):
        Settings(retries=(("vpc", Retry(2)),))


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


# Text for people.


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("nats://u:p@h:1,tls://x", "nats://***@h:1,tls://x"),
        ("nats://u:p/w@h", "nats://***@h"),
        ("a@b", "a@b"),
        ("see nats://t@h and http://x/y", "see nats://***@h and http://x/y"),
    ],
)
def test_user_information_is_masked(text: str, shown: str) -> None:
    """Whatever stands before the @ of a URL is not shown."""
    assert mask_url(text) == shown


def test_nothing_that_is_shown_can_drive_a_terminal() -> None:
    """Escape sequences, new lines and direction marks come out as harmless text."""
    assert printable("a\x1b[2Jb\r\nc\u202ed\x00") == "a\\x1b[2Jb  c\\u202ed\\x00"
    assert printable("\ud800") == "\\ud800"
    assert printable("x" * 50, 10) == "xxxxxxx..."


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-1, "0.0s"), (0.44, "0.4s"), (59.94, "59.9s"), (59.97, "1m00s"), (245, "4m05s"), (7384, "2h03m")],
)
def test_durations_are_readable(value: float, shown: str) -> None:
    """Seconds are given in the unit that people would use."""
    assert seconds(value) == shown


# The log.


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """What standard error has got; the log is as it was afterwards."""
    root = logging.getLogger()
    level, handlers = root.level, list(root.handlers)
    structlog.contextvars.clear_contextvars()
    yield lambda: capsys.readouterr().err
    structlog.contextvars.clear_contextvars()
    structlog.reset_defaults()
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


def test_the_log_is_json_where_nobody_watches(stderr: Callable[[], str]) -> None:
    """In a pipe each event is a JSON object on a line, with UTC time, level and what is bound."""
    configure_logging()
    with structlog.contextvars.bound_contextvars(build="b", component="c"):
        structlog.get_logger().info("sent", number=1)
    structlog.get_logger().debug("too fine")
    (line,) = stderr().splitlines()
    event = json.loads(line)
    assert list(event)[:3] == ["time", "level", "event"]
    assert event["time"].endswith("Z")
    del event["time"]
    assert event == {"level": "info", "event": "sent", "build": "b", "component": "c", "number": 1}


def test_the_log_never_holds_secrets(stderr: Callable[[], str]) -> None:
    """Values under telling names and users in URLs are masked, at any depth."""
    configure_logging()
    log = structlog.get_logger()
    log.info(
        "connected to nats://u:hunter2@h",
        password="hunter2",
        options={"Token": "hunter2", "l": [{"api_key": "hunter2"}]},
    )
    try:
        int("nats://u:hunter2@h")
    except ValueError:
        log.exception("failed", aws_secret_access_key="hunter2")
    logging.getLogger("nats").error("lost %s", "nats://u:hunter2@h")
    text = stderr()
    assert "hunter2" not in text
    assert len(text.splitlines()) == 3


def test_values_nested_too_deep_to_check_are_not_logged() -> None:
    """What is too deep to be looked through is masked as a whole."""
    value: object = "deep"
    for _ in range(20):
        value = [value]
    assert "deep" not in str(mask_secrets(None, "", {"value": value}))
    assert mask_secrets(None, "", {"token": None, "n": math.pi}) == {"token": None, "n": math.pi}
    assert mask_secrets(None, "", {"password": "x"}) == {"password": MASK}


def test_the_readable_log_has_no_local_variables_and_no_escapes(stderr: Callable[[], str]) -> None:
    """A traceback for people shows no variables, and a hostile value cannot drive the terminal."""
    configure_logging(style="console")
    hidden = "hunter" + "2"
    try:
        int(hidden, base=2)
    except ValueError as error:
        structlog.get_logger().error(
            "failed", exc_info=error.with_traceback(error.__traceback__), id="a\x1b[2Jb"
        )
    text = stderr().replace("invalid literal for int() with base 2: 'hunter2'", "")
    assert "Traceback" in text
    assert "hunter2" not in text
    assert "\x1b[2J" not in text


def test_a_log_that_nobody_reads_any_more_fails_nobody(
    monkeypatch: pytest.MonkeyPatch, stderr: Callable[[], str]
) -> None:
    """A closed standard error does not raise into the code that logs."""
    configure_logging()
    closed = StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    structlog.get_logger().error("lost")
    monkeypatch.undo()
    assert not stderr()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("SCHEDULER_STOR", "SCHEDULER_STORE"),
        ("SCHEDULER_MAX_INFLIGHT", "SCHEDULER_MAX_IN_FLIGHT"),
        ("SCHEDULER_LIMIT", "SCHEDULER_LIMITS"),
        ("SCHEDULER_TIMEOUT", "SCHEDULER_TIMEOUTS"),
        ("SCHEDULER_ATTEMPT_TIMEOUTS", "SCHEDULER_ATTEMPT_TIMEOUT"),
        ("SCHEDULER_NATS_URL", "NATS_URL"),
        ("SCHEDULER_NATS_URI", "NATS_URI"),
    ],
)
def test_variables_that_are_nearly_ours_are_told(name: str, meant: str) -> None:
    """The message names the variable and the one that was meant."""
    assert misspelt_variables([name, "HOME"]) == [f"{name} is none of our variables; did you mean {meant}?"]


def test_variables_of_others_are_left_alone() -> None:
    """What Kubernetes sets for services, what is like none of ours, and ours themselves are not told."""
    kubernetes = [
        *(
            "SCHEDULER_PORT",
            "SCHEDULER_SERVICE_HOST",
            "SCHEDULER_SERVICE_PORT",
            "SCHEDULER_SERVICE_PORT_NATS",
        ),
        *("SCHEDULER_PORT_4222_TCP", "SCHEDULER_PORT_4222_TCP_ADDR", "SCHEDULER_PORT_4222_TCP_PROTO"),
        *("SCHEDULER_LIMIT_SERVICE_HOST", "SCHEDULER_STOR_PORT", "SCHEDULER_KEEP_PORT_80_TCP_PORT"),
    ]
    others = ["SCHEDULER_", "SCHEDULER_HOME", "SCHEDULER_IMAGE_TAG", "STOR", "XSCHEDULER_STOR"]
    assert misspelt_variables([*kubernetes, *others, *our_variables()]) == []


def test_every_variable_of_a_command_is_known() -> None:
    """Each flag that has a variable has one of those that are ours."""
    app = build_app()
    heard = {
        variable
        for command in COMMANDS
        for argument in app[command].assemble_argument_collection()
        for variable in argument.parameter.env_var or ()
    }
    assert heard == our_variables()
