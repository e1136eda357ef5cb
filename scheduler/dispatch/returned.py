"""Sends requests again to connectors that come back and say which they have not answered.

A connector that was restarted says on ``scheduler.returned.<provider>`` which attempts its own record holds
without an answer. Those that are still in flight here are sent to it again, under the same attempt id. That
is the connector's word that it knows such an id again: without it nothing is sent twice but by the operator's
choice (`Resend`). All else that it names is counted and dropped: what has ended, was given up, is followed by
another attempt, or belongs to another provider.

Messages that come together are answered together, and then a second passes: so, however many there are, no
attempt is sent more than once a second, and looking for attempts costs little.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final, NoReturn
from urllib.parse import unquote

import msgspec
import structlog
import trio

from scheduler.bus import Bus, Message, Subscription
from scheduler.definition.subjects import attempt_header
from scheduler.dispatch.call import Call
from scheduler.errors import NotPermitted
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.pace import paced
from scheduler.text import printable

_log = structlog.get_logger()

RETURNED: Final = "scheduler.returned."
"""Beginning of the subjects on which connectors say that they are back; the provider follows."""
EVERY: Final = f"{RETURNED}*"
_MOST_IDS: Final = 1_000
"""Attempts of one message that are looked at."""
_MOST_BYTES: Final = 2 * 1024 * 1024
"""Bytes of one message, and of all that wait."""
_MOST_SIGNS: Final = 50_000
"""Quotes and commas in a message: with more of them it takes tens of milliseconds to be read, however short
what is between them."""
_MOST_MESSAGES: Final = 100
"""Messages that wait."""
_PERIOD: Final = 1.0
"""Seconds between two looks at what has come."""
_AT_ONCE: Final = 50
"""Requests that are sent before others have a turn: a millisecond or two."""
_LOOKED_AT_ONCE: Final = 500
"""Calls whose ids are looked at before others have a turn."""
_SHOWN: Final = 128
"""Characters of a connector's name in the log."""


class Return(msgspec.Struct, gc=False):
    """Word of a connector that is back."""

    attempts: list[str]
    instance: str | None = None


_DECODER: Final = msgspec.json.Decoder(Return)


