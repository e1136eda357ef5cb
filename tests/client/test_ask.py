"""Asking a scheduler, and what it says when it refuses."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.ask import ask, get_build, get_summary, list_builds
from scheduler.errors import BusClosed, SchedulerError, SteeringError

JSON = dict[str, Any]


async def serve(bus: FakeBus, verb: str, answer: Callable[[JSON], Any]) -> list[JSON]:
    """Have somebody answer on a verb's subject; gives what is asked, as it comes."""
    asked: list[JSON] = []

    def handle(message: Message) -> None:
        asked.append(json.loads(message.data))
        said = answer(asked[-1])
        data, headers = said if isinstance(said, tuple) else (said, None)
        data = data if isinstance(data, bytes) else json.dumps(data).encode()
        bus.deliver(message.reply, data, headers=headers)

    await bus.subscribe(f"scheduler.build.{verb}", handle)
    return asked


def refusal(code: str, number: int, text: str) -> tuple[JSON, dict[str, str]]:
    headers = {"Nats-Service-Error": text, "Nats-Service-Error-Code": str(number)}
    return {"id": "b1", "error": {"code": code, "message": text}}, headers


async def test_an_answer_comes_back_as_it_is(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """What is asked reaches the verb's subject, and its answer is returned."""
    asked = await serve(fake_bus, "pause", lambda _: {"id": "b1", "status": "paused", "text": "ok"})
    assert await ask(fake_bus, "pause", {"id": "b1"}) == {"id": "b1", "status": "paused", "text": "ok"}
    assert asked == [{"id": "b1"}]


async def test_a_refusal_has_a_code_and_a_text(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """A refused order raises what the scheduler said."""
    await serve(fake_bus, "retry", lambda _: refusal("conflict", 409, "nothing has errored"))
    with pytest.raises(SteeringError, match=r"^nothing has errored$") as caught:
        await ask(fake_bus, "retry", {"id": "b1"})
    assert caught.value.code == "conflict"
    assert isinstance(caught.value, SchedulerError)


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"error": 5}', b'{"error": {}}', b"\xff"])
async def test_a_refusal_by_its_header_alone(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, body: bytes
) -> None:
    """The service's header refuses, whatever the body is."""
    await serve(fake_bus, "get", lambda _: (body, {"Nats-Service-Error": "went wrong"}))
    with pytest.raises(SteeringError, match=r"^went wrong$") as caught:
        await ask(fake_bus, "get", {"id": "b1"})
    assert caught.value.code == "internal"


async def test_a_refusal_by_its_body_alone(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """An answer with an error is a refusal, although its headers were lost on the way."""
    await serve(fake_bus, "get", lambda _: refusal("unknown", 404, "there is no build b1")[0])
    with pytest.raises(SteeringError) as caught:
        await ask(fake_bus, "get", {"id": "b1"})
    assert (caught.value.code, str(caught.value)) == ("unknown", "there is no build b1")


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"yes"', b"\xff", b"[" * 9_999])
async def test_what_is_no_answer_is_said_to_be_none(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, data: bytes
) -> None:
    """Something else that answers does not pass for a scheduler."""
    await serve(fake_bus, "list", lambda _: data)
    with pytest.raises(SteeringError, match="not a scheduler") as caught:
        await ask(fake_bus, "list", {})
    assert caught.value.code == "unreadable"


async def test_nobody_there_comes_with_the_cure(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Without a scheduler the text says what to do."""
    with pytest.raises(SteeringError, match=r"scheduler serve.*--nats-url") as caught:
        await ask(fake_bus, "list", {})
    assert caught.value.code == "nobody"


async def test_trouble_with_the_bus_stays_what_it_is(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """A bus that cannot be used is no refusal."""
    fake_bus.close()
    with pytest.raises(BusClosed):
        await ask(fake_bus, "list", {})


async def test_builds_come_page_by_page(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Every page is asked for, each after the last one's end; what is no build is left out."""
    pages: dict[str | None, JSON] = {
        None: {"builds": [{"id": "a"}, {"id": "b"}, 5], "next": "b"},
        "b": {"builds": [{"id": "c"}], "next": None},
    }
    asked = await serve(fake_bus, "list", lambda question: pages[question.get("after")])
    assert [one["id"] for one in await list_builds(fake_bus, finished=True)] == ["a", "b", "c"]
    assert [question["all"] for question in asked] == [True, True]


async def test_a_build_comes_page_by_page(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Components are those of all pages, everything else, its number too, is the first one's."""

    def answer(question: JSON) -> JSON:
        start = question["from"]
        following = start + 2 if start < 4 else None
        components = [{"id": f"c{number}"} for number in range(start, min(start + 2, 5))]
        return {"id": "b1", "seq": start + 7, "components": components, "next": following}

    asked = await serve(fake_bus, "get", answer)
    whole = await get_build(fake_bus, "b1", graph=True)
    assert [one["id"] for one in whole["components"]] == ["c0", "c1", "c2", "c3", "c4"]
    assert (whole["seq"], whole["next"]) == (7, None)
    assert [(question["from"], question["graph"]) for question in asked] == [(0, True), (2, True), (4, True)]


async def test_pages_that_go_in_circles_end(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """A page that does not lead on is the last one."""
    asked = await serve(fake_bus, "get", lambda _: {"components": [{"id": "c"}], "next": 5})
    assert len((await get_build(fake_bus, "b1"))["components"]) == 2
    assert len(asked) == 2


async def test_a_summary_is_without_components(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """How a build stands is asked without what it consists of."""
    asked = await serve(fake_bus, "get", lambda _: {"id": "b1", "status": "running"})
    assert (await get_summary(fake_bus, "b1"))["status"] == "running"
    assert asked == [{"id": "b1", "components": False}]
