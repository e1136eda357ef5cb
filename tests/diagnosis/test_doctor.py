"""What the doctor makes of what it finds, with a broker in memory."""

from collections.abc import Callable, Mapping
from io import StringIO
from typing import Any

import pytest
import trio
from rich.console import Console
from support.fake_bus import FakeBus
from support.fake_jetstream import NO_ROOM, FakeJetStream, plug_into
from trio.testing import MockClock

from scheduler.config import Settings
from scheduler.definition.limits import Limits
from scheduler.diagnosis import Diagnosis, Level, size
from scheduler.diagnosis.commits import check_commits
from scheduler.diagnosis.examination import examine
from scheduler.diagnosis.jetstream import check_jetstream
from scheduler.diagnosis.output import show
from scheduler.diagnosis.permissions import DOCTOR, SUBSCRIPTIONS, check_permissions, publishes
from scheduler.diagnosis.versions import DEFECTS, check_version
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import LOG, REPLIES, REPORTS, StreamLayout

MEBIBYTE = 1024 * 1024


def levels(diagnosis: Diagnosis, check: str) -> list[Level]:
    """How bad each finding of a check is."""
    return [finding.level for finding in diagnosis.findings if finding.check == check]


def words(diagnosis: Diagnosis, check: str) -> str:
    """All that a check says, cures included."""
    return "\n".join(f"{one.text}\n{one.cure}" for one in diagnosis.findings if one.check == check)


def examined(version: str, *, replicas: int = 1, jetstream: bool = True) -> Diagnosis:
    diagnosis = Diagnosis(version=version)
    check_version(diagnosis, replicas=replicas, jetstream=jetstream)
    return diagnosis


# Versions.


@pytest.mark.parametrize("version", ["2.15.1", "2.15.0-RC.1", "2.15"])
def test_the_version_that_is_tested_with_is_well(version: str) -> None:
    """Nothing is held against it."""
    assert levels(examined(version, replicas=3), "server") == [Level.OK]


@pytest.mark.parametrize(
    ("version", "replicas", "expected"),
    [
        ("2.14.0", 3, {Level.OK}),
        ("2.12.6", 3, {Level.OK}),
        ("2.12.5", 1, {Level.WARNING}),
        ("2.12.2", 3, {Level.WARNING}),
        ("2.11.15", 1, {Level.NOTE}),
        ("2.11.1", 1, {Level.WARNING, Level.NOTE}),
        ("2.10.22", 3, {Level.WARNING, Level.NOTE}),
        ("2.9.25", 1, {Level.FAILURE}),
        ("2.16.0", 1, {Level.OK, Level.NOTE}),
        ("dev", 1, {Level.NOTE}),
    ],
)
def test_a_version_is_judged_by_its_holes(version: str, replicas: int, expected: set[Level]) -> None:
    """Too old is a failure, what is known to lose or leak a warning, what is missing or new a note."""
    assert set(levels(examined(version, replicas=replicas), "server")) == expected


def test_some_holes_concern_clusters_only() -> None:
    """What takes several replicas is not held against one server."""
    assert "killed" in words(examined("2.10.22", replicas=3), "server")
    assert "killed" not in words(examined("2.10.22"), "server")


def test_holes_of_jetstream_concern_those_who_use_it() -> None:
    """For the other stores an old version will do."""
    assert levels(examined("2.9.25", jetstream=False), "server") == [Level.OK]


def test_every_hole_is_closed_again() -> None:
    """A range of versions begins before it ends."""
    assert all(hole.since < hole.fixed for hole in DEFECTS)


# What is told.


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0 bytes"), (1023, "1023 bytes"), (1024, "1 KiB"), (1.5 * MEBIBYTE, "1.5 MiB"), (2**40, "1 TiB"),
     (2**55, "32768 TiB")],
)  # fmt: skip
def test_sizes_are_readable(number: float, text: str) -> None:
    """A number of bytes is given in the unit that people would use."""
    assert size(number) == text


def told(diagnosis: Diagnosis) -> str:
    out = StringIO()
    show(diagnosis, Console(file=out, width=80, highlight=False))
    return out.getvalue()


