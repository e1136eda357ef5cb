"""A companion: a further connection to the server of the first one.

It follows the first connection, is in no hurry, and the service never depends on it: the first one can do its
work. It shares the first one's fate.
"""

from collections.abc import Callable

import attrs
import trio

from scheduler.bus.nats import FIRST_DELAY, NatsBus
from scheduler.bus.options import BusOptions
from scheduler.runtime.logger import Logger

_LAST_DELAY = 15.0
"""Most seconds between two attempts to connect: each of them may be a line in the broker's log."""
_MOST_SAID = 100
_MOST_QUEUED = 4_000
"""Most messages that wait to be written: answers, which are not awaited for long."""
_MOST_BYTES_QUEUED = 64 * 1024 * 1024

log = Logger()


class Companion(NatsBus):
    """A connection beside ``first``, whose attributes it only reads: it may be in another thread.

    Args:
        first: the first connection.
        options: credentials, and servers beside those that the cluster tells of.
        name: its name among the others, in the server's monitoring.
        instead: text for the log about who does its work while it cannot be opened.
        on_failure: function that is called each time that it cannot be opened.
    """

    def __init__(
        self,
        first: NatsBus,
        options: BusOptions,
        name: str,
        instead: str,
        *,
        on_failure: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(
            attrs.evolve(
                options,
                name=f"{options.name} ({name})",
                max_queued_messages=min(options.max_queued_messages, _MOST_QUEUED),
                max_queued_bytes=min(options.max_queued_bytes, _MOST_BYTES_QUEUED),
            )
        )
        self._first = first
        self._purpose = name
        self._instead = instead
        self._on_failure = on_failure
        self._said: set[str] = set()

    async def connect(self, *, first: bool = False, delay: float = FIRST_DELAY) -> None:
        """Connect as the first connection does, but in no hurry."""
        while True:
            for server, hostname in self._candidates():
                if await self._try(server, hostname, first=first, delay=delay):
                    return
            await trio.sleep(delay)
            delay = min(2 * delay, _LAST_DELAY)

    def _candidates(self) -> list[tuple[str, str | None]]:
        self._servers = {**self._servers, **self._first.known()}
        return sorted(self._servers.items(), key=lambda one: one[0] != self._first.server)

    def say_failure(self, reason: str) -> None:
        """Log a failure, each reason once, and call its handler."""
        if reason not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(reason)
            log.warning("no second connection: " + self._instead, reason=reason)  # noqa: G003 - of the code
        self._on_failure()

    def _note_failure(self, shown: str, reason: str, delay: float) -> None:  # noqa: ARG002 - theirs
        if self._first.connected:
            self.say_failure(f"{shown}: {reason}")

    def _note_connection(self) -> None:
        if self._said:
            log.info("a second connection is up again", purpose=self._purpose, url=self.url)
        self._said.clear()

    def _note_loss(self, reason: str) -> None:
        log.debug("a further connection was lost", instead=self._instead, url=self.url, reason=reason)
