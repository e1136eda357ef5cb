"""Direct hearing of replies while the streams that capture them are changed: for a moment none takes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import structlog

from scheduler.bus import Bus, Message
from scheduler.definition.reply_subjects import EVERY
from scheduler.definition.subjects import REPLY_SUBJECTS

_log = structlog.get_logger(__name__)

_MOST: Final = 10_000
_MOST_BYTES: Final = 64 * 1024 * 1024


class Caught:
    """Replies that came meanwhile; those over a limit are left to the streams."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._bytes = 0
        self._full = False

    def take(self, message: Message) -> None:
        """Keep a reply."""
        self._bytes += len(message.data)
        if len(self.messages) < _MOST and self._bytes <= _MOST_BYTES:
            self.messages.append(message)
        elif not self._full:
            self._full = True
            _log.warning("more replies come than can be kept while the streams of replies are changed")


@asynccontextmanager
async def catching(bus: Bus, caught: Caught) -> AsyncIterator[None]:
    """Keep all replies until the context is left.

    Raises:
        BusError: the subscriptions are not permitted, or fail.
    """
    subscriptions = [await bus.subscribe(subject, caught.take) for subject in (EVERY, *REPLY_SUBJECTS)]
    yield
    # Not after a failure: the process ends then.
    for subscription in subscriptions:
        await subscription.unsubscribe()
