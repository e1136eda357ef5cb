"""Answers to the question whether this process is there, from a thread with a connection of its own.

A standby process asks that question, and takes over builds if there is no answer. Work on the loop must not
look like absence: so the answer needs no turn of the loop. The thread has a Trio loop of its own, with an
ordinary `NatsBus` in it, on the server of the first connection, so that the two share their fate.

While no second connection is up, the loop answers (`scheduler.bus.discovery`).
"""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from scheduler.bus import Message
from scheduler.bus.companion import Companion
from scheduler.bus.nats import NatsBus, keep_open
from scheduler.bus.options import BusOptions
from scheduler.definition.subjects import may_be_answered
from scheduler.errors import BusError, NotPermitted, UnsupportedServer
from scheduler.runtime.logger import Logger

_BEGINNING = 1.0
"""Seconds for which the service waits for the thread to answer; without it the loop does."""
_INSTEAD = "presence is answered on the loop, and not while that is busy"
_GOODBYE = 1.0
"""Seconds for the thread to end in order."""

log = Logger()


class PresenceThread:
    """The answering thread; made by `open_presence`."""

    def __init__(self, first: NatsBus, options: BusOptions, silent: Callable[[], bool]) -> None:
        self._bus = Companion(first, options, "presence", _INSTEAD, on_failure=self._note_begun)
        self._silent = silent
        self._listening = False
        self._alone = True
        """Whether the loop does not listen yet: a message not answered in the thread is then not answered at
        all."""
        self._failing = False
        self._thread: threading.Thread | None = None
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._owner = trio.lowlevel.current_trio_token()
        self._begun = trio.Event()
        """Set when the thread answers, or has failed to for the first time."""
        self._ended = trio.Event()
        self._closed = False

    @property
    def answering(self) -> bool:
        """Whether the thread answers."""
        return self._listening and self._bus.connected

    async def announce(self, subjects: Sequence[str], answer: bytes) -> None:
        """Begin to answer, as in the port."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(
                target=self._run, args=(tuple(subjects), answer), name="presence", daemon=True
            )
            self._thread.start()
            with trio.move_on_after(_BEGINNING):
                await self._begun.wait()
        self._alone = False

    def _note_begun(self) -> None:
        """Note, in the thread, that it answers or has failed to."""
        with suppress(trio.RunFinishedError):
            self._owner.run_sync_soon(self._begun.set)

    async def close(self) -> None:
        """End the thread, within a second."""
        self._closed = True
        if self._thread is not None:
            if self._token is not None:
                with suppress(trio.RunFinishedError):
                    self._token.run_sync_soon(self._scope.cancel)
            with trio.move_on_after(_GOODBYE, shield=True):
                await self._ended.wait()

    def _run(self, subjects: Sequence[str], answer: bytes) -> None:
        try:
            trio.run(self._serve, subjects, answer)
        except Exception as error:
            log.error("presence is answered on the loop: internal error in the scheduler", exc_info=error)  # noqa: TRY400 - as text
        finally:
            self._listening = False
            self._note_begun()
            with suppress(trio.RunFinishedError):
                self._owner.run_sync_soon(self._ended.set)

    async def _serve(self, subjects: Sequence[str], answer: bytes) -> None:
        self._token = trio.lowlevel.current_trio_token()
        with self._scope:
            if self._closed:
                return
            try:
                async with keep_open(self._bus):
                    for subject in subjects:
                        await self._bus.subscribe(subject, self._answerer(answer))
                    self._listening = True
                    self._note_begun()
                    log.debug("presence is answered by a thread of its own", url=self._bus.url)
                    await trio.sleep_forever()
            except (NotPermitted, UnsupportedServer) as error:
                self._bus.say_failure(str(error))

    def _answerer(self, answer: bytes) -> Callable[[Message], None]:
        def handle(message: Message) -> None:
            ours = self._listening or self._alone
            if may_be_answered(message.reply) and ours and not self._silent():
                try:
                    self._bus.publish(message.reply, answer)
                except BusError as error:
                    # Logged once, however often the question comes, until an answer succeeds again.
                    if not self._failing:
                        log.warning("discovery not answered", error=str(error))
                    self._failing = True
                else:
                    self._failing = False

        return handle


@asynccontextmanager
async def open_presence(
    first: NatsBus, options: BusOptions, silent: Callable[[], bool]
) -> AsyncIterator[PresenceThread]:
    """Prepare to answer until the context is left; nothing is connected before the answers begin.

    Args:
        first: the first connection.
        options: credentials, and servers beside those that the cluster tells of.
        silent: function that says whether to stay silent, since the loop counts as gone; called in another
            thread.
    """
    presence = PresenceThread(first, options, silent)
    try:
        yield presence
    finally:
        await presence.close()  # noqa: ASYNC102 - it shields itself, with a deadline
