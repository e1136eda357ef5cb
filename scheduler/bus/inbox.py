"""Requests that await their answer: one wildcard subscription, and a table of tokens.

This is not nats-py's ``request``, which leaves its answer, or its future, behind if it is cancelled.
"""

import secrets
from collections.abc import Callable
from itertools import count
from typing import Self

import trio

from scheduler.bus import Message
from scheduler.errors import BusClosed, NoResponders, NotPermitted


class _Waiter:
    __slots__ = ("event", "message", "refusal", "subject", "then")

    def __init__(self, then: Callable[[Message], None] | None) -> None:
        self.event = trio.Event()
        self.then = then
        self.message: Message | None = None
        self.refusal: NotPermitted | None = None
        self.subject = ""


class Inbox:
    """Receiver of the answers to requests."""

    def __init__(self, prefix: str) -> None:
        self._base = f"{prefix}.{secrets.token_hex(11)}"
        self._numbers = count(1)
        self._waiters: dict[str, _Waiter] = {}

    @property
    def subject(self) -> str:
        """Subject to subscribe to, with ``handle``."""
        return f"{self._base}.r.*"

    def __len__(self) -> int:
        """Return the number of requests that await an answer."""
        return len(self._waiters)

    def new(self) -> str:
        """Return a subject that nobody else uses, for a subscription of its own."""
        return f"{self._base}.{next(self._numbers)}"

    def open(self, then: Callable[[Message], None] | None = None) -> "Ticket":
        """Return a context manager that holds a place for one answer; ``then`` is called with it at once."""
        return Ticket(self._waiters, f"{self._base}.r.{next(self._numbers)}", then)

    def handle(self, message: Message) -> None:
        """Take an answer; an answer that is not awaited (any more), or a second one, is dropped."""
        waiter = self._waiters.pop(message.subject, None)
        if waiter is not None:
            waiter.message = message
            waiter.event.set()
            if waiter.then is not None:
                waiter.then(message)

    def refuse(self, subject: str) -> bool:
        """Fail all requests on ``subject`` with NotPermitted; return whether there are any."""
        waiters = [waiter for waiter in self._waiters.values() if waiter.subject == subject]
        for waiter in waiters:
            waiter.refusal = NotPermitted("publish on", subject)
            waiter.event.set()
        return bool(waiters)

    def close(self) -> None:
        """Raise BusClosed in all waiting tasks."""
        for waiter in self._waiters.values():
            waiter.event.set()
        self._waiters.clear()


class Ticket:
    """One awaited answer."""

    def __init__(
        self, waiters: dict[str, _Waiter], reply: str, then: Callable[[Message], None] | None
    ) -> None:
        self.reply = reply
        """Subject for the answer."""
        self._waiters = waiters
        self._waiter = _Waiter(then)

    def __enter__(self) -> Self:
        self._waiters[self.reply] = self._waiter
        return self

    def __exit__(self, *_: object) -> None:
        self._waiters.pop(self.reply, None)

    async def answer(self, subject: str) -> Message:
        """Wait for the answer to a request on ``subject``.

        Raises:
            NoResponders: nobody subscribes to the subject.
            NotPermitted: the broker forbids publishing on it.
            BusClosed: the bus was closed first.
        """
        self._waiter.subject = subject
        await self._waiter.event.wait()
        if self._waiter.refusal is not None:
            raise self._waiter.refusal
        message = self._waiter.message
        if message is None:
            raise BusClosed(f"the bus was closed before {subject!r} was answered")
        if message.no_responders:
            raise NoResponders(f"nobody subscribes to {subject!r}")
        return message
