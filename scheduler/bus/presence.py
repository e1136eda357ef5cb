"""Says that we are there from a thread of its own, over a connection of its own.

Whoever stands by asks whether we are there, and takes our builds over where nobody answers. Work on the loop
must not look like that: so the answer needs no turn of it. The thread has a Trio loop of its own, with a
`NatsBus` in it as any other, on the server of the first connection, so that the two share its fate.

Where no second connection can be had, and until there is one, the loop answers
(`scheduler.supervision.discovery`).
"""

import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import trio

from scheduler.bus import Message
from scheduler.bus.follower import Follower
from scheduler.bus.nats import NatsBus, keep_open
from scheduler.bus.options import BusOptions
from scheduler.definition.subjects import may_be_answered
from scheduler.errors import BusError, NotPermitted, UnsupportedServer
from scheduler.runtime.logger import Logger

_BEGINNING = 1.0
"""Seconds for which the service waits for the thread to answer; without it the loop does."""
_INSTEAD = "that we are there is said on the loop, and not while that is busy"
_GOODBYE = 1.0
"""Seconds for the thread to end in order."""

log = Logger()


class PresenceThread:
    """The thread; made by `open_presence`."""

    def __init__(self, first: NatsBus, options: BusOptions, silent: Callable[[], bool]) -> None:
        self._bus = Follower(first, options, "presence", _INSTEAD, on_failure=self._note_begun)
        self._silent = silent
        self._listening = False
        self._alone = True
        """Whether the loop does not listen yet: what is not answered in the thread is not answered at all."""
        self._failing = False
        self._thread: threading.Thread | None = None
        self._scope = trio.CancelScope()
        self._token: trio.lowlevel.TrioToken | None = None
        self._owner = trio.lowlevel.current_trio_token()
        self._begun = trio.Event()
        """Set when it answers, or has failed to for the first time."""
        self._ended = trio.Event()
        self._closed = False

    @property
    def answering(self) -> bool:
        """As in the port."""
        return self._listening and self._bus.connected

    async def announce(self, subjects: Sequence[str], answer: bytes) -> None:
        """As in the port."""
        if self._thread is None and not self._closed:
            self._thread = threading.Thread(
                target=self._run, args=(tuple(subjects), answer), name="presence", daemon=True
            )
            self._thread.start()
            with trio.move_on_after(_BEGINNING):
                await self._begun.wait()
        self._alone = False

    def _note_begun(self) -> None:
        """In the thread."""
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
            log.error("that we are there is said on the loop: a fault of the scheduler", exc_info=error)  # noqa: TRY400 - as text
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
                    log.debug("that we are there is said by a thread of its own", url=self._bus.url)
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
                    # Once, whoever asks how often: the first that is answered again ends it.
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
    """Be ready to say that we are there, until the context is left; nothing is connected before that.

    Args:
        first: the first connection.
        options: as whom to connect, and to which servers beside those that the cluster tells of.
        silent: whether nothing is to be said, as the loop counts as gone; called in another thread.
    """
    presence = PresenceThread(first, options, silent)
    try:
        yield presence
    finally:
        await presence.close()  # noqa: ASYNC102 - it shields itself, with a deadline