def test_findings_fit_a_terminal() -> None:
    """80 columns, each with its level, what was looked at, and the cure below."""
    diagnosis = Diagnosis("nats://h:1", "2.15.1")
    diagnosis.ok("server", "fine " * 30)
    diagnosis.fail("permissions", "may not publish", "let it publish on " + "$JS.API." + "X" * 150)
    text = told(diagnosis)
    assert max(map(len, text.splitlines())) <= 80
    assert "\x1b" not in text
    assert text.count("X") == 150
    assert "failure permissions may not publish" in text


def test_what_a_broker_says_cannot_drive_the_terminal() -> None:
    """Names and errors come from elsewhere."""
    diagnosis = Diagnosis("nats://h:1", "2.15.1")
    diagnosis.warn("replicas", "cluster '\x1b[2J'", "[bold]a cure[/bold]")
    text = told(diagnosis)
    assert "\x1b" not in text
    assert "[bold]a cure[/bold]" in text


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        ([], "All is well."),
        ([Level.NOTE], "All is well."),
        ([Level.WARNING], "A service would run, with 1 warning."),
        ([Level.WARNING, Level.FAILURE], "A service would not run: 1 failure, 1 warning."),
    ],
)
def test_the_last_line_is_the_verdict(given: list[Level], verdict: str) -> None:
    """It counts what is to be seen to."""
    diagnosis = Diagnosis("nats://h:1", "2.15.1")
    for level in given:
        add = {Level.NOTE: diagnosis.note, Level.WARNING: diagnosis.warn, Level.FAILURE: diagnosis.fail}[
            level
        ]
        add("server", "text", "cure")
    assert told(diagnosis).splitlines()[-1] == verdict
    assert diagnosis.healthy == (Level.FAILURE not in given)


def test_programs_are_told_the_same() -> None:
    """The JSON form has every finding, and the numbers."""
    diagnosis = Diagnosis("nats://h:1", "2.15.1")
    diagnosis.warn("disk", "slow", "a faster one")
    diagnosis.facts["max_payload"] = 7
    assert diagnosis.document() == {
        "v": 1,
        "url": "nats://h:1",
        "version": "2.15.1",
        "healthy": True,
        "findings": [{"check": "disk", "level": "warning", "text": "slow", "cure": "a faster one"}],
        "facts": {"max_payload": 7},
    }


# Permissions.


async def test_who_may_do_all_is_told_so(fake_bus: FakeBus) -> None:
    """One line, and nothing is subscribed to afterwards."""
    diagnosis = Diagnosis(version="2.15.1")
    await check_permissions(diagnosis, fake_bus, "jetstream")
    assert levels(diagnosis, "permissions") == [Level.OK]
    assert fake_bus.subjects == []


async def test_what_is_tried_is_never_delivered(fake_bus: FakeBus) -> None:
    """Every message that tries a permission asks to be traced, and no more than that."""
    await check_permissions(Diagnosis(version="2.15.1"), fake_bus, "jetstream")
    tried = {subject for need in publishes("jetstream") for subject in need.subjects}
    assert {message.subject for message in fake_bus.published} == tried
    assert all((message.headers or {})["Nats-Trace-Only"] == "true" for message in fake_bus.published)
    assert all((message.headers or {})["Nats-Trace-Dest"] for message in fake_bus.published)


@pytest.mark.parametrize(
    ("forbidden", "level", "cure"),
    [
        ("scheduler.log.*", Level.FAILURE, 'let it publish on "scheduler.log.*"'),
        ("build.create.done", Level.FAILURE, 'let it publish on "build.*.done"'),
        ("$JS.API.STREAM.PURGE.>", Level.FAILURE, '"$JS.API.STREAM.PURGE.SCHEDULER_LOG"'),
        ("*.create.*", Level.WARNING, '"*.create.*"'),
        ("scheduler.doctor.>", Level.NOTE, '"scheduler.doctor.*"'),
    ],
)
async def test_what_may_not_be_published_is_named_with_its_line(
    fake_bus: FakeBus, forbidden: str, level: Level, cure: str
) -> None:
    """What the service cannot do without is a failure, what it may do without less."""
    fake_bus.forbidden = {forbidden}
    diagnosis = Diagnosis(version="2.15.1")
    await check_permissions(diagnosis, fake_bus, "auto")
    assert level in levels(diagnosis, "permissions")
    (finding,) = (one for one in diagnosis.findings if one.level is level and "publish" in one.text)
    assert cure in finding.cure


