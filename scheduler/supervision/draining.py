"""Stops with what is in flight awaited, for as long as there is time."""

import structlog
import trio

from scheduler.stores import Store
from scheduler.supervision.roster import Roster

_log = structlog.get_logger()

_CLOSING = 0.5
"""Seconds for what is being persisted when the grace is over."""


async def drain(roster: Roster, store: Store, grace: float) -> None:
    """After `Roster.refuse_new`: await what is in flight for ``grace`` seconds, then stop waiting for it."""
    with trio.move_on_after(grace):
        await roster.until_idle()
        return
    _log.warning("grace is over", builds=len(roster), seconds=grace)
    # What is known to have left must not be sent again by the next process.
    with trio.move_on_after(_CLOSING):
        await store.settle()
    for walk in roster.walks():
        walk.abandon(_CLOSING)
    with trio.move_on_after(_CLOSING + 0.2):
        await roster.until_idle()
