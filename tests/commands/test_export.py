"""`scheduler export`: a build's log as JSON lines, whatever stands in it."""

import base64
import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
from support.brokers import NatsServer
from support.fake_bus import FakeBus
from support.fake_jetstream import plug_into
from support.logs import ACCEPTED, record, settled, started, written

from scheduler import cli
from scheduler.bus import Bus
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.commands.export import read_out, read_secrets
from scheduler.errors import StreamNotFound
from scheduler.jetstream.answers import format_time
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import StreamLayout, log_subject
from scheduler.journal.events import Accepted, Finished, Rekeyed
from scheduler.journal.records import Elsewhere, encode_event, tombstone

BUILD = "prod/eu-1:42"
GOLDEN = Path(__file__).parents[1] / "golden"
ROOT = Path(__file__).parents[2]
LOG = (GOLDEN / "log-v1.jsonl").read_bytes().removesuffix(b"\n").split(b"\n")
SHOWN = [one.replace(b'"key":"k3q8d0zv7m1x"', b'"key":"***"') for one in LOG]
"""As it is printed: the key of the reply subjects is for nobody."""
LARGE = (GOLDEN / "log-v1-elsewhere.json").read_bytes()
OBJECT = "scheduler.log.prod=2Feu-1=3A42/1-4-0"


async def keep(js: JetStream, *records: bytes, build: str = BUILD) -> None:
    """Write records to the log of a build."""
    for one in records:
        await js.publish(log_subject(build), one)


@pytest.fixture
async def js(fake_bus: FakeBus) -> JetStream:
    """A JetStream in memory with the streams of the service."""
    plug_into(fake_bus)
    js = JetStream(fake_bus)
    await set_up(js, StreamLayout())
    return js


async def texts(js: JetStream, build: str = BUILD) -> tuple[list[bytes], list[str]]:
    """The lines, and what is missing."""
    found: list[bytes] = []

    async def put(line: bytes) -> None:
        found.append(line)

    records, missing = await read_out(js, build, put)
    assert records == len(found)
    return found, missing


async def exported(js: JetStream, build: str = BUILD) -> tuple[list[Any], list[str]]:
    """The lines, read, and what is missing."""
    found, missing = await texts(js, build)
    assert not any(b"\n" in line for line in found)
    return list(map(json.loads, found)), missing


async def test_each_record_is_a_line(js: JetStream) -> None:
    """Every record of the build comes as it was written, with its number and the server's time."""
    await keep(js, *LOG[:2])
    await keep(js, written(record(1, ACCEPTED)), build="b-2")
    await keep(js, LOG[2])
    found, missing = await exported(js)
    assert [line["record"] for line in found] == list(map(json.loads, SHOWN[:3]))
    assert [line["sequence"] for line in found] == [1, 2, 4]
    for line in found:
        stored = await js.get("SCHEDULER_LOG", line["sequence"])
        assert stored is not None
        assert line["time"] == format_time(stored.time)
    assert missing == []


async def test_every_digit_stays(js: JetStream) -> None:
    """Records are handed on as text: nothing in them is rounded or put in another order."""
    await keep(js, LOG[0])
    (line,), _ = await texts(js)
    assert line.endswith(b',"record":%b}' % SHOWN[0])


async def test_what_reply_subjects_are_made_with_is_masked(js: JetStream) -> None:
    """In each event that has it, where it is in an object too; a component's field of that name is not."""
    key = "3c5e9a7f1b2d4c6e8f0a1b3c5d7e9f02"
    accepted = Accepted({"id": BUILD}, key=key)
    await Objects(js).put(OBJECT, encode_event(accepted))
    await keep(js, written(record(1, Elsewhere(OBJECT))), written(record(2, Rekeyed(key))))
    await keep(js, written(record(3, settled("a", key="shown"))))
    lines, _ = await texts(js)
    assert not any(key.encode() in line for line in lines)
    first, second, third = [json.loads(line)["record"]["events"][0] for line in lines]
    assert first == {**json.loads(encode_event(accepted)), "key": "***"}
    assert second == {"event": "rekeyed", "key": "***"}
    assert third["body"]["key"] == "shown"


async def test_a_large_event_is_put_in_its_place(js: JetStream) -> None:
    """What is in an object stands in its record, among the others."""
    await Objects(js).put(OBJECT, LARGE)
    first, last = started("vpc::ä"), Finished(None)
    await keep(js, written(record(4, first, Elsewhere(OBJECT), last)))
    (line,), missing = await exported(js)
    events = [json.loads(encode_event(first)), json.loads(LARGE), json.loads(encode_event(last))]
    assert line["record"]["events"] == events
    assert missing == []


