"""Replies on their way to the broker: sent again where the connection was lost under them.

A reply is handed to the bus at once, where that can be done. One task, which lives while replies are under
way, sees to the rest: it asks the broker for confirmation of all that were sent so far, sends again those of
a connection that was lost, and those for which there was no room.
"""

from collections import deque
from typing import Final

import trio
from attrs import define

from scheduler.bus import Bus, Outgoing
from scheduler.errors import BusClosed, BusError, BusFull
from scheduler.runtime.logger import Logger
from scheduler.runtime.pace import paced

_SETTLING: Final = 3.0
"""Seconds after a reconnect in which no reply is sent: its reader may not be back yet, and core NATS keeps
nothing."""
_AGAIN_AFTER: Final = 12.0
"""Seconds after which a reply of an outage is sent once more. After all brokers were away, the stream that
captures replies has no leader for some seconds, and confirms nothing to us."""
_OWN: Final = "scheduler.reply."
"""Beginning of subjects that answer one attempt: there, and nowhere else, a reply may come twice."""
_NO_ROOM: Final = 0.1
_MOST_KEPT: Final = 64 * 1024 * 1024
"""Bytes of replies that are kept for that; further ones are sent once."""
_AT_ONCE: Final = 50
"""Replies that are sent once more before others have a turn: a millisecond or two."""
_CONFIRMING: Final = 60.0
"""Seconds for replies to reach the broker, once there is a connection."""
_TRIES: Final = 5

log = Logger()


@define(eq=False)
class _Letter:
    """A reply that the broker may not have yet."""

    subject: str
    body: bytes
    outgoing: Outgoing | None = None
    tries: int = 0
    held: bool = False
    """Whether it had to wait for a connection, or was sent over one that was lost."""
    no_room_until: float | None = None
    """Time until which room is waited for, on Trio's clock; None: there was room, so far."""


class Post:
    """Sends replies, each until the broker has it."""

    def __init__(self, bus: Bus, nursery: trio.Nursery) -> None:
        self._bus = bus
        self._nursery = nursery
        self._settled_at = trio.current_time()
        self._unsent: deque[_Letter] = deque()
        self._sent: list[_Letter] = []
        """Replies that the bus has, and the broker has not confirmed."""
        self._under_way = 0
        self._is_attended = False
        """Whether the task is there."""
        self._none_left = trio.Event()
        self._connection = trio.Event()
        """Event for the next connection."""
        self._kept = 0
        """Bytes of replies that are to be sent once more."""
        bus.on_connected(self._note_connection)

    def send(self, subject: str, body: bytes) -> None:
        """Send a reply; synchronous."""
        self._under_way += 1
        self._unsent.append(_Letter(subject, body, held=not self._is_settled))
        self._publish()
        if self._under_way and not self._is_attended:
            self._is_attended = True
            self._nursery.start_soon(self._attend)

    async def emptied(self) -> None:
        """Wait until every reply has reached the broker, or was given up."""
        while self._under_way:
            self._none_left = trio.Event()
            await self._none_left.wait()

    def _note_connection(self) -> None:
        connection, self._connection = self._connection, trio.Event()
        connection.set()
        if self._bus.generation > 1:
            self._settled_at = trio.current_time() + _SETTLING

    @property
    def _is_settled(self) -> bool:
        return self._bus.connected and trio.current_time() >= self._settled_at

    def _publish(self) -> None:
        """Hand the bus what it takes of those that are not sent, in their order.

        None while there is no connection: the bus would send it as soon as there is one.
        """
        while self._unsent and self._is_settled:
            letter = self._unsent[0]
            try:
                letter.outgoing = self._bus.publish(letter.subject, letter.body)
            except BusFull as error:
                now = trio.current_time()
                if letter.no_room_until is None:
                    letter.no_room_until = now + _CONFIRMING
                if now <= letter.no_room_until:
                    return
                self._give_up(letter, error)
            except BusError as error:
                self._give_up(letter, error)
            else:
                letter.tries += 1
                letter.no_room_until = None
                self._sent.append(letter)
            self._unsent.popleft()

    async def _attend(self) -> None:
        try:
            while self._under_way:
                await trio.sleep_until(self._settled_at)
                self._publish()
                if self._sent:
                    await self._confirm()
                elif self._unsent:
                    await trio.sleep(_NO_ROOM)
        finally:
            self._is_attended = False

    async def _confirm(self) -> None:
        """Wait until the broker has what was sent so far, and look what it has."""
        sent, self._sent = self._sent, []
        try:
            confirmed = await self._flushed()
        except BusError as error:
            for letter in sent:
                self._give_up(letter, error)
            return
        again: list[_Letter] = []
        for letter in sent:
            outgoing = letter.outgoing
            assert outgoing is not None, "it was sent"
            if outgoing.refused is not None:
                self._give_up(letter, outgoing.refused)
            elif confirmed and outgoing.generation == self._bus.generation:
                size = len(letter.body)
                if letter.held and letter.subject.startswith(_OWN) and self._kept + size <= _MOST_KEPT:
                    again.append(letter)
                    self._kept += size
                self._end()
            elif letter.tries < _TRIES:
                letter.held = True
                self._unsent.append(letter)
            else:
                log.error(
                    "a reply may be lost: the connection to the broker does not last", subject=letter.subject
                )
                self._end()
        if again:
            self._nursery.start_soon(self._send_again, again)

    async def _send_again(self, letters: list[_Letter]) -> None:
        """Send replies once more that the broker has, as nobody may have them; nothing waits for it."""
        await trio.sleep(_AGAIN_AFTER)
        async for letter in paced(letters, every=_AT_ONCE):
            while not self._is_settled:
                if self._bus.connected:
                    await trio.sleep_until(self._settled_at)
                else:
                    await self._connection.wait()
            self._kept -= len(letter.body)
            try:
                self._bus.publish(letter.subject, letter.body)
            except BusError as error:
                log.debug("a reply was not sent once more", subject=letter.subject, reason=str(error))

    async def _flushed(self) -> bool:
        """Wait for the broker's word; false where it stalls, which the bus will find out, and connect again.

        Raises:
            BusError: the bus is closed.
        """
        while True:
            with trio.move_on_after(_CONFIRMING):
                await self._bus.flush()
                return True
            if self._bus.connected:
                return False

    def _give_up(self, letter: _Letter, error: BusError) -> None:
        if isinstance(error, BusClosed):
            log.error("a reply was not sent: the connection to the broker was closed", subject=letter.subject)
        else:
            log.error("a reply was not sent", subject=letter.subject, reason=str(error))
        self._end()

    def _end(self) -> None:
        self._under_way -= 1
        if not self._under_way:
            self._none_left.set()
