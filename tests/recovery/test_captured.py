"""Captured replies of a fleet: which of them reach this process."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import Mapping

import pytest
import trio
from support.durable import Plant, log_of, until
from support.fake_bus import Published
from support.fakes import Reply, document, encode, ignore, states
from trio.testing import MockClock

from scheduler.definition.reply_subjects import interest, owner_of
from scheduler.definition.subjects import REPLY_SUBJECTS
from scheduler.jetstream.capturing import followed
from scheduler.jetstream.streams import LOG

ALONE = document("a")


def test_what_is_followed_is_shared_or_of_the_owners_named() -> None:
    """Each owner once, in an order that does not change."""
    assert followed(["b", "a", "b"]) == [
        *REPLY_SUBJECTS,
        "scheduler.reply.*",
        "scheduler.reply.a.*.*",
        "scheduler.reply.b.*.*",
    ]


def test_of_too_many_owners_all_replies_are_followed() -> None:
    """None is left out; the server would compare each message with each of them."""
    owners = [owner_of(str(number)) for number in range(129)]
    assert followed(owners)[-1] == "scheduler.reply.*.*.*"
    assert len(followed(owners[:128])) == len(REPLY_SUBJECTS) + 1 + 128


async def test_a_reply_to_another_instance_does_not_reach_this_one(autojump_clock: MockClock) -> None:
    """It stays in the stream; one on a shared subject, which may be for anybody, comes."""
    plant = Plant()
    async with plant.run() as process:
        await trio.sleep(1)
        before = process.store.positions.seen.sequence
        plant.broker.publish(f"scheduler.reply.{owner_of('other')}.aws.{'0' * 32}", b"{}")
        await trio.sleep(1)
        assert plant.broker.replies == before + 1
        assert process.store.positions.seen.sequence == before
        plant.broker.publish("vpc.create.aws.done", encode({"service": "b9", "_component_id": "z"}))
        await trio.sleep(1)
        assert process.store.positions.seen.sequence == before + 2


@pytest.mark.parametrize("answered", ["before", "after"])
async def test_a_reply_to_a_process_whose_build_is_taken_over_is_followed(
    answered: str, autojump_clock: MockClock
) -> None:
    """Captured before that, or after it, long after the start; nobody hears it directly."""
    plant = Plant()
    async with plant.run(ignore) as process:
        assert (await process.submit(ALONE))["status"] == "accepted"
        await trio.sleep(2)
    log = plant.broker.messages(LOG, log_of("b1"))
    plant.broker.jetstream.streams[LOG].remove([one.sequence for one in log])
    async with plant.run(ignore) as process:
        process.bus.forbidden.add(interest(owner_of("p1")))
        await trio.sleep(100)
        if answered == "before":
            plant.answer("a", Reply(via="reply"))
        for one in log:
            plant.broker.jetstream.take(Published(one.subject, one.data, "", unasserted(one.headers)))
        process.service.persistence.orphans.note()
        if answered == "after":
            await until(lambda: process.service.roster.see("b1"), 60)
            await trio.sleep(5)
            plant.answer("a", Reply(via="reply"))
        await until(lambda: process.reports, 60)
        assert states(process.reports[0][1]) == {"a": "completed"}


def unasserted(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers of a record, without what it expects to follow."""
    return {key: value for key, value in headers.items() if not key.startswith("Nats-Expected")}
