"""An asyncio loop of its own, in a thread, for code of others that is written for asyncio.

It is asyncio's ordinary loop, so what works with `asyncio.run` works here. Code that blocks it delays nothing
on Trio's loop. The one that the bus runs is not lent out: whoever blocked that one would block the broker's
client.
"""

import asyncio
import contextvars
import threading
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import trio

from scheduler.runtime.logger import Logger

_STUBBORN = 1.0
"""Seconds for a cancelled coroutine to end, where the task that awaits it is cancelled."""
_GOODBYE = 2.0
"""Seconds for the thread to end."""

log = Logger()


class AsyncioSignal:
    """An event that is set in any thread, and awaited by coroutines of one loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._event = asyncio.Event()

    def set(self) -> None:
        """Wake those that wait. Idempotent."""
        with suppress(RuntimeError):
            # The loop is closed: nobody waits.
            self._loop.call_soon_threadsafe(self._event.set)

    async def wait(self) -> None:
        """Wait until it is set; on its loop."""
        await self._event.wait()


class AsyncioCall:
    """One call of an ``async def`` on the loop of an `AsyncioThread`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, function: Callable[[], Awaitable[Any]]) -> None:
        self._loop = loop
        self._function = function
        self._task: asyncio.Task[Any] | None = None
        self._cancelled = False
        self._token = trio.lowlevel.current_trio_token()
        self._ended = trio.Event()
        self._result: Any = None
        self._error: BaseException | None = None

    async def run(self) -> Any:
        """Await the result, on Trio's loop; what the function raises is raised here.

        If this is cancelled, so is the coroutine, which then has a second to end.

        Raises:
            asyncio.CancelledError: `cancel` ended it.
        """
        context = contextvars.copy_context()
        self._loop.call_soon_threadsafe(self._begin, context)
        try:
            await self._ended.wait()
        except trio.Cancelled:
            self.cancel()
            with trio.move_on_after(_STUBBORN, shield=True):
                await self._ended.wait()
            raise
        error, self._error = self._error, None
        if error is None:
            return self._result
        try:
            raise error
        finally:
            # It refers to this frame.
            del error

    def cancel(self) -> None:
        """Cancel the coroutine, as `asyncio.Task.cancel` does; on Trio's loop. Idempotent."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)

    def _begin(self, context: contextvars.Context) -> None:
        self._task = self._loop.create_task(self._perform(), context=context)
        if self._cancelled:
            self._task.cancel()

    def _cancel(self) -> None:
        if not self._cancelled:
            self._cancelled = True
            if self._task is not None:
                self._task.cancel()

    async def _perform(self) -> None:
        try:
            self._result = await self._function()
        except BaseException as error:  # noqa: ASYNC103, BLE001 - raised again on Trio's loop
            self._error = error
        finally:
            self._task = None
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended.set)


class AsyncioThread:
    """The loop; made by `open_asyncio_thread`."""

    def __init__(self) -> None:
        # Not by the policy: that is trio-asyncio's, once it is imported.
        self._loop: asyncio.AbstractEventLoop = asyncio.SelectorEventLoop()
        self._loop.set_exception_handler(_log_failure)
        self._thread = threading.Thread(target=self._serve, name="asyncio", daemon=True)
        self._ended = trio.Event()
        self._token = trio.lowlevel.current_trio_token()

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def call(self, function: Callable[[], Awaitable[Any]]) -> AsyncioCall:
        """Prepare a call of a function without arguments; `AsyncioCall.run` makes it."""
        return AsyncioCall(self._loop, function)

    def signal(self) -> AsyncioSignal:
        """Return an event that coroutines here can await."""
        return AsyncioSignal(self._loop)

    async def close(self) -> None:
        """Cancel what still runs, and end the thread, within two seconds."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._loop.stop)
        with trio.move_on_after(_GOODBYE, shield=True):
            await self._ended.wait()
        if not self._ended.is_set():
            log.warning("a connector's asyncio code blocks its loop: the thread is abandoned")

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._clear()
            with suppress(trio.RunFinishedError):
                self._token.run_sync_soon(self._ended.set)

    def _clear(self) -> None:
        """Cancel the tasks that are left, let them end, and close the loop; as `asyncio.run` does."""
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        try:
            if tasks:
                self._loop.run_until_complete(asyncio.wait(tasks, timeout=_STUBBORN))
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            self._loop.close()


def _log_failure(_: object, context: dict[str, Any]) -> None:
    error = context.get("exception")
    # A text, since a logger may add the values of local variables to an exception.
    shown = "" if error is None else "".join(traceback.format_exception(error))
    log.error("an asyncio task of a connector failed", problem=context.get("message"), exception=shown)


@asynccontextmanager
async def open_asyncio_thread() -> AsyncIterator[AsyncioThread]:
    """Run an asyncio loop in a thread until the context is left."""
    thread = AsyncioThread()
    thread.start()
    try:
        yield thread
    finally:
        await thread.close()  # noqa: ASYNC102 - it shields itself, with a deadline


def is_cancelled(error: BaseException) -> bool:
    """Whether an exception is asyncio's for a task that was cancelled."""
    return isinstance(error, asyncio.CancelledError)
