"""Drains the builds of a process at its end: awaits what is in flight, within the grace."""

import structlog
import trio

from scheduler.stores import Store
from scheduler.supervision.roster import Roster

_log = structlog.get_logger()

_CLOSING = 0.5
"""Seconds for what is being persisted when the grace ends."""


async def drain(roster: Roster, store: Store, grace: float) -> None:
    """Await, after `Roster.refuse_new`, what is in flight for ``grace`` seconds, then stop waiting."""
    with trio.move_on_after(grace):
        await roster.until_idle()
        return
    _log.warning("the grace has ended", builds=len(roster), seconds=grace)
    # Requests known to have left must not be sent again by the next process.
    with trio.move_on_after(_CLOSING):
        await store.settle()
    for walk in roster.walks():
        walk.abandon(_CLOSING)
    with trio.move_on_after(_CLOSING + 0.2):
        await roster.until_idle()
