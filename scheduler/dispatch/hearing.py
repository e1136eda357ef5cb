"""Subjects of earlier processes: heard for as long as one of their requests may be answered."""

from collections import Counter
from collections.abc import Iterable
from typing import Final, NoReturn

import structlog
import trio

from scheduler.bus import Bus, Handler, Subscription
from scheduler.definition.reply_subjects import BEAT
from scheduler.dispatch.second_copies import SecondCopies
from scheduler.errors import BusError, NotPermitted

_log = structlog.get_logger()

MOST: Final = 128
"""Subjects that are heard at a time. There are more where processes have died of a build again and again; the
captured replies tell what is answered on those."""


class Hearing:
    """Subscriptions that several calls hold; `run` has to be running.

    Args:
        bus: first connection.
        doubles: pairs it with the second one for replies, if there is one.
        handler: callback for replies.
        beats: callback for heartbeats.
    """

    def __init__(self, bus: Bus, doubles: SecondCopies | None, handler: Handler, beats: Handler) -> None:
        self._bus = bus
        self._doubles = doubles
        self._handler = handler
        self._beats = beats
        self._holders: Counter[str] = Counter()
        """Number of holders by subject."""
        self._subscriptions: dict[str, Subscription] = {}
        self._lock = trio.Lock()
        self._idle = trio.Event()

    async def hear(self, subjects: Iterable[str]) -> tuple[str, ...]:
        """Hold these subjects, and return when the broker has the subscriptions.

        A subject that the broker does not permit is left out, and logged: the build is resumed all the same,
        as replies are captured too, and the absence of heartbeats that are not heard fails nothing.

        Args:
            subjects: subjects for replies and heartbeats, the most important one first.

        Returns:
            The subjects that are heard and held, to be released once by the caller.

        Raises:
            BusError: the bus cannot be used.
        """
        held: list[str] = []
        try:
            async with self._lock:
                for subject in subjects:
                    if subject not in self._subscriptions:
                        if len(self._subscriptions) >= MOST:
                            text = (
                                "too many earlier processes: what is answered to the first ones is read later"
                            )
                            _log.warning(text, most=MOST)
                            break
                        try:
                            await self._begin(subject)
                        except NotPermitted as error:
                            what = "heartbeats" if subject.startswith(BEAT) else "replies"
                            text = f"{what} to an earlier process are not heard directly"
                            _log.error(text, reason=str(error))
                            continue
                    self._holders[subject] += 1
                    held.append(subject)
        except BaseException:
            self.release(held)
            raise
        return tuple(held)

    def hold(self, subjects: Iterable[str]) -> None:
        """Hold subjects once more that are held already."""
        self._holders.update(subjects)

    def release(self, subjects: Iterable[str]) -> None:
        """Hold subjects once less; one without a holder is unsubscribed soon. Synchronous."""
        for subject in subjects:
            self._holders[subject] -= 1
            if self._holders[subject] <= 0:
                del self._holders[subject]
                self._idle.set()

    async def run(self) -> NoReturn:
        """Unsubscribe from subjects without a holder; never returns."""
        while True:
            await self._idle.wait()
            self._idle = trio.Event()
            async with self._lock:
                for subject in [one for one in self._subscriptions if one not in self._holders]:
                    await self._end(subject)

    async def _begin(self, subject: str) -> None:
        handler = self._handler
        if subject.startswith(BEAT):
            handler = self._beats
        elif self._doubles is not None:
            handler = self._doubles.listen(subject, handler)
        try:
            self._subscriptions[subject] = await self._bus.subscribe(subject, handler)
        except BaseException:
            if self._doubles is not None:
                self._doubles.forget(subject)
            raise

    async def _end(self, subject: str) -> None:
        subscription = self._subscriptions.pop(subject)
        if self._doubles is not None:
            self._doubles.forget(subject)
        try:
            await subscription.unsubscribe()
        except BusError as error:
            _log.debug("a subscription is left to itself", subject=subject, reason=str(error))
