"""Reads replies: small ones on the spot, large ones beside the loop when it is their build's turn."""

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import trio

from scheduler.bus import Bus, Message
from scheduler.definition.limits import Limits
from scheduler.definition.strictjson import decode_in_pieces
from scheduler.dispatch.call import Call
from scheduler.dispatch.fairness import FairDispatcher
from scheduler.errors import InvalidJSON
from scheduler.plan import Request
from scheduler.plan.outcome import Outcome, failure, read_reply
from scheduler.runtime.executor import Executor
from scheduler.runtime.log_limits import RateLimitedLog

READ_HERE = 64 * 1024
"""Bytes of a reply that is read on the spot: a millisecond or two, whatever it says."""
_SMALL = 4 * 1024
"""Bytes of a reply that takes as long as what follows from it; a larger one counts as several."""
_MOST_UNREAD = 512 * 1024 * 1024
"""Bytes of large replies that wait to be read; beyond that one is read on the spot, and the following wait in
the broker. A program may send thousands to one request."""
_READ_FIRST = 1.0
"""Seconds for which a large reply is left, at most, while the bus is behind."""
_SHORTLY = 0.005
"""Seconds between two looks whether the bus is still behind."""
_LONG = 1024 * 1024
"""Bytes of a reply that may take a tenth of a second to be read."""


class LargeReply:
    """Reply that is too large to be read on the spot, with its outcome once it was read."""

    def __init__(self) -> None:
        self.is_read = False
        self._outcome: Outcome | None = None
        self._problem: tuple[type[InvalidJSON], str] | None = None

    async def read(
        self, build: str, size: int, read: Callable[[], Outcome | None], executor: Executor
    ) -> None:
        """Read it beside the loop."""
        try:
            self._outcome = await executor.run(build, read, long=size > _LONG)
        except InvalidJSON as error:
            # Not the error itself: with its traceback it would refer to this frame, which refers to us.
            self._problem = type(error), str(error)
        self.is_read = True

    def result(self) -> Outcome | None:
        """Return what `read_reply` returned, or raise what it raised."""
        if self._problem is not None:
            kind, text = self._problem
            raise kind(text)
        return self._outcome


def _read_large(call: Call, data: bytes, suffix: str | None, limits: Limits) -> Outcome | None:
    outcome = read_reply(data, suffix, limits, decode=decode_in_pieces)
    if outcome is None or call.look_through is None:
        return outcome
    return call.look_through(call.request, outcome)


class ReplyReader:
    """Reads the replies to the calls of this process.

    Args:
        bus: connection on which replies come in.
        dispatcher: gives builds their turns.
        limits: bounds on the JSON of replies.
        executor: reads large replies.
    """

    def __init__(self, bus: Bus, dispatcher: FairDispatcher, limits: Limits, executor: Executor) -> None:
        self._bytes_of: Counter[str] = Counter()
        """Bytes of the replies that were taken, or are read, by build; forgotten when the build ends."""
        self.unnamed = 0
        """Number of replies that were taken and named neither a build nor a component."""
        self._bus = bus
        self._dispatcher = dispatcher
        self._limits = limits
        self._executor = executor
        self._unread = 0
        """Bytes of the large replies that wait for their turn, or are being read."""
        self._large: dict[tuple[Call, str | None], bytes] = {}
        """First large reply to each call that waits for its turn."""
        self._log = RateLimitedLog()

    @property
    def bytes(self) -> int:
        """Size of the replies that are kept, of all builds, in bytes."""
        return self._bytes_of.total()

    def forget(self, build: str) -> None:
        """Stop counting the replies to a build, which is not held any more. Idempotent."""
        del self._bytes_of[build]

    def in_turn(
        self, job: Callable[..., None], call: Call, message: Message, suffix: str | None, *more: Any
    ) -> bool:
        """Give a reply its turn; a large one is read beside the loop when that comes.

        Args:
            job: callback that delivers it; called with all that follows, and ``large`` where it was read.
            call: call that it may answer.
            message: the reply.
            suffix: last word of the shared subject that it came in on; None on a reply subject.
            more: further arguments of the callback.

        Returns:
            Whether its turn is yet to come.
        """
        build, size = call.request.build, len(message.data)
        if size <= READ_HERE:
            weight = 1 + size // _SMALL
            return self._dispatcher.take(build, job, call, message, suffix, *more, weight=weight)
        if self._unread + size > _MOST_UNREAD:
            job(call, message, suffix, *more)
            return False
        kept = size
        first = self._large.setdefault((call, suffix), message.data)
        if first is not message.data and first == message.data:
            # It came on the other way as well: megabytes are kept once.
            message.data, kept = first, 0
        self._unread += kept
        # While it is being read it takes memory as well.
        self._bytes_of[build] += kept
        large = LargeReply()

        async def prepare() -> None:
            # Messages that have come in are read first, as the broker hangs up where too much waits there.
            with trio.move_on_after(_READ_FIRST):
                while self._bus.behind:  # noqa: ASYNC110 - it is told by the time since the last look
                    await trio.sleep(_SHORTLY)
            if call.late is not None or not (call.closed or call.answered):
                read = partial(_read_large, call, message.data, suffix, self._limits)
                await large.read(build, size, read, self._executor)

        def deliver() -> None:
            self._unread -= kept
            self._large.pop((call, suffix), None)
            job(call, message, suffix, *more, large=large)

        return self._dispatcher.take(build, deliver, prepare=prepare)

    def took(self, build: str, message: Message) -> None:
        """Count the bytes of a reply that has answered a call; a large one was counted before."""
        if len(message.data) <= READ_HERE:
            self._bytes_of[build] += len(message.data)

    def read(
        self, request: Request, message: Message, suffix: str | None, large: LargeReply | None
    ) -> Outcome:
        """Return the outcome that a reply says; a ``large`` one was read before.

        Raises:
            InvalidJSON: it is no JSON, or over a limit.
        """
        if suffix is None and message.headers and "Nats-Service-Error" in message.headers:
            code = message.headers.get("Nats-Service-Error-Code", "")
            return failure(f"{message.headers['Nats-Service-Error']} {code}".strip())
        if large is not None and large.is_read:
            outcome = large.result()
        else:
            outcome = read_reply(message.data, suffix, self._limits)
        if outcome is None:
            return failure("the reply does not say how it ended: its _state is neither completed nor errored")
        if suffix is None:
            body = outcome.body or {}
            named = False
            for key, mine in (("_component_id", request.component), ("service", request.build)):
                other = body.get(key)
                if isinstance(other, str) and other:
                    if other != mine:
                        return failure(f"the reply is about another component: its {key} is {other[:600]!r}")
                    named = True
            if not named:
                self._note_unnamed(request)
        return outcome

    def _note_unnamed(self, request: Request) -> None:
        """Count a reply that is known by its subject alone; logged, but not more than once a second."""
        self.unnamed += 1
        self._log.info(
            "a reply names neither its build nor its component: it counts by its subject",
            request=request.subject,
            so_far=self.unnamed,
        )