async def test_an_object_that_is_gone_is_named(js: JetStream) -> None:
    """Without its object an event stands as it is, and the object's name is told."""
    await keep(js, LOG[3], LOG[4])
    found, missing = await exported(js)
    assert [line["record"] for line in found] == list(map(json.loads, LOG[3:5]))
    assert missing == [OBJECT]


async def test_what_only_looks_like_a_large_event(js: JetStream) -> None:
    """The word in a component's body points to nothing."""
    one = record(2, settled("elsewhere", event="elsewhere", object=OBJECT))
    await keep(js, written(one))
    (line,), missing = await exported(js)
    assert line["record"] == json.loads(written(one))
    assert missing == []


@pytest.mark.parametrize(
    "data",
    [
        b'{"v":2,"n":1,"lane":3,"events":[{"event":"paused"}]}',
        b'{"v":1}',
        b'{"v":1,"events":[{"event":"frozen","object":"elsewhere"}]}',
        b'{"v":1,"events":[\n{"event":\r\n"loading"}]}',
        b'{"v":1,\n"events":[{"event":"elsewhere"},{"event":"elsewhere","object":7},[],"elsewhere"],\r\n"n":1}',
    ],
)
async def test_what_this_version_does_not_know_is_shown(js: JetStream, data: bytes) -> None:
    """A log that cannot be read can be looked at all the same, each record on one line."""
    await keep(js, data)
    (line,), missing = await exported(js)
    assert line["record"] == json.loads(data)
    assert missing == []


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{", b"\xff", b'{"events":"elsewhere"}', b'{"events":["elsewhere']
)
async def test_what_is_no_record_is_shown_as_bytes(js: JetStream, data: bytes) -> None:
    """Whatever else is in the stream is told in base64."""
    await keep(js, data)
    (line,), _ = await exported(js)
    assert "record" not in line
    assert base64.b64decode(line["data"]) == data


async def masked(js: JetStream, *records: bytes) -> list[Any]:
    """What is shown of a log with these records, where secrets are not."""
    await keep(js, *records)
    found: list[bytes] = []

    async def put(line: bytes) -> None:
        found.append(line)

    await read_out(js, BUILD, put, secrets=await read_secrets(js, BUILD))
    return list(map(json.loads, found))


async def test_secrets_are_masked_wherever_they_come_up(js: JetStream) -> None:
    """What a record calls a secret is masked in all others, in those before it as well; all else stays."""
    plain = record(
        1, ACCEPTED, settled("a", note="was c4nary-one and c4nary-two", big=12345678901234567890123)
    )
    told = record(2, settled("b", password="c4nary-one"), settled("token=x", url="x://u:c4nary-two@h"))
    first, second = await masked(js, written(plain), written(told))
    [accepted, a] = first["record"]["events"]
    assert accepted == {**json.loads(written(plain))["events"][0], "key": "***"}
    assert a["body"]["note"] == "was *** and ***"
    assert a["body"]["big"] == 12345678901234567890123
    [b, named] = second["record"]["events"]
    assert b["body"]["password"] == "***"
    assert named["component"] == "token=x"
    assert named["body"]["url"] == "x://***@h"


@pytest.mark.parametrize(
    "data", [b"c4nary", b"[]", b'{"events":"c4nary"', b'{"x":' + b"[" * 300 + b"]" * 300 + b"}"]
)
async def test_what_cannot_be_read_cannot_be_masked(js: JetStream, data: bytes) -> None:
    """Where secrets are not shown, nor is what is no record: only how large it is."""
    (line,) = await masked(js, data)
    assert set(line) == {"sequence", "time", "hidden"}
    assert line["hidden"].startswith(f"{len(data)} bytes")


async def test_a_build_that_has_no_log(js: JetStream) -> None:
    """Of a build that never was there is no line."""
    await keep(js, *LOG)
    assert await exported(js, "prod/eu-1:4") == ([], [])
    assert await exported(js, "*") == ([], [])


async def test_a_broker_without_logs(fake_bus: FakeBus) -> None:
    """Where no scheduler ever kept a log, that is told."""
    plug_into(fake_bus)
    with pytest.raises(StreamNotFound):
        await exported(JetStream(fake_bus))


# The command, over a real server.


def on(server: NatsServer, job: Any) -> None:
    """Do something on a server."""

    async def main() -> None:
        async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
            await job(bus)

    trio.run(main)


