"""One call of a handler, where it runs: on Trio's loop, on asyncio's, or in a thread."""

import inspect
from collections.abc import Coroutine
from contextvars import copy_context
from functools import partial
from typing import Any, Final, Protocol

import trio

from scheduler.bus.asyncio_thread import AsyncioThread, is_cancelled
from scheduler.connectors.context import Cancellation
from scheduler.connectors.handlers import Backend, Handler
from scheduler.connectors.outcomes import Outcome, failed

_OF_ASYNCIO: Final[tuple[str, ...]] = (
    "no running event loop",
    "unrecognized yield message",
    "no current event loop",
)
"""Parts of the texts of errors that show that asyncio's functions were awaited on Trio's loop."""
_OF_TRIO: Final[tuple[str, ...]] = ("must be called from async context", "Task got bad yield")
"""Parts of the texts of errors that show the reverse."""

_LONGEST_SHOWN: Final = 200
"""Characters of what a handler awaited that are shown."""

_threads: trio.lowlevel.RunVar[trio.CapacityLimiter] = trio.lowlevel.RunVar("threads of connectors")


class Call(Protocol):
    """A call that is made once."""

    async def run(self) -> Outcome | None:
        """Make the call; None where `cancel` ended it."""

    def cancel(self) -> None:
        """End the call, if that can be done."""


class TrioCall:
    """A call of an ``async def`` on Trio's loop."""

    __slots__ = ("_arguments", "_handler", "_scope")

    def __init__(self, handler: Handler, arguments: tuple[Any, ...]) -> None:
        self._handler = handler
        self._arguments = arguments
        self._scope = trio.CancelScope()

    async def run(self) -> Outcome | None:
        """Make the call in the task that awaits it."""
        try:
            # Around the scope, which takes cancellations out of groups.
            with self._scope:
                return Outcome(await _OnTrio(self._handler.function(*self._arguments)))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the scheduler, and logged
            return _judged(self._handler, error)
        return None

    def cancel(self) -> None:
        """Cancel the scope around it."""
        self._scope.cancel()


class _OnTrio:
    """Awaits a handler; where it awaits what is not Trio's, that raises TypeError in it.

    Trio itself would end the whole task, its nursery and so the connector. A task of its own for each call
    would keep that apart, and costs more than all else of a call. As in such a task, the handler has context
    variables of its own.
    """

    __slots__ = ("_complained", "_handler", "_run")

    def __init__(self, handler: Coroutine[Any, Any, Any]) -> None:
        self._handler = handler
        self._run = copy_context().run
        self._complained = False

    def __await__(self) -> Any:
        return self

    def __iter__(self) -> "_OnTrio":
        return self

    def __next__(self) -> Any:
        return self._checked(self._run(self._handler.send, None))

    def send(self, given: Any) -> Any:
        """Go on with what Trio gives."""
        try:
            return self._checked(self._run(self._handler.send, given))
        finally:
            # An exception that comes out refers to this frame, and what is given may hold the same one.
            del given

    def close(self) -> None:
        """End the handler, as its task is dropped."""
        self._handler.close()

    def _checked(self, message: Any) -> Any:
        if _is_trios(message):
            return message
        if self._complained:
            raise TypeError(_foreign(message))
        self._complained = True
        return self._checked(self._run(self._handler.throw, TypeError(_foreign(message))))

    # What shows the stack of a task looks for these.

    @property
    def cr_frame(self) -> Any:
        """Frame of the handler."""
        return getattr(self._handler, "cr_frame", None)

    @property
    def cr_await(self) -> Any:
        """Awaitable that the handler waits for."""
        return getattr(self._handler, "cr_await", None)


def _foreign(message: object) -> str:
    return f"unrecognized yield message {repr(message)[:_LONGEST_SHOWN]}"


def _is_trios(message: object) -> bool:
    kind = message if isinstance(message, type) else type(message)
    return kind.__module__.partition(".")[0] == "trio"


class AsyncioHandlerCall:
    """A call of an ``async def`` on the loop of asyncio."""

    def __init__(self, handler: Handler, arguments: tuple[Any, ...], thread: AsyncioThread) -> None:
        self._handler = handler
        self._call = thread.call(partial(handler.function, *arguments))
        self._cancelled = False

    async def run(self) -> Outcome | None:
        """Make the call."""
        try:
            return Outcome(await self._call.run())
        except trio.Cancelled:
            raise
        except BaseException as error:
            if is_cancelled(error) and self._cancelled:
                return None
            if is_cancelled(error):
                return _judged(self._handler, error)
            if isinstance(error, (Exception, SystemExit)):
                return _judged(self._handler, error)
            raise

    def cancel(self) -> None:
        """Cancel its asyncio task."""
        self._cancelled = True
        self._call.cancel()


class ThreadCall:
    """A call of a plain function in a thread, which nobody can end."""

    def __init__(self, handler: Handler, arguments: tuple[Any, ...]) -> None:
        self._handler = handler
        self._function = partial(handler.function, *arguments)

    async def run(self) -> Outcome | None:
        """Make the call; if this is cancelled, the thread is left to itself."""
        return await trio.to_thread.run_sync(self._perform, abandon_on_cancel=True, limiter=_limiter())

    def cancel(self) -> None:
        """Do nothing: the handler has `Context.cancelled`."""

    def _perform(self) -> Outcome:
        try:
            result = self._function()
        except (Exception, SystemExit) as error:  # noqa: BLE001 - told to the scheduler, and logged
            return _judged(self._handler, error)
        if inspect.iscoroutine(result):
            result.close()
            text = f"{self._handler.name} returned a coroutine: declare it with `async def`"
            return failed(TypeError(text))
        return Outcome(result)


def _limiter() -> trio.CapacityLimiter:
    """Return a limiter without limit: a handler's concurrency is the bound."""
    try:
        return _threads.get()
    except LookupError:
        limiter = trio.CapacityLimiter(float("inf"))
        _threads.set(limiter)
        return limiter


def make_call(handler: Handler, arguments: tuple[Any, ...], thread: AsyncioThread | None) -> Call:
    """Prepare a call of a handler.

    Args:
        handler: the handler.
        arguments: its arguments.
        thread: asyncio's loop; needed only for handlers that run there.
    """
    if handler.backend == "thread":
        return ThreadCall(handler, arguments)
    if handler.backend == "trio":
        return TrioCall(handler, arguments)
    assert thread is not None, "it was opened for the handlers that need it"
    return AsyncioHandlerCall(handler, arguments, thread)


def make_cancellation(backend: Backend, thread: AsyncioThread | None) -> Cancellation:
    """Return the flag that a handler of this backend can wait for."""
    if backend == "thread":
        return Cancellation()
    if backend == "trio":
        return Cancellation(trio.Event())
    assert thread is not None, "as in `make_call`"
    return Cancellation(thread.signal())


def _leaf(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _judged(handler: Handler, error: BaseException) -> Outcome:
    """Return the outcome of an exception, with the cure where the handler runs on the wrong loop."""
    return failed(error, _hint(handler, str(_leaf(error)) if isinstance(error, Exception) else ""))


def _hint(handler: Handler, text: str) -> str:
    ours, theirs, signs = "a Trio", "asyncio", _OF_ASYNCIO
    if handler.backend == "asyncio":
        ours, theirs, signs = "an asyncio", "trio", _OF_TRIO
    elif handler.backend == "thread":
        return ""
    if not any(sign in text for sign in signs):
        return ""
    return f"{handler.name} runs as {ours} function, and awaited what is {theirs}'s: say backend={theirs!r}"
