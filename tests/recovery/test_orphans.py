"""Word of builds that no process may work on."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import trio
from trio.testing import MockClock

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
