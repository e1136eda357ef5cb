"""Drains the builds of a process at its end, within the grace; and leaves one to another process."""

from collections.abc import Callable
from functools import partial
from typing import Protocol

import structlog
import trio

from scheduler.stores import Store
from scheduler.supervision.roster import Roster
from scheduler.walk import Walk

_log = structlog.get_logger()


class Leaving(Protocol):
    """Store that a build can leave for another process, such as `stores.jetstream.JetStreamStore`."""

    @property
    def available(self) -> bool:
        """Whether commits go through, as far as is known."""

    async def note_arrivals(self) -> None:
        """Find out which requests the broker has, and persist that soon; it has a deadline of its own."""

    async def give(self, build: str, to: str) -> None:
        """Write into the log of a build, as the last of this process, who is to take it over."""


_CLOSING = 0.5
"""Seconds for what is being persisted when the grace ends."""
_GIVING = 30.0
"""Seconds for that where one build is given away: a start that is persisted is then withdrawn in the log, and
its next owner need not wonder whether the request has left."""


async def hand_over(roster: Roster, store: Store) -> None:
    """Leave all builds, after `Roster.send_nothing`, to other processes; what is in flight goes on there."""
    _log.info("builds are handed over", builds=len(roster))
    await _leave_all(roster, store)


async def drain(
    roster: Roster, store: Store, grace: float, on_leaving: Callable[[], None] = lambda: None
) -> bool:
    """Await, after `Roster.send_nothing`, what is in flight for ``grace`` seconds, then stop waiting.

    Args:
        roster: the builds.
        store: their store.
        grace: seconds.
        on_leaving: callback for when builds are about to be left with requests in flight.

    Returns:
        Whether all of it has ended.
    """
    with trio.move_on_after(grace):
        await roster.until_idle()
        return True
    _log.warning("the grace has ended", builds=len(roster), seconds=grace)
    on_leaving()
    await _leave_all(roster, store)
    return False


async def give_away(walk: Walk, store: Leaving, to: str) -> None:
    """Leave one build to another process, which is named ``to``; what is in flight goes on there.

    It is left when the walk has ended: `Walk.given` then says whether it was. From here on it is not kept.
    """
    walk.give(partial(store.give, walk.id, to))
    # The next owner sends again, or fails, what is not known to have left; and nothing is in a hurry here.
    await store.note_arrivals()
    # It may have ended, as nothing was in flight: then it is forgotten, and must not be remembered by this.
    if walk.steerable:
        walk.abandon(_GIVING)


async def _leave_all(roster: Roster, store: Store) -> None:
    """Stop waiting for what is in flight, and leave the builds to the next process."""
    # Requests known to have left must not be sent again by that.
    with trio.move_on_after(_CLOSING):
        await store.settle()
    for walk in roster.walks():
        walk.abandon(_CLOSING)
    with trio.move_on_after(_CLOSING + 0.2):
        await roster.until_idle()
