"""Waits until a build has ended, whatever happens meanwhile to the scheduler, the broker or the connection.

A scheduler is asked from time to time, and as soon as an event says that nothing of the build is in flight.
A scheduler that does not answer is being restarted, and one that does not know the build may not have
taken it up again yet.
"""

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import trio
from attrs import define, field

from scheduler.bus import Bus, Message
from scheduler.client.ask import Document, get_summary
from scheduler.client.lenient import text
from scheduler.client.report import fetch_status
from scheduler.client.submit import decode_object
from scheduler.client.timeline import FINISHED
from scheduler.definition.subjects import EVENTS
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusClosed, BusError, NotPermitted, SteeringError

_PERIOD: Final = 2.0
"""Seconds between two questions."""
_SHORTEST: Final = 0.2
"""Seconds between two questions at least, however many events come."""
_GONE: Final = 30.0
"""Seconds for which a build that was there may be unknown to a scheduler that was restarted."""
_PASSING: Final = frozenset({"nobody", "unavailable", "internal", "silent", "unreadable"})
"""Codes of refusals after which it is worth asking again."""
_TROUBLES: Final = {"nobody": "no scheduler answers", "silent": "no answer from the scheduler"}
"""Words for refusals that are not the scheduler's own."""
_IN_FLIGHT: Final = ("running", "retrying")


@define(eq=False)
class Waiting:
    """Wait for the end of a build.

    Args:
        bus: the connection.
        build: id of the build.
        note: called with a text for people when the wait is disturbed, and when that is over.
    """

    bus: Bus
    build: str
    note: Callable[[str], None] = lambda _: None
    last: Document = field(factory=dict)
    """Last answer about the build; empty before the first one."""
    _stirred: trio.Event = field(factory=trio.Event)
    _trouble: str = ""
    _unknown_since: float | None = None
    """Time since which the build is unknown, Trio clock, seconds."""

    async def run(self) -> Document:
        """Return how the build ended: its ``status``, its ``error`` if it has one, and maybe more.

        Raises:
            SteeringError: the build is unknown, this user may not ask, or no scheduler answers the first
                question.
            BusError: the bus cannot be used.
        """
        async with self._open_events():
            while True:
                asked = trio.current_time()
                self._stirred = trio.Event()
                answer = await self._ask()
                if answer is not None and text(answer.get("status")) in FINISHED:
                    return answer
                with trio.move_on_at(asked + _PERIOD):
                    await self._stirred.wait()
                await trio.sleep_until(asked + _SHORTEST)

    async def _ask(self) -> Document | None:
        """Ask how the build stands; None if no answer came, and another one may."""
        unknown: SteeringError | None = None
        try:
            answer = await get_summary(self.bus, self.build)
        except BusClosed:
            raise
        except BusError:
            self._disturb("the broker is away")
        except SteeringError as error:
            if error.code == "unknown":
                unknown = error
            elif error.code not in _PASSING or (error.code == "nobody" and not self.last):
                raise
            else:
                self._disturb(_TROUBLES.get(error.code) or str(error))
        else:
            self.last, self._unknown_since = answer, None
            self._recover()
            return answer
        return None if unknown is None else await self._ask_for_report(unknown)

    async def _ask_for_report(self, unknown: SteeringError) -> Document | None:
        """Ask for the report of a build that is unknown otherwise: its store keeps nothing but that."""
        try:
            return {"id": self.build, "status": await fetch_status(self.bus, self.build)}
        except (SteeringError, BusError):
            # It is not there either, or this scheduler has no reports.
            now = trio.current_time()
        if not self.last:
            raise unknown
        if self._unknown_since is None:
            self._unknown_since = now
        if now - self._unknown_since > _GONE:
            cure = "it was restarted, and its store keeps no builds, or somebody removed it"
            raise SteeringError("unknown", f"the scheduler does not know {self.build} any more: {cure}")
        self._disturb("the scheduler does not know the build")
        return None

    def _disturb(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self.note(f"{trouble}; still waiting")

    def _recover(self) -> None:
        if self._trouble:
            self._trouble = ""
            self.note("the scheduler answers again")

    @asynccontextmanager
    async def _open_events(self) -> AsyncIterator[None]:
        """Listen for events, which only make the end known sooner."""
        try:
            subscription = await self.bus.subscribe(f"{EVENTS}{encode_token(self.build)}", self._take_event)
        except NotPermitted:
            yield
            return
        try:
            yield
        finally:
            with trio.move_on_after(1, shield=True):
                await subscription.unsubscribe()

    def _take_event(self, message: Message) -> None:
        document = decode_object(message.data)
        counts = None if document is None else document.get("counts")
        if isinstance(counts, Mapping) and not any(map(counts.get, _IN_FLIGHT)):
            self._stirred.set()


def progress_of(answer: Mapping[str, Any]) -> str:
    """Return how far a build is, for people: ``running, 3 of 7``."""
    status, counts, total = text(answer.get("status")) or "unknown", answer.get("counts"), answer.get("total")
    done = counts.get("completed") if isinstance(counts, Mapping) else None
    return f"{status}, {done:,} of {total:,}" if type(done) is int and type(total) is int else status