async def test_what_may_not_be_subscribed_to_is_named(fake_bus: FakeBus) -> None:
    """All of it in one finding."""
    fake_bus.forbidden = {"build.create", "scheduler.reply.*"}
    diagnosis = Diagnosis(version="2.15.1")
    await check_permissions(diagnosis, fake_bus, "memory")
    (finding,) = (one for one in diagnosis.findings if one.level is Level.FAILURE)
    assert finding.text.startswith(f"2 of the {len(SUBSCRIPTIONS)} subscriptions")
    assert 'let it subscribe to "build.create", "scheduler.reply.*"' in finding.cure


async def test_nothing_is_published_where_it_would_be_delivered(fake_bus: FakeBus) -> None:
    """A server that cannot trace is asked for subscriptions only, and that is said."""
    diagnosis = Diagnosis(version="2.10.27")
    await check_permissions(diagnosis, fake_bus, "jetstream")
    assert fake_bus.published == []
    assert levels(diagnosis, "permissions") == [Level.NOTE]


async def test_who_may_not_publish_on_his_inbox_is_told(fake_bus: FakeBus) -> None:
    """Without that, what is traced cannot be told from what is refused."""
    refuse = fake_bus._accept
    fake_bus._accept = lambda item: fake_bus.refuse(  # type: ignore[method-assign]
        "publish", item.head.partition(b"Nats-Trace-Dest: ")[2].partition(b"\r\n")[0].decode(), "no"
    )
    diagnosis = Diagnosis(version="2.15.1")
    await check_permissions(diagnosis, fake_bus, "jetstream")
    fake_bus._accept = refuse  # type: ignore[method-assign]
    assert levels(diagnosis, "permissions") == [Level.WARNING]
    assert '"_INBOX.>"' in words(diagnosis, "permissions")


def test_each_store_has_needs_of_its_own() -> None:
    """The memory store asks nothing of JetStream, Ernest's has its own questions, and a lease."""
    lines = {
        store: {need.line for need in publishes(store)} for store in ("memory", "ernest", "auto", "jetstream")
    }
    assert not any("$JS" in line for line in lines["memory"])
    assert lines["ernest"] - lines["memory"] == {
        "build.set.mapping", "build.get.mapping", "build.set.mapping.change",
        "build.set.mapping.component", "build.del.mapping.component", "build.find",
        "$JS.API.INFO", "$JS.API.STREAM.CREATE.KV_SCHEDULER", "$JS.API.STREAM.MSG.GET.KV_SCHEDULER",
        "$KV.SCHEDULER.>", "scheduler.fleet.news", "scheduler.instance.*.*",
    }  # fmt: skip
    assert lines["auto"] == lines["jetstream"] > lines["memory"]


# JetStream.


@pytest.fixture
def jetstream(fake_bus: FakeBus) -> FakeJetStream:
    return plug_into(fake_bus)


async def looked_at(bus: FakeBus, **settings: Any) -> Diagnosis:
    diagnosis = Diagnosis(version="2.15.1")
    await check_jetstream(diagnosis, bus, Settings(**settings))
    return diagnosis


async def test_without_jetstream_the_choices_are_named(fake_bus: FakeBus) -> None:
    """A failure for the store that needs it, a note for the others."""
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "jetstream") == [Level.FAILURE]
    assert "--store memory" in words(diagnosis, "jetstream")
    assert levels(await looked_at(fake_bus, store="ernest"), "jetstream") == [Level.NOTE]


async def test_looking_makes_nothing(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """The streams that a service would make are named as to come, and are not made."""
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.OK]
    assert "first start" in words(diagnosis, "streams")
    assert not jetstream.streams


async def test_streams_that_are_right_are_told_with_their_size(
    fake_bus: FakeBus, jetstream: FakeJetStream
) -> None:
    """All that the service has made is as it should be."""
    await set_up(JetStream(fake_bus), StreamLayout())
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.OK]
    assert f"{LOG} (0 bytes)" in words(diagnosis, "streams")
    assert len(jetstream.streams) == 4


async def test_a_stream_that_is_set_up_otherwise_is_told_with_its_cure(
    fake_bus: FakeBus, jetstream: FakeJetStream
) -> None:
    """As the service would say at its start."""
    await set_up(JetStream(fake_bus), StreamLayout())
    jetstream.streams[LOG].config["max_age"] = 3_600 * 10**9
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.WARNING]
    assert "max_age" in words(diagnosis, "streams")
    assert f"nats stream edit {LOG}" in words(diagnosis, "streams")


