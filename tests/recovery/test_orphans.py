"""Word of builds that no process may work on."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.durable import Plant, until
from support.fakes import document, ignore
from trio.testing import MockClock

from scheduler.errors import JetStreamUnavailable
from scheduler.fleet.fleet import Fleet
from scheduler.jetstream.answers import Stored
from scheduler.journal.history import History
from scheduler.recovery.orphans import Orphans
from scheduler.stores.log_reader import LogReader


async def test_each_word_is_heard_once_whenever_it_comes(autojump_clock: MockClock) -> None:
    """Several before anybody waits are one; afterwards it is quiet until the next."""
    orphans = Orphans()
    orphans.note()
    orphans.note()
    with trio.fail_after(1):
        await orphans.noted()
    with trio.move_on_after(1) as quiet:
        await orphans.noted()
    assert quiet.cancelled_caught
    orphans.note()
    with trio.fail_after(1):
        await orphans.noted()


@pytest.mark.parametrize(("owner", "looks"), [("b-1", False), ("gone-1", True), ("", True)])
async def test_a_build_that_a_live_instance_has_is_no_orphan(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch, owner: str, looks: bool
) -> None:
    """Clients submit again what they have had no answer for: that is no reason to read all logs."""
    async with Plant(ignore).run() as process:
        persistence = process.service.persistence
        monkeypatch.setattr(Fleet, "owners", lambda fleet: frozenset({fleet.instance, "b-1"}))
        await trio.sleep(60)
        noted = False

        def note() -> None:
            nonlocal noted
            noted = True

        monkeypatch.setattr(persistence.orphans, "note", note)
        persistence.note_orphan(owner)
        assert noted is looks


async def test_a_build_whose_owner_is_back_before_its_turn_is_left_to_it(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stood still, and its lease lapsed; of thousands of builds most are still its own when it goes on."""
    plant = Plant(ignore)
    async with plant.run(ignore) as process:
        assert (await process.submit(document("a")))["status"] == "accepted"
        await trio.sleep(2)
        before = process.service.persistence.instance
    back: set[str] = set()
    monkeypatch.setattr(Fleet, "owners", lambda fleet: frozenset({fleet.instance, *back}))
    last = LogReader.last

    async def goes_on(logs: LogReader, subject: str) -> Stored | None:
        back.add(before)
        return await last(logs, subject)

    monkeypatch.setattr(LogReader, "last", goes_on)
    records = len(plant.broker.told())
    async with plant.run(ignore) as process:
        await trio.sleep(60)
        assert len(plant.broker.told()) == records
        assert not process.service.roster.holds("b1")
        monkeypatch.setattr(LogReader, "last", last)
        back.clear()
        process.service.persistence.orphans.note()
        await until(lambda: process.service.roster.holds("b1"), 20)


async def test_a_build_that_was_marked_here_is_taken_up_although_its_owner_is_back(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By that mark its owner has lost it: left to that one, it would be nobody's."""
    plant = Plant(ignore)
    async with plant.run(ignore) as process:
        assert (await process.submit(document("a")))["status"] == "accepted"
        await trio.sleep(2)
        before = process.service.persistence.instance
    back: set[str] = set()
    monkeypatch.setattr(Fleet, "owners", lambda fleet: frozenset({fleet.instance, *back}))
    history = LogReader.history

    async def fails_once(logs: LogReader, subject: str) -> History:
        if not back:
            back.add(before)
            raise JetStreamUnavailable("no leader")
        return await history(logs, subject)

    monkeypatch.setattr(LogReader, "history", fails_once)
    async with plant.run(ignore) as process:
        await until(lambda: process.service.roster.holds("b1"), 20)
        await trio.sleep(10)
        assert process.service.roster.walk("b1") is not None
