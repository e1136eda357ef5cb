"""Submitting a build."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from typing import Any

import pytest
import trio
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.submit import Verdict, submit
from scheduler.errors import MessageTooLarge, NoResponders


async def answer_with(bus: FakeBus, document: Any) -> None:
    def answer(message: Message) -> None:
        bus.publish(message.reply, document if isinstance(document, bytes) else json.dumps(document).encode())

    await bus.subscribe("build.create", answer)


async def test_an_accepted_build_is_accepted(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """The scheduler's yes comes back as a yes."""
    await answer_with(fake_bus, {"id": "b", "status": "accepted"})
    assert await submit(fake_bus, "build.create", b"{}") == Verdict(accepted=True)


async def test_a_rejection_carries_every_detail(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """Code, message and details of a rejection come back, whatever form the details have."""
    details = ["changes[0]: no", {"place": "edges[1]", "message": "what?"}, {"message": "alone"}]
    error = {"code": "invalid", "message": "two things", "details": details}
    await answer_with(fake_bus, {"id": "b", "status": "rejected", "error": error})
    answer = await submit(fake_bus, "build.create", b"{}")
    assert answer == Verdict(
        accepted=False,
        code="invalid",
        message="two things",
        details=("changes[0]: no", "edges[1]: what?", "alone"),
    )


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'"yes"', b'{"status": "maybe"}', b"\xff", b"[" * 9_999])
async def test_an_answer_of_another_kind_is_no_yes(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, data: bytes
) -> None:
    """Something else that answers on the intake subject does not pass for a scheduler."""
    await answer_with(fake_bus, data)
    answer = await submit(fake_bus, "build.create", b"{}")
    assert (answer.accepted, answer.code) == (False, "unreadable")


@pytest.mark.parametrize("error", [None, 5, {}, {"details": 5}])
async def test_a_bare_rejection_is_one(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, error: object
) -> None:
    """A rejection that says nothing more is a rejection."""
    await answer_with(fake_bus, {"status": "rejected", "error": error})
    assert not (await submit(fake_bus, "build.create", b"{}")).accepted


async def test_nobody_there_and_too_large_are_told_apart(autojump_clock: trio.abc.Clock) -> None:
    """No scheduler, and a build over the server's limit, each have their exception."""
    bus = FakeBus(max_payload=1_000)
    with pytest.raises(NoResponders):
        await submit(bus, "build.create", b"{}")
    with pytest.raises(MessageTooLarge):
        await submit(bus, "build.create", b"x" * 1_001)
