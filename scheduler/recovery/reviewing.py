"""Review of the quarantine: a build that this process left, and another one has, is in quarantine no more."""

from collections.abc import Callable, Collection

import structlog
import trio

from scheduler.errors import BusError, UnreadableLog
from scheduler.jetstream.streams import log_subject
from scheduler.journal.records import Status, instance_of, read_headers
from scheduler.stores.log_reader import LogReader
from scheduler.supervision.roster import Roster

_log = structlog.get_logger()

HAS_IT = "build in quarantine no more: another instance has it"
ENDED = "build in quarantine no more: it has ended, or was removed"
_WELL = 30.0
"""Seconds for which another instance has had a build that this one failed with, until this one may try again:
so that two which both fail do not pass it on to each other for ever."""
_PERIOD = 3.0
"""Seconds between two reviews."""
_BETWEEN = 0.01
"""Seconds between two builds: thousands may be beyond this version."""


async def review(roster: Roster, logs: LogReader, others: Callable[[], Collection[str]]) -> None:
    """Compare the quarantine with the logs from time to time; never returns.

    Args:
        roster: roster with the quarantine.
        logs: reader of the logs.
        others: returns the names of the other processes that own builds now.
    """
    in_reach = True
    had: dict[str, float] = {}
    """Times since which other instances have builds that may be tried here again."""
    while True:
        await trio.sleep(_PERIOD)
        had = {build: since for build, since in had.items() if build in roster.left}
        for build in list(roster.left):
            try:
                await _review(build, roster, logs, others, had)
            except BusError as error:
                # The next round asks again.
                if in_reach:
                    _log.info("the builds in quarantine cannot be looked at now", reason=str(error))
                in_reach = False
                break
            in_reach = True
            await trio.sleep(_BETWEEN)


async def _review(
    build: str,
    roster: Roster,
    logs: LogReader,
    others: Callable[[], Collection[str]],
    had: dict[str, float],
) -> None:
    last = await logs.last(log_subject(build))
    try:
        headings = None if last is None else read_headers(last.headers)
    except UnreadableLog:
        return
    # One that runs here was submitted after the other was removed: of that one, nothing is left.
    if headings is None or headings.status is Status.REPORTED or roster.walk(build) is not None:
        roster.forget_left(build)
        _log.info(ENDED, build=build)
        return
    owner = instance_of(headings.record_id)
    if owner not in others():
        # One that has failed with it, too, has left it, or gone.
        roster.quarantined.setdefault(build, roster.left[build])
        had.pop(build, None)
        return
    if roster.quarantined.pop(build, None) is not None:
        _log.info(HAS_IT, build=build, owner=owner[:100])
    # What is beyond this version is not tried here again, whatever comes.
    now = trio.current_time()
    if build in roster.passing and now - had.setdefault(build, now) >= _WELL:
        roster.forget_left(build)