async def test_before_an_upgrade_the_connectors_permissions_come_first(
    fake_bus: FakeBus, jetstream: FakeJetStream
) -> None:
    """Replies are taken on more subjects than by an earlier version: nothing is changed, the cure is told."""
    await set_up(JetStream(fake_bus), StreamLayout())
    config = jetstream.streams[REPLIES].config
    config["subjects"] = [one for one in config["subjects"] if one != "scheduler.reply.*.*.*"]
    before = list(config["subjects"])
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.WARNING]
    assert "let each connector publish on scheduler.reply.*.<provider>.*" in words(diagnosis, "streams")
    assert jetstream.streams[REPLIES].config["subjects"] == before


async def test_streams_of_providers_are_looked_at_as_any(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """Those to come are named, and that others give up what they are to take; nothing is changed."""
    await set_up(JetStream(fake_bus), StreamLayout())
    before = list(jetstream.streams[REPLIES].config["subjects"])
    diagnosis = await looked_at(fake_bus, capture_providers=("aws", "gcp"))
    said = words(diagnosis, "streams")
    assert set(levels(diagnosis, "streams")) == {Level.NOTE}
    assert f"{REPLIES}: the service changes the captured subjects at its next start" in said
    assert f"{REPLIES}_aws, {REPLIES}_gcp: missing; the service makes them at its start" in said
    assert jetstream.streams[REPLIES].config["subjects"] == before
    await set_up(JetStream(fake_bus), StreamLayout(providers=("aws", "gcp")))
    diagnosis = await looked_at(fake_bus, capture_providers=("aws", "gcp"))
    assert levels(diagnosis, "streams") == [Level.OK]
    assert f"{REPLIES}_gcp (0 bytes)" in words(diagnosis, "streams")


async def test_a_log_that_is_gone_is_a_failure(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """With what to do about it."""
    await set_up(JetStream(fake_bus), StreamLayout())
    del jetstream.streams[LOG]
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.FAILURE]
    assert "nats stream restore" in words(diagnosis, "streams")


async def test_another_stream_in_the_way_is_named(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """Before the service would fail to start over it, with the cure."""
    await JetStream(fake_bus).call("STREAM.CREATE.MINE", {"name": "MINE", "subjects": ["vpc.>"]})
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "streams") == [Level.FAILURE]
    assert "MINE (vpc.>)" in words(diagnosis, "streams")
    assert "SCHEDULER_CAPTURE" in words(diagnosis, "streams")
    assert set(jetstream.streams) == {"MINE"}
    assert levels(await looked_at(fake_bus, capture=("network",)), "streams") == [Level.OK]


async def test_one_missing_stream_is_a_note(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """The service makes it; the other ones keep what they have."""
    await set_up(JetStream(fake_bus), StreamLayout())
    del jetstream.streams[REPORTS]
    assert levels(await looked_at(fake_bus), "streams") == [Level.NOTE]


@pytest.mark.parametrize(
    ("account", "level", "text"),
    [
        ({"limits": {"max_streams": 3}, "streams": 0}, Level.FAILURE, "3 streams, has 0, and needs 4 more"),
        ({"limits": {"max_storage": MEBIBYTE}}, Level.FAILURE, "no room for 1 GiB of captured replies"),
        ({"limits": {"max_storage": 10 << 30}, "storage": 1 << 30, "reserved_storage": 10 << 30},
         Level.FAILURE, "10 GiB are used"),
        ({"limits": {"max_storage": 12 << 30}, "storage": 1 << 30, "reserved_storage": 10 << 30},
         Level.WARNING, "10 GiB of 12 GiB are used"),
        ({"limits": {"max_bytes_required": True}}, Level.FAILURE, "max_bytes_required: false"),
        ({"limits": {"max_storage": 10 << 30, "max_streams": 4}, "storage": 0}, Level.OK, "of 10 GiB"),
        ({"tiers": {"R3": {"limits": {}}}}, Level.FAILURE, "tier R1"),
        ({"tiers": {"R1": {"limits": {"max_storage": -1}, "storage": 5}}}, Level.OK, "without a limit"),
    ],
)  # fmt: skip
async def test_the_limits_of_the_account_are_held_against_what_is_needed(
    fake_bus: FakeBus, jetstream: FakeJetStream, account: dict[str, Any], level: Level, text: str
) -> None:
    """What cannot fit is a failure before the service finds out; what nearly fills it, a warning."""
    jetstream._account = lambda *_: account  # type: ignore[method-assign]
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "jetstream") == [level]
    assert text in words(diagnosis, "jetstream")


async def test_a_jetstream_in_trouble_is_a_failure(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """With the server's own words."""
    jetstream.refusal = NO_ROOM
    diagnosis = await looked_at(fake_bus)
    assert levels(diagnosis, "jetstream") == [Level.FAILURE]
    assert "insufficient resources" in words(diagnosis, "jetstream")


# Commits.


async def tried(bus: FakeBus, replicas: int = 1) -> Diagnosis:
    diagnosis = Diagnosis(version="2.15.1")
    await check_commits(diagnosis, JetStream(bus), replicas)
    return diagnosis


async def test_commits_are_timed_and_nothing_stays(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """Two hundred appends, one after the other, each expecting the one before it."""
    diagnosis = await tried(fake_bus)
    facts = diagnosis.facts["commits"]
    assert (facts["count"], facts["replicas"]) == (200, 1)
    assert 0 < facts["p50_ms"] <= facts["p99_ms"]
    assert facts["per_second"] > 0
    expected = [
        (message.headers or {}).get("Nats-Expected-Last-Subject-Sequence")
        for message in fake_bus.published
        if message.subject == "scheduler.doctor.commits"
    ]
    assert expected == [str(number) for number in (*range(100), *range(200))]
    assert not jetstream.streams


async def test_when_it_is_interrupted_no_stream_stays(
    autojump_clock: MockClock,  # noqa: ARG001 - it is used by being there
    fake_bus: FakeBus,
    jetstream: FakeJetStream,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A server may create a stream after it was asked to remove it: so the answer to that is awaited."""
    call = JetStream.call

    async def slowly(js: JetStream, endpoint: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        if endpoint.startswith("STREAM.CREATE"):
            await trio.sleep(1)
        return await call(js, endpoint, body)

    monkeypatch.setattr(JetStream, "call", slowly)
    with trio.move_on_after(0.5):
        await tried(fake_bus)
    asked = [one.subject for one in fake_bus.published if "STREAM" in one.subject]
    assert [subject.split(".")[3] for subject in asked] == ["DELETE", "CREATE", "DELETE"]
    assert not jetstream.streams


async def test_clocks_that_differ_are_told(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """By how much, and how sure that is; more than a second is a warning."""
    diagnosis = await tried(fake_bus)
    difference = diagnosis.facts["clock"]
    assert abs(difference["difference_ms"]) > 1_000_000  # the twin lives on another day
    assert 0 < difference["error_ms"] < 1_000
    assert levels(diagnosis, "clock") == [Level.WARNING]
    assert not jetstream.streams


async def test_what_an_earlier_doctor_left_is_removed(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """One that was killed cannot tidy up."""
    config = {"name": DOCTOR, "subjects": ["scheduler.doctor.*"], "storage": "file"}
    await JetStream(fake_bus).call(f"STREAM.CREATE.{DOCTOR}", config)
    assert levels(await tried(fake_bus), "commits") == [Level.OK]
    assert not jetstream.streams


async def test_a_doctor_that_is_interrupted_leaves_nothing(
    fake_bus: FakeBus, jetstream: FakeJetStream
) -> None:
    """In the middle of its commits as well."""
    seen: list[set[str]] = []
    with trio.CancelScope() as scope:

        def interrupt(message: Any) -> bool:
            if message.subject == "scheduler.doctor.commits" and not seen:
                seen.append(set(jetstream.streams))
                scope.cancel()
            return False

        fake_bus.taps.append(interrupt)
        await tried(fake_bus)
    assert scope.cancelled_caught
    assert seen == [{DOCTOR}]
    assert not jetstream.streams


async def test_replicas_that_cannot_be_are_a_failure(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """It is tried, not guessed."""
    diagnosis = await tried(fake_bus, replicas=3)
    assert levels(diagnosis, "replicas") == [Level.FAILURE]
    assert "3 servers with JetStream in a cluster" in words(diagnosis, "replicas")
    assert not jetstream.streams


@pytest.mark.parametrize(
    "spoil",
    [
        lambda jetstream: jetstream.streams.pop(DOCTOR, None),
        lambda jetstream: setattr(jetstream, "refusal", NO_ROOM),
    ],
)
async def test_commits_that_cannot_be_tried_are_a_warning(
    fake_bus: FakeBus, jetstream: FakeJetStream, spoil: Callable[[FakeJetStream], None]
) -> None:
    """Whatever comes in between is told, and is not the end of the diagnosis."""

    def interfere(message: Any) -> bool:
        if message.subject == "scheduler.doctor.commits":
            spoil(jetstream)
        return False

    fake_bus.taps.insert(0, interfere)
    diagnosis = await tried(fake_bus)
    assert levels(diagnosis, "commits") == [Level.WARNING]


# All of it.


def known(bus: FakeBus, version: str = "2.15.1") -> Any:
    """The bus, as if it knew its server."""
    vars(bus).update(url="nats://h:1", server_version=version)
    return bus


async def test_the_whole_examination(fake_bus: FakeBus, jetstream: FakeJetStream) -> None:
    """Each check has its say, in the order in which one explains the next."""
    diagnosis = await examine(known(fake_bus), Settings())
    checks = list(dict.fromkeys(finding.check for finding in diagnosis.findings))
    assert checks == [
        "server", "messages", "pending", "permissions", "jetstream", "streams", "replicas", "commits", "disk",
        "clock", "instances",
    ]  # fmt: skip
    assert diagnosis.healthy
    assert not jetstream.streams
    assert set(diagnosis.facts) == {"max_payload", "jetstream", "commits", "clock"}


async def test_a_store_that_needs_no_jetstream_is_not_measured(
    fake_bus: FakeBus, jetstream: FakeJetStream
) -> None:
    """What is there and not used is said, and left alone."""
    diagnosis = await examine(known(fake_bus), Settings(store="memory"))
    assert levels(diagnosis, "jetstream") == [Level.OK]
    assert not levels(diagnosis, "commits")
    assert not jetstream.streams


@pytest.mark.parametrize(
    ("most", "store", "level", "text"),
    [
        (100_000, "auto", Level.WARNING, "or lower --max-component-bytes"),
        (MEBIBYTE, "auto", Level.OK, "larger ones use the object store"),
        (MEBIBYTE, "ernest", Level.NOTE, "larger ones cannot be submitted"),
        (8 * MEBIBYTE, "ernest", Level.OK, "18,641 components"),
        (64 * MEBIBYTE, "auto", Level.NOTE, "recommends at most 8 MiB"),
        (64 * MEBIBYTE, "auto", Level.NOTE, "JetStream keeps no message over 32 MiB"),
        (64 * MEBIBYTE, "memory", Level.NOTE, "recommends at most 8 MiB"),
    ],
)
async def test_max_payload_is_told_in_components(most: int, store: Any, level: Level, text: str) -> None:
    """What fits in a message, and what becomes of the rest."""
    bus = FakeBus(max_payload=most)
    diagnosis = await examine(known(bus), Settings(store=store))
    assert levels(diagnosis, "messages") == [level]
    assert text in words(diagnosis, "messages")


@pytest.mark.parametrize(
    ("most", "budget", "level", "text"),
    [
        (8 * MEBIBYTE, 32 * MEBIBYTE, Level.OK, "up to 32 MiB of requests"),
        (MEBIBYTE, 2 * MEBIBYTE, Level.OK, "up to 3 MiB of requests"),
        (MEBIBYTE, 100 * MEBIBYTE, Level.WARNING, "set max_pending to 210MB"),
    ],
)
async def test_what_a_connectors_connection_must_take(
    most: int, budget: int, level: Level, text: str
) -> None:
    """By the setting, against what a server keeps that was told nothing."""
    settings = Settings(store="memory", max_bytes_in_flight=budget)
    diagnosis = await examine(known(FakeBus(max_payload=most)), settings)
    assert levels(diagnosis, "pending") == [level]
    assert text in words(diagnosis, "pending")


async def test_a_component_has_to_fit_in_a_message() -> None:
    """By the limit that is set, not by a number of our own."""
    settings = Settings(store="memory", limits=Limits(max_component_bytes=10_000))
    diagnosis = await examine(known(FakeBus(max_payload=100_000)), settings)
    assert levels(diagnosis, "messages") == [Level.NOTE]
