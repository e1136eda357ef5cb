"""The streams: how they are set up and checked, over a real server."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from conftest import ServerFactory
from support.brokers import NatsServer, eventually

from scheduler.bus import Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.errors import (
    JetStreamError,
    JetStreamUnavailable,
    LogMissing,
    NoResponders,
    NotPermitted,
    StoreError,
)
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.reading import read
from scheduler.jetstream.setup import _compare, set_up
from scheduler.jetstream.streams import (
    LOG,
    OBJECTS,
    REPLIES,
    REPORTS,
    StreamLayout,
    configs,
    log_subject,
    reply_streams,
    report_subject,
)

integration = pytest.mark.integration


@asynccontextmanager
async def open_js(server: NatsServer, *, patience: float = 5.0) -> AsyncIterator[JetStream]:
    async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
        yield JetStream(bus, timeout=patience)


@pytest.fixture
async def js(jetstream_server: NatsServer) -> AsyncIterator[JetStream]:
    async with open_js(jetstream_server) as js:
        yield js


def wanted(stream: str, layout: StreamLayout | None = None) -> dict[str, Any]:
    return next(one for one in configs(layout or StreamLayout()) if one["name"] == stream)


async def names(js: JetStream) -> set[str]:
    return set((await js.call("STREAM.NAMES"))["streams"] or ())


def test_a_build_in_a_subject() -> None:
    """An id is one token, whatever it holds."""
    assert log_subject("b-1") == "scheduler.log.b-1"
    assert log_subject("a.b*") == "scheduler.log.a=2Eb=2A"
    assert report_subject("a.b", 2) == "scheduler.report.a=2Eb.2"


# Making them.


@integration
async def test_the_streams_are_made_as_they_should_be(js: JetStream) -> None:
    """On a server that has none of them; what was made is what was wanted."""
    assert await set_up(js, StreamLayout(reply_bytes=10_000_000)) == []
    have = {stream: (await js.info(stream)).config for stream in (LOG, REPLIES, REPORTS, OBJECTS)}
    assert {config["storage"] for config in have.values()} == {"file"}
    assert {config["retention"] for config in have.values()} == {"limits"}
    assert {config["num_replicas"] for config in have.values()} == {1}
    for stream in (LOG, REPORTS, OBJECTS):
        config = have[stream]
        assert (config["max_age"], config["max_bytes"], config["max_msgs"]) == (0, -1, -1)
        assert config["discard"] == "new"
        assert not config.get("no_ack")
    assert have[LOG]["subjects"] == ["scheduler.log.*"]
    assert have[LOG]["allow_direct"] is False
    assert have[REPORTS]["subjects"] == ["scheduler.report.*.*"]
    assert have[OBJECTS]["allow_rollup_hdrs"] is True
    replies = have[REPLIES]
    assert len(replies["subjects"]) == 12
    assert {"*.create.*.done", "*.find.*.error", "scheduler.reply.*"} < set(replies["subjects"])
    assert (replies["no_ack"], replies["persist_mode"], replies["discard"]) == (True, "async", "old")
    assert (replies["max_age"], replies["max_bytes"]) == (72 * 3600 * 10**9, 10_000_000)


@integration
async def test_setting_up_again_changes_nothing(js: JetStream) -> None:
    """Neither the next time, nor while others do the same."""
    results: list[list[str]] = []

    async def one() -> None:
        results.append(await set_up(js, StreamLayout()))

    for _ in range(2):
        async with trio.open_nursery() as nursery:
            for _ in range(5):
                nursery.start_soon(one)
    assert results == [[]] * 10
    await js.publish(log_subject("b"), b"1")
    assert await set_up(js, StreamLayout()) == []
    assert (await js.info(LOG)).messages == 1


@integration
@pytest.mark.parametrize("questions", [1, 2, 3, 4])
async def test_another_process_makes_them_between_two_questions(js: JetStream, questions: int) -> None:
    """A process that finds a stream made after the log finds the log as well: nothing looks lost."""
    call, asked = js.call, 0

    async def slow(endpoint: str, body: Any = None) -> dict[str, Any]:
        nonlocal asked
        problem: JetStreamError | None = None
        try:
            answer = await call(endpoint, body)
        except JetStreamError as error:
            problem = error
        asked += 1
        if asked == questions:
            await set_up(JetStream(js.bus), StreamLayout())
        if problem is not None:
            raise problem
        return answer

    js.call = slow  # type: ignore[method-assign]
    assert await set_up(js, StreamLayout()) == []


@integration
async def test_replies_are_captured_with_nobody_listening(js: JetStream) -> None:
    """Those of each verb, without acknowledgements; a request without a subscriber still gets its 503."""
    await set_up(js, StreamLayout())
    answers: list[Message] = []
    inbox = js.bus.new_inbox()
    await js.bus.subscribe(inbox, answers.append)
    subjects = [
        "vpc.create.aws.done",
        "vpc.find.aws.error",
        "scheduler.reply.x",
        "vpc.list.aws.done",
        "a.b.done",
    ]
    for subject in subjects:
        js.bus.publish(subject, b"1", reply=inbox)
    with pytest.raises(NoResponders):
        await js.bus.request("vpc.create.aws", b"")
    await js.bus.flush()
    found: list[str] = []
    with trio.fail_after(5):
        while len(found) < 3:
            found = [one.subject for one in [await js.get(REPLIES, n) for n in (1, 2, 3)] if one]
    assert found == subjects[:3]
    assert (await js.info(REPLIES)).last_sequence == 3
    assert [one.subject for one in answers if not one.no_responders] == []


@integration
async def test_the_log_is_made_anew_with_nothing_but_replies_left(js: JetStream) -> None:
    """The stream of replies is made first, and so proves nothing."""
    await js.call(f"STREAM.CREATE.{REPLIES}", wanted(REPLIES))
    assert await set_up(js, StreamLayout()) == []
    assert await names(js) == {LOG, REPLIES, REPORTS, OBJECTS}


@integration
@pytest.mark.parametrize("left", [REPORTS, OBJECTS])
async def test_a_log_that_is_gone_is_not_made_again(js: JetStream, left: str) -> None:
    """What is made after it is still there, so there was one."""
    await set_up(js, StreamLayout())
    for stream in {LOG, REPORTS, OBJECTS, REPLIES} - {left}:
        await js.call(f"STREAM.DELETE.{stream}")
    with pytest.raises(
        LogMissing, match=f"SCHEDULER_LOG is missing, although there is {left}.*stream restore"
    ):
        await set_up(js, StreamLayout())
    assert await names(js) == {left}


@integration
@pytest.mark.parametrize("gone", [REPLIES, REPORTS, OBJECTS])
async def test_another_stream_that_is_gone_is_made_anew_and_told(js: JetStream, gone: str) -> None:
    """What it held is lost; with an empty log there was nothing to lose."""
    await set_up(js, StreamLayout())
    await js.call(f"STREAM.DELETE.{gone}")
    assert await set_up(js, StreamLayout()) == []
    await js.publish(log_subject("b"), b"1")
    await js.call(f"STREAM.DELETE.{gone}")
    lines = await set_up(js, StreamLayout())
    assert lines == [f"stream {gone} was missing beside {LOG}: it was made again, and what it held is lost"]
    assert await set_up(js, StreamLayout()) == []


# What cannot be made.


@integration
async def test_an_overlap_is_named_with_its_cure(js: JetStream) -> None:
    """Which subject, which stream; capturing by type is one of the cures. Nothing else is made."""
    await js.call("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["name.>", "z"]})
    with pytest.raises(StoreError) as refused:
        await set_up(js, StreamLayout())
    text = str(refused.value)
    assert r"its subject *.create.*.done overlaps with stream OTHER (name.>, z)" in text
    assert "an account of its own" in text
    assert "SCHEDULER_CAPTURE=" in text
    assert await names(js) == {"OTHER"}
    layout = StreamLayout(capture=("vpc", "network"))
    assert await set_up(js, layout) == []
    assert await set_up(js, layout) == []
    assert len((await js.info(REPLIES)).config["subjects"]) == 22
    js.bus.publish("network.create.aws.done", b"1")
    js.bus.publish("name.create.aws.done", b"1")
    await js.publish("z", b"1")
    info = await js.info("OTHER")
    assert info.messages == 2


@integration
async def test_an_overlap_of_another_stream(js: JetStream) -> None:
    """Capturing less would be no cure for that."""
    await js.call("STREAM.CREATE.OTHER", {"name": "OTHER", "subjects": ["scheduler.log.>"]})
    with pytest.raises(
        StoreError, match=r"SCHEDULER_LOG: its subject scheduler\.log\.\* overlaps"
    ) as refused:
        await set_up(js, StreamLayout())
    assert "CAPTURE" not in str(refused.value)


@integration
async def test_more_copies_than_there_are_servers(js: JetStream) -> None:
    """The cure is a cluster, or fewer copies."""
    with pytest.raises(
        StoreError, match=r"cannot keep 3 copies of it.*3 servers with JetStream in a cluster"
    ):
        await set_up(js, StreamLayout(replicas=3))
    assert await names(js) == set()


@integration
async def test_no_room_for_the_replies(start_nats_server: ServerFactory) -> None:
    """The server sets aside as much as the stream may take."""
    server = start_nats_server({"jetstream": {"store_dir": "store", "max_file_store": 10_000_000}})
    async with open_js(server) as js:
        with pytest.raises(StoreError, match=r"no room for it.*max_file_store.*\(20000000 are asked for\)"):
            await set_up(js, StreamLayout(reply_bytes=20_000_000))
        assert await set_up(js, StreamLayout(reply_bytes=5_000_000)) == []


@integration
async def test_a_refusal_in_the_servers_words(start_nats_server: ServerFactory) -> None:
    """What we know no cure for is handed on."""
    limits = {"jetstream": {"max_streams": 2, "max_store": -1, "max_mem": -1}}
    account = {"A": {**limits, "users": [{"user": "a", "password": "b"}]}}
    server = start_nats_server({"accounts": account, "jetstream": {"store_dir": "store"}})
    server.user_info = "a:b"
    async with open_js(server) as js:
        with pytest.raises(
            StoreError, match=r"cannot make stream SCHEDULER_REPORTS: .*maximum number of streams"
        ):
            await set_up(js, StreamLayout())


@integration
async def test_a_server_that_cannot_say(jetstream_server: NatsServer) -> None:
    """It may be asked again later; nothing is concluded from its silence."""
    async with open_js(jetstream_server, patience=0.2) as js:
        await set_up(js, StreamLayout())
        jetstream_server.stop()
        await eventually(lambda: not js.bus.connected)
        with trio.fail_after(3), pytest.raises(JetStreamUnavailable):
            await set_up(js, StreamLayout())


# What is different.


async def differ(js: JetStream, stream: str, **changes: Any) -> None:
    await js.call(f"STREAM.UPDATE.{stream}", {**wanted(stream), **changes})


@integration
@pytest.mark.parametrize(
    ("stream", "changes", "text", "flag"),
    [
        (LOG, {"max_age": 3600 * 10**9}, ": max_age is 3600 s, expected 0 s", "max-age=0s"),
        (
            LOG,
            {"max_msgs_per_subject": 5},
            ": max_msgs_per_subject is 5, expected -1",
            "max-msgs-per-subject=-1",
        ),
        (REPORTS, {"allow_direct": True}, ": allow_direct is on, expected off", "no-allow-direct"),
        (OBJECTS, {"allow_rollup_hdrs": False}, ": allow_rollup_hdrs is off, expected on", "allow-rollup"),
        (
            REPLIES,
            {"max_bytes": 5_000_000},
            ": max_bytes is 5000000, expected 1073741824",
            "max-bytes=1073741824",
        ),
        (LOG, {"subjects": ["scheduler.log.*", "extra"]}, " takes extra too", "subjects=scheduler.log.*"),
    ],
)
async def test_a_deviation_is_told_with_its_cure(
    js: JetStream, stream: str, changes: dict[str, Any], text: str, flag: str
) -> None:
    """In one line, and nothing is changed."""
    await set_up(js, StreamLayout())
    await differ(js, stream, **changes)
    before = await js.info(stream)
    lines = await set_up(js, StreamLayout())
    assert lines == [f"stream {stream}{text}; change it: nats stream edit {stream} '--{flag}'"]
    assert (await js.info(stream)).config == before.config


def test_what_a_server_leaves_out_is_off() -> None:
    """That is no deviation from what shall be off."""
    want = wanted(LOG)
    assert _compare(want, {key: value for key, value in want.items() if value}) == []


@integration
async def test_a_deviation_that_cannot_be_changed(js: JetStream) -> None:
    """The cure is to restore what the stream holds into a better one."""
    await set_up(js, StreamLayout())
    await differ(js, LOG, deny_delete=True)
    (line,) = await set_up(js, StreamLayout())
    assert line.startswith("stream SCHEDULER_LOG: deny_delete is on, expected off; this cannot be changed:")
    assert line.endswith("nats stream backup SCHEDULER_LOG, and restore it with a corrected configuration")


@integration
async def test_a_deviation_of_replies_that_cannot_be_changed(js: JetStream) -> None:
    """That stream may be removed while no build runs; several deviations are several lines."""
    config = wanted(REPLIES) | {"storage": "memory", "max_age": 60 * 10**9}
    del config["persist_mode"]
    await js.call(f"STREAM.CREATE.{REPLIES}", config)
    lines = await set_up(js, StreamLayout())
    assert [line.partition(" is ")[0].rpartition(" ")[2] for line in lines] == [
        "storage",
        "max_age",
        "persist_mode",
    ]
    assert lines[0].endswith("while no build runs, nats stream rm SCHEDULER_REPLIES, then start again")
    assert "persist_mode is off, expected async" in lines[2]


@integration
async def test_a_stream_that_lacks_subjects_is_given_them(js: JetStream) -> None:
    """As an earlier version made it: its content stays, and so do harmless additions."""
    config = wanted(REPLIES)
    subjects = [*(one for one in config["subjects"] if one != "scheduler.reply.*.*.*"), "theirs.done"]
    await js.call(f"STREAM.CREATE.{REPLIES}", config | {"subjects": subjects})
    js.bus.publish("scheduler.reply.k-0", b"old")
    await hold(js, REPLIES, 1)
    [line] = await set_up(js, StreamLayout())
    assert line.startswith("stream SCHEDULER_REPLIES takes theirs.done too; ")
    js.bus.publish("scheduler.reply.own.aws.t", b"new")
    await hold(js, REPLIES, 2)
    info = await js.info(REPLIES)
    assert set(info.config["subjects"]) == {*wanted(REPLIES)["subjects"], "theirs.done"}
    assert info.config["persist_mode"] == "async"


@integration
async def test_more_types_are_captured_where_they_are_asked_for(js: JetStream) -> None:
    """A setting that is changed between two starts is carried out; what is in the way of it goes."""
    await set_up(js, StreamLayout(capture=("vpc",)))
    for layout in (StreamLayout(capture=("vpc", "net")), StreamLayout(), StreamLayout(capture=("net",))):
        await set_up(js, layout)
        have = set((await js.info(REPLIES)).config["subjects"])
        assert have == set(wanted(REPLIES, layout)["subjects"])


@integration
async def test_providers_get_streams_of_their_own_and_lose_them_again(js: JetStream) -> None:
    """On a live server: what was captured stays where it is, and what comes is taken by whose it is now."""
    subjects = ("vpc.create.aws.done", "scheduler.reply.own.gcp.token", "scheduler.reply.k-0")
    for number, providers in enumerate(((), ("aws", "gcp"), ("gcp",), (), ("aws", "gcp")), 1):
        assert await set_up(js, StreamLayout(providers=providers)) == []
        for subject in subjects:
            js.bus.publish(subject, b"%d" % number)
        await js.bus.flush()
    await hold(js, REPLIES, 3 + 1 + 1 + 3 + 1)
    await hold(js, f"{REPLIES}_aws", 2)
    await hold(js, f"{REPLIES}_gcp", 3)
    live, retired = await reply_streams(js, StreamLayout(providers=("aws",)))
    assert (set(live), set(retired)) == ({"", "aws"}, {"gcp"})
    [batch] = [batch async for batch in read(js, REPLIES)]
    assert [one.data for one in batch] == [b"1", b"1", b"1", b"2", b"3", b"4", b"4", b"4", b"5"]


async def hold(js: JetStream, stream: str, count: int) -> None:
    """Wait until a stream holds so many messages."""
    with trio.fail_after(5):
        while (await js.info(stream)).messages != count:  # noqa: ASYNC110 - nothing tells of it
            await trio.sleep(0.01)


@integration
async def test_where_subjects_may_not_be_changed_the_cure_is_told(js: JetStream) -> None:
    """The permission and the alternative are named: replies that are not taken would be lost."""
    await set_up(js, StreamLayout(capture=("vpc",)))
    call = js.call

    async def forbidden(endpoint: str, body: Any = None) -> dict[str, Any]:
        if endpoint.startswith("STREAM.UPDATE."):
            raise NotPermitted("publish on", f"$JS.API.{endpoint}")
        return await call(endpoint, body)

    js.call = forbidden  # type: ignore[method-assign]
    with pytest.raises(StoreError) as refused:
        await set_up(js, StreamLayout(capture=("vpc", "net")))
    text = str(refused.value)
    assert text.startswith("stream SCHEDULER_REPLIES does not take net.create.*.done, net.create.*.error, ")
    assert "the broker refused to publish on $JS.API.STREAM.UPDATE.SCHEDULER_REPLIES; allow that, or" in text
    _, _, flag = text.partition("nats stream edit SCHEDULER_REPLIES '--subjects=")
    assert set(flag.rstrip("'").split(",")) == set(
        wanted(REPLIES, StreamLayout(capture=("vpc", "net")))["subjects"]
    )


@integration
async def test_an_overlap_that_new_subjects_make_is_named(js: JetStream) -> None:
    """Another program's stream may have come in the way since."""
    await set_up(js, StreamLayout(capture=("vpc",)))
    await js.call("STREAM.CREATE.THEIRS", {"name": "THEIRS", "subjects": ["net.>"]})
    with pytest.raises(
        StoreError, match=r"cannot be changed: its subject net\..* overlaps with stream THEIRS"
    ):
        await set_up(js, StreamLayout(capture=("vpc", "net")))


@integration
async def test_another_version_makes_the_streams_meanwhile(js: JetStream) -> None:
    """The second process finds the stream of the first, and reports how it differs."""
    call = js.call

    async def late(endpoint: str, body: Any = None) -> dict[str, Any]:
        if endpoint == f"STREAM.CREATE.{LOG}":
            await call(endpoint, {**body, "max_age": 3600 * 10**9})
        return await call(endpoint, body)

    js.call = late  # type: ignore[method-assign]
    lines = await set_up(js, StreamLayout())
    assert [line.partition(";")[0] for line in lines] == [
        "stream SCHEDULER_LOG: max_age is 3600 s, expected 0 s"
    ]
