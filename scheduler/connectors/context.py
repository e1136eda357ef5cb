"""The context of a call: facts beside the request, and signs of progress on the way back."""

import threading
from collections.abc import Callable, Generator, Mapping
from types import MappingProxyType
from typing import Any, Protocol


class Signal(Protocol):
    """An event for coroutines of one backend, which is set in Trio's thread."""

    def set(self) -> object:
        """Wake those that wait."""

    async def wait(self) -> None:
        """Wait until it is set."""


class Cancellation:
    """Whether the scheduler has given up the call; true once it has.

    ``if context.cancelled`` works everywhere, ``await context.cancelled`` in an ``async def`` of either
    backend, and ``context.cancelled.wait(5)`` in a thread.
    """

    __slots__ = ("_flag", "_is_set", "_signal", "reason")

    def __init__(self, signal: Signal | None = None) -> None:
        self.reason = ""
        """Reason in the words of the scheduler; empty before."""
        # Threads alone wait for it, and it costs more than all else here.
        self._flag = threading.Event() if signal is None else None
        self._is_set = False
        self._signal = signal

    def __bool__(self) -> bool:
        return self._is_set

    def wait(self, timeout: float | None = None) -> bool:
        """Block this thread until it is true, at most ``timeout`` seconds; return whether it is."""
        if self._flag is None:
            raise RuntimeError("cancelled.wait() would block the loop: use `await context.cancelled`")
        return self._flag.wait(timeout)

    def __await__(self) -> Generator[Any, None, str]:
        """Wait until it is true; return the reason."""
        return self._waited().__await__()

    async def _waited(self) -> str:
        if self._signal is None:
            raise RuntimeError("a plain function cannot await: use `context.cancelled.wait(seconds)`")
        await self._signal.wait()
        return self.reason

    def set(self, reason: str) -> None:
        """Make it true; of several reasons the first one stays."""
        if self._is_set:
            return
        self.reason = reason
        self._is_set = True
        if self._flag is not None:
            self._flag.set()
        if self._signal is not None:
            self._signal.set()


class Context:
    """The circumstances of one call.

    Args:
        key: the same for all attempts of the component, and for the runs that ``retry`` begins: what a cloud
            takes as a client token. Empty where the request has none.
        attempt: id of the attempt; empty where the request has none.
        build: id of the build.
        component: id of the component.
        subject: subject of the request.
        repeated: whether an earlier process began this and left no answer: look whether the cloud has it.
        cancelled: whether the scheduler has given it up.
        trace: headers ``traceparent`` and ``tracestate`` for what the handler asks others for; empty where
            the build has no trace.
        say: function that takes progress and message; called in the handler's thread.
    """

    __slots__ = (
        "_say", "attempt", "build", "cancelled", "component", "key", "repeated", "subject", "trace",
    )  # fmt: skip

    def __init__(
        self,
        *,
        key: str = "",
        attempt: str = "",
        build: str = "",
        component: str = "",
        subject: str = "",
        repeated: bool = False,
        cancelled: Cancellation | None = None,
        trace: Mapping[str, str] = MappingProxyType({}),
        say: Callable[[float | None, str], None] = lambda _, __: None,
    ) -> None:
        self.key = key
        self.attempt = attempt
        self.build = build
        self.component = component
        self.subject = subject
        self.repeated = repeated
        self.cancelled = Cancellation() if cancelled is None else cancelled
        self.trace = trace
        self._say = say

    def progress(self, share: float | None = None, message: str = "") -> None:
        """Tell how far the work is; never blocks, and may be called in any thread, as often as you like.

        At most five a second are sent, and the latest is never left out.

        Args:
            share: done part of the work, from 0 to 1; None: unknown.
            message: what is being done, at most 1 KiB of it; no secrets: people see it.

        Raises:
            ValueError: the share is not from 0 to 1.
        """
        if share is not None and not 0.0 <= share <= 1.0:
            raise ValueError(f"progress is {share!r}: expected 0 to 1")
        self._say(share, message)