class Returned:
    """Answers connectors that come back; `run` has to be running.

    Args:
        bus: connection on which they say so.
        calls: newest call of each component, by build and component.
        send: sends the request of a call again; returns whether the bus took it.
    """

    def __init__(self, bus: Bus, calls: Mapping[tuple[str, str], Call], send: Callable[[Call], bool]) -> None:
        self.counts: Counter[str] = Counter()
        """Number of attempts that were sent again, and of attempts and messages that were dropped, by
        reason."""
        self._bus = bus
        self._calls = calls
        self._send_again = send
        self._messages: deque[tuple[float, Message]] = deque()
        """With the time at which each came (Trio's clock, seconds)."""
        self._bytes = 0
        """Size of the messages that wait."""
        self._waiting: dict[Call, float] = {}
        """Attempts to be looked at again later, and when they were asked for: of an earlier process, until
        their replies so far are known; and those of which a copy may be lost."""
        self._wake = trio.Event()
        self._stopped = False
        """Whether nothing is sent again any more."""
        self._subscription: Subscription | None = None
        self._log = RateLimitedLog(burst=10)

    async def listen(self) -> None:
        """Subscribe. Where the broker does not permit that, nothing is sent again for this reason."""
        try:
            self._subscription = await self._bus.subscribe(EVERY, self.take)
        except NotPermitted as error:
            _log.warning(
                "connectors that come back are not heard, and get no request again",
                reason=str(error),
                cure=f'let it subscribe to "{EVERY}" (see `scheduler permissions`)',
            )

    def take(self, message: Message) -> None:
        """Take the word of a connector that is back."""
        size = len(message.data)
        if self._bytes + size > _MOST_BYTES or len(self._messages) >= _MOST_MESSAGES:
            self._drop(message, "there are too many, or too large ones")
            return
        self._messages.append((trio.current_time(), message))
        self._bytes += size
        self._wake.set()

    def stop(self) -> None:
        """Send nothing more, as this process is stopping: another one may have the builds. Synchronous."""
        self._stopped = True

    async def run(self) -> NoReturn:
        """Send requests again; never returns."""
        while True:
            await self._wake.wait()
            self._wake = trio.Event()
            await self._answer()
            if self._waiting:
                self._wake.set()
            await trio.sleep(_PERIOD)

    async def _answer(self) -> None:
        # In a function of its own, so that no call is kept alive while there is nothing to do.
        found, self._waiting = self._waiting, {}
        if self._messages:
            by_attempt = await self._in_flight()
            while self._messages:
                came, message = self._messages.popleft()
                self._bytes -= len(message.data)
                found |= dict.fromkeys(self._named(message, by_attempt), came)
                await trio.lowlevel.checkpoint()
        again = 0
        async for call in paced(found, every=_AT_ONCE):
            again += self._send(call, found[call])
        if again:
            self.counts["sent again"] += again

    async def _in_flight(self) -> dict[str, Call]:
        """Return the attempts in flight by their ids: as they are, as a header has them, and that decoded."""
        found: dict[str, Call] = {}
        spelled: dict[str, Call] = {}
        async for call in paced(list(self._calls.values()), every=_LOOKED_AT_ONCE):
            if not (call.closed or call.answered):
                attempt = call.request.attempt
                found[attempt] = call
                if "%" in attempt or not (attempt.isascii() and attempt.isprintable()):
                    header = attempt_header(attempt)
                    spelled[header] = spelled[unquote(header)] = call
        # Of two that are spelled alike, the one whose id it is counts.
        return {**spelled, **found}

    def _named(self, message: Message, by_attempt: Mapping[str, Call]) -> Iterable[Call]:
        """Return the calls that a message names, and count what it names in vain."""
        if message.data.count(b'"') + message.data.count(b",") > _MOST_SIGNS:
            self._drop(message, "it names too many attempts")
            return []
        try:
            said = _DECODER.decode(message.data)
        except (msgspec.MsgspecError, RecursionError) as error:
            self._drop(message, str(error)[:200])
            return []
        provider = message.subject.removeprefix(RETURNED)
        ids = dict.fromkeys(said.attempts[:_MOST_IDS])
        named = [call for one in ids if (call := by_attempt.get(one)) and call.request.provider == provider]
        self.counts["not in flight here"] += len(ids) - len(named)
        self.counts["beyond a thousand"] += max(0, len(said.attempts) - _MOST_IDS)
        self._log.info(
            "a connector is back",
            provider=printable(provider, _SHOWN),
            instance=printable(said.instance or "", _SHOWN),
            unanswered=len(said.attempts),
            in_flight=len(named),
        )
        return named

    def _send(self, call: Call, asked: float) -> bool:
        """Send a request again that was asked for then, if that is still of use; return whether it was."""
        if self._stopped:
            self.counts["this process is stopping"] += 1
            return False
        newest = self._calls.get((call.request.build, call.request.component))
        if call.closed or call.answered or newest is not call:
            self.counts["not in flight here"] += 1
            return False
        if not call.is_taken_up:
            # Its reply may have been captured. Once that is known it is sent again.
            self._waiting[call] = asked
            return False
        if call.repeated_at > asked and not call.lost:
            # As its build was taken over meanwhile, or for what another one said.
            if self._bus.connected:
                self.counts["sent again since"] += 1
            else:
                # Whether that copy is lost shows with the next connection.
                self._waiting[call] = asked
            return False
        if call.is_queued or (call.unheard_of and call.wanted):
            self.counts["about to be sent"] += 1
            return False
        if not self._send_again(call):
            self.counts["not taken by the bus"] += 1
            return False
        return True

    def _drop(self, message: Message, reason: str) -> None:
        self.counts["malformed"] += 1
        self._log.warning(
            "the word of a connector that is back is dropped",
            reason=reason,
            provider=printable(message.subject.removeprefix(RETURNED), _SHOWN),
            bytes=len(message.data),
        )
