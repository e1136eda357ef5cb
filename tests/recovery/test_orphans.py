"""Word of builds that no process may work on."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.durable import Plant
from support.fakes import ignore
from trio.testing import MockClock

from scheduler.fleet.fleet import Fleet
from scheduler.recovery.orphans import Orphans


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
