"""Submitting a build and following it, over a bus in memory."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import json
from typing import Any

import pytest
import trio
from attrs import evolve
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.commands.following import Submission, run_build

BUILD = Submission("b", "build.create", 1, b"{}")
FINISHED = {"id": "b", "status": "accepted", "finished": True}


async def serve(bus: FakeBus, *answers: Any, heard: bool) -> list[bytes]:
    """Answer submissions with what is next; None: not at all, and tell watchers that the build runs."""
    left, came = list(answers), []

    def handle(message: Message) -> None:
        came.append(message.data)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if answer is not None:
            bus.publish(message.reply, json.dumps(answer).encode())
            bus.deliver("build.create.done", b'{"id": "b"}')
        elif heard:
            bus.deliver("scheduler.event.b", b'{"v": 2, "build": "b", "events": []}')

    await bus.subscribe("build.create", handle)
    return came


@pytest.mark.parametrize("heard", [False, True])
async def test_a_build_that_ran_while_it_was_submitted_is_not_run_again(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, capsys: pytest.CaptureFixture[str], heard: bool
) -> None:
    """Although it is finished when a further copy comes; with --fresh one that ran before is."""
    fresh: list[Submission] = []

    def renew(before: Submission) -> Submission:
        fresh.append(evolve(before, id="c"))
        return fresh[-1]

    came = await serve(fake_bus, None, FINISHED, heard=heard)
    with trio.move_on_after(30):
        assert await run_build(fake_bus, BUILD, json=True, renew=renew) == 0
    assert len(fresh) == (not heard)
    assert len(came) == 2 + (not heard)


async def test_no_answer_to_a_submission_is_said(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the subject; and that the build may run nevertheless."""
    await serve(fake_bus, None, heard=False)
    assert await run_build(fake_bus, BUILD, json=True) == 1
    err = capsys.readouterr().err
    assert "no answer on build.create, asked 5 times within 60 s" in err
    assert "the build may still run" in err


async def test_a_scheduler_that_ends_is_said_once(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    """While another one is waited for."""
    stopping = {"id": "b", "status": "rejected", "error": {"code": "shutting_down", "message": "it ends"}}
    await serve(fake_bus, stopping, stopping, {"id": "b", "status": "accepted"}, heard=False)
    with trio.move_on_after(30):
        await run_build(fake_bus, BUILD, json=True)
    assert capsys.readouterr().err.count("shutting down: waiting up to 60 s") == 1
