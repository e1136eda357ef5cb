"""Submitting a build."""

# ruff: noqa: ARG001 - a test asks for the clock by naming it

import itertools
import json
from typing import Any

import pytest
import trio
from attrs import evolve
from support.durable import Broker
from support.fake_bus import FakeBus

from scheduler.bus import Message
from scheduler.client.submit import Verdict, submit
from scheduler.errors import MessageTooLarge, NoResponders, SteeringError
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects


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


class Schedulers:
    """Answer submissions with what is next, and with the last of it for ever; None: not at all."""

    def __init__(self, bus: FakeBus, *answers: Any) -> None:
        self.bus = bus
        self.answers = list(answers)
        self.came: list[tuple[float, bytes]] = []

    async def listen(self) -> "Schedulers":
        self.subscription = await self.bus.subscribe("build.create", self._handle)
        return self

    def _handle(self, message: Message) -> None:
        self.came.append((trio.current_time(), message.data))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            self.bus.publish(message.reply, json.dumps(answer).encode())


ACCEPTED = {"id": "b", "status": "accepted"}
STOPPING = {"id": "b", "status": "rejected", "error": {"code": "shutting_down", "message": "it is ending"}}


async def test_what_is_not_answered_is_submitted_again(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """With the same bytes, so under the same id; the answer says that it was."""
    schedulers = await Schedulers(fake_bus, None, None, {**ACCEPTED, "finished": True}).listen()
    answer = await submit(fake_bus, "build.create", b"{}")
    assert answer == Verdict(accepted=True, finished=True, repeated=True)
    assert {data for _, data in schedulers.came} == {b"{}"}
    assert [at - schedulers.came[0][0] for at, _ in schedulers.came] == pytest.approx([0, 2, 6])


async def test_a_minute_without_an_answer_is_silence(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """After five copies."""
    schedulers = await Schedulers(fake_bus, None).listen()
    began = trio.current_time()
    with pytest.raises(
        SteeringError, match=r"no answer on build\.create, asked 5 times within 60 s"
    ) as caught:
        await submit(fake_bus, "build.create", b"{}")
    assert caught.value.code == "silent"
    assert len(schedulers.came) == 5
    assert trio.current_time() - began == pytest.approx(60)


async def test_a_planned_restart_is_waited_for(fake_bus: FakeBus, autojump_clock: trio.abc.Clock) -> None:
    """With pauses that grow, each by chance half as long at least; it is said once."""
    schedulers = await Schedulers(fake_bus, *[STOPPING] * 6, ACCEPTED).listen()
    notes: list[str] = []
    answer = await submit(fake_bus, "build.create", b"{}", note=notes.append)
    assert answer == Verdict(accepted=True, repeated=True)
    [note] = notes
    assert "shutting down" in note
    times = [at for at, _ in schedulers.came]
    for longest, (before, after) in zip([0.5, 1, 2, 4, 8, 8], itertools.pairwise(times), strict=True):
        assert longest / 2 <= after - before <= longest


async def test_the_only_scheduler_is_waited_for_as_well(
    fake_bus: FakeBus, nursery: trio.Nursery, autojump_clock: trio.abc.Clock
) -> None:
    """For a moment nobody is there."""
    schedulers = await Schedulers(fake_bus, STOPPING).listen()

    async def restart() -> None:
        await trio.sleep(0.1)
        await schedulers.subscription.unsubscribe()
        await trio.sleep(10)
        await Schedulers(fake_bus, ACCEPTED).listen()

    nursery.start_soon(restart)
    assert (await submit(fake_bus, "build.create", b"{}")).accepted


async def test_no_restart_is_waited_for_longer_than_a_minute(
    fake_bus: FakeBus, autojump_clock: trio.abc.Clock
) -> None:
    """Then the refusal is the answer."""
    await Schedulers(fake_bus, STOPPING).listen()
    began = trio.current_time()
    answer = await submit(fake_bus, "build.create", b"{}")
    assert evolve(answer, repeated=False) == Verdict(
        accepted=False, code="shutting_down", message="it is ending"
    )
    assert trio.current_time() - began == pytest.approx(60)


async def test_a_large_build_is_uploaded_once_for_all_tries(autojump_clock: trio.abc.Clock) -> None:
    """And removed when it is taken."""
    broker = Broker()
    await broker.set_up()
    broker.bus.max_payload = 100_000
    schedulers = await Schedulers(broker.bus, None, STOPPING, ACCEPTED).listen()
    assert (await submit(broker.bus, "build.create", b"x" * 300_000, "b")).accepted
    assert len(schedulers.came) == 3
    [data] = {data for _, data in schedulers.came}
    assert await Objects(JetStream(broker.bus)).get(json.loads(data)["object"], most=1_000_000) is None