async def fill(bus: Bus, *, large: bool = True) -> None:
    js = JetStream(bus)
    await set_up(js, StreamLayout())
    if large:
        await Objects(js).put(OBJECT, LARGE)
    await keep(js, *LOG)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Any:
    """Runs the command: its exit code, and lines of output and errors."""

    def run(server: NatsServer, build: str = BUILD, *flags: str) -> tuple[int, list[str], list[str]]:
        capfd.readouterr()
        code = cli.main(["export", build, "--nats-url", server.url, *flags])
        out, err = capfd.readouterr()
        return code, out.removesuffix("\n").split("\n") if out else [], err.splitlines()

    return run


@pytest.mark.integration
def test_a_whole_log(jetstream_server: NatsServer, run: Any) -> None:
    """Without a scheduler, the command prints the log that is there, whole, and exits with 0."""
    on(jetstream_server, fill)
    code, out, err = run(jetstream_server, BUILD, "--secrets")
    assert (code, err) == (0, [])
    found = [json.loads(line)["record"] for line in out]
    assert [one["n"] for one in found] == list(range(1, 17))
    assert found[3]["events"] == [json.loads(LARGE)]
    assert [one for one in found if one["n"] != 4] == [
        json.loads(one) for one in SHOWN if b'"n":4,' not in one
    ]


@pytest.mark.integration
def test_it_says_that_secrets_are_masked(jetstream_server: NatsServer, run: Any) -> None:
    """Without the flag a sentence on standard error says that what is shown is not what is stored."""
    on(jetstream_server, fill)
    code, out, err = run(jetstream_server)
    assert (code, len(out)) == (0, 16)
    assert err == ["scheduler: secrets are masked (***); --secrets shows them as stored"]


@pytest.mark.integration
def test_a_log_that_is_not_whole(jetstream_server: NatsServer, run: Any) -> None:
    """Where an object is gone the rest is printed; it exits with 1 and says so."""
    on(jetstream_server, partial(fill, large=False))
    code, out, err = run(jetstream_server, BUILD, "--secrets")
    assert (code, len(out)) == (1, 16)
    assert err == [f"scheduler: the log of build {BUILD} is incomplete: there is no object {OBJECT}"]


@pytest.mark.integration
def test_no_such_build(jetstream_server: NatsServer, run: Any) -> None:
    """There is one line that says so, and exit code 1; nothing of the name reaches the terminal unescaped."""
    assert run(jetstream_server, "b\x1b-3") == (
        1,
        [],
        ["scheduler: there is no log of build b\\x1b-3: the broker has no stream SCHEDULER_LOG"],
    )
    on(jetstream_server, fill)
    assert run(jetstream_server, "b\x1b-3") == (
        1,
        [],
        ["scheduler: there is no log of build b\\x1b-3; a finished build is kept for as long as --keep says"],
    )
    code, out, err = run(jetstream_server, "")
    assert (code, out, len(err)) == (1, [], 1)


@pytest.mark.integration
def test_no_jetstream(nats_server: NatsServer, run: Any) -> None:
    """On a broker without JetStream it says so in one line and exits with 1."""
    code, out, err = run(nats_server)
    assert (code, out, len(err)) == (1, [], 1)
    assert err[0].startswith(f"scheduler: the log of build {BUILD} cannot be read: ")
    assert "JetStream" in err[0]


@pytest.mark.integration
def test_a_reader_that_goes_away(jetstream_server: NatsServer) -> None:
    """`export BUILD | head -1` ends without a word."""

    async def much(bus: Bus) -> None:
        await fill(bus)
        await keep(JetStream(bus), *[written(record(2, settled("a", data="x" * 100_000)))] * 50)

    on(jetstream_server, much)
    tokens = [sys.executable, "-m", "scheduler", "export", BUILD, "--nats-url", jetstream_server.url]
    with subprocess.Popen(tokens, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        assert json.loads(process.stdout.readline())["sequence"] == 1
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 1


def test_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    """It is told what it prints, and what to watch out for."""
    assert cli.main(["export", "--help"]) == 0
    text = capsys.readouterr().out
    assert "JSON lines" in text
    assert "credentials" in text
    assert max(map(len, text.splitlines())) <= 80


async def test_a_log_that_was_removed_is_none(js: JetStream) -> None:
    """What stands in its place for a day says nothing of the build."""
    data, headers = tombstone("x", instance="me", at=1, why="kept for long enough")
    await js.publish(log_subject(BUILD), data, headers=headers)
    assert await texts(js) == ([], [])
