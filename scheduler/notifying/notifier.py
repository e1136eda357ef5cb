"""Sends notifications: one at a time to each host. A slow receiver holds up no other one, and no build."""

import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import structlog
import trio
from attrs import asdict, define, field

from scheduler.definition.destinations import Destination, Host
from scheduler.errors import NotPosted
from scheduler.notifying.notice import Notice
from scheduler.notifying.outbox import Letter, Outbox
from scheduler.notifying.poster import Answer, Poster
from scheduler.notifying.retries import Verdict, pause_after, read_retry_after, verdict_of
from scheduler.notifying.signing import signed_headers
from scheduler.runtime.background import open_background
from scheduler.runtime.log_limits import RateLimitedLog

_log = structlog.get_logger()

_MOST_GONE: Final = 1_000
"""URLs that are remembered as gone, those of builds among them."""
_MOST_LINES: Final = 20
"""Log lines of one kind at a time."""


@define
class Counts:
    """Counters of notifications; one to two URLs counts twice."""

    delivered: int = 0
    failed: int = 0
    """Notifications that were refused, or tried as often as is allowed."""
    dropped: int = 0
    """Notifications that had no room, or were for a URL that is gone."""


@define(eq=False)
class _Line:
    """Notifications for one host."""

    outbox: Outbox = field(factory=Outbox)
    sending: bool = False
    woken: trio.Event = field(factory=trio.Event)

    @property
    def waiting(self) -> int:
        return len(self.outbox) + self.sending


class Notifier:
    """Sends notifications while it is open.

    Hosts are those of the operator's settings, so their number is bounded.

    Args:
        poster: posts them.
        keys: keys to sign with.
        wall_clock: returns the seconds since 1970, for receivers.
        luck: returns random numbers from 0 to 1.
    """

    def __init__(
        self,
        poster: Poster,
        keys: Sequence[bytes],
        *,
        wall_clock: Callable[[], float] = time.time,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.counts = Counts()
        self._poster = poster
        self._keys = tuple(keys)
        self._wall_clock = wall_clock
        self._luck = luck
        self._lines: dict[Host, _Line] = {}
        self._gone: dict[str, None] = {}
        """URLs to which nothing is sent any more, the oldest first."""
        self._number = 0
        self._nursery: trio.Nursery | None = None
        self._finishing = False
        self._settled = trio.Event()
        """Event that is set when a letter is settled."""
        self._limited_log = RateLimitedLog(_log, burst=_MOST_LINES)

    @property
    def waiting(self) -> int:
        """Number of notifications that are neither delivered nor given up."""
        return sum(line.waiting for line in self._lines.values())

    def document(self) -> dict[str, int]:
        """Return the counters, for service discovery."""
        return {**asdict(self.counts), "waiting": self.waiting}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Send until the context is left; what is not sent by then is logged by number."""
        try:
            async with open_background() as self._nursery:
                yield
        finally:
            self._nursery = None
            if left := self.waiting:
                _log.warning("notifications were not delivered before the end", count=left)

    def send(self, notice: Notice, destinations: Iterable[Destination]) -> None:
        """Queue a notification for each destination. It neither blocks nor raises."""
        for destination in destinations:
            self._number += 1
            self._queue(Letter(notice, destination, self._number))

    def _queue(self, letter: Letter) -> None:
        if letter.destination.url in self._gone or self._nursery is None:
            self.counts.dropped += 1
            return
        line = self._lines.get(letter.destination.host)
        if line is None:
            line = self._lines[letter.destination.host] = _Line()
            self._nursery.start_soon(self._run, line, name=f"notifications to {letter.destination}")
        self._put(line, letter)

    def _put(self, line: _Line, letter: Letter) -> None:
        for dropped in line.outbox.put(letter):
            self.counts.dropped += 1
            self._warn("a notification was dropped: too many wait for its receiver", dropped)
        line.woken.set()

    async def finish(self, within: float) -> None:
        """Try once more, for ``within`` seconds, everything that waits, and end the wait for another try."""
        self._finishing = True
        for line in self._lines.values():
            line.outbox.hurry()
            line.woken.set()
        with trio.move_on_after(within):
            while self.waiting:
                self._settled = trio.Event()
                await self._settled.wait()

    async def _run(self, line: _Line) -> None:
        while True:
            letter = line.outbox.take(trio.current_time())
            if letter is not None:
                await self._send(line, letter)
                # What cannot even be tried takes no time, and there may be a thousand of them.
                await trio.lowlevel.checkpoint()
                continue
            line.woken = trio.Event()
            due = line.outbox.next_due()
            with trio.move_on_at(float("inf") if due is None else due):
                await line.woken.wait()

    async def _send(self, line: _Line, letter: Letter) -> None:
        """Try once to send a letter, and put it back where another try may succeed."""
        letter.tries += 1
        # Cancelled, it counts as waiting.
        line.sending = True
        answer: Answer | str
        try:
            answer = await self._post(letter)
        except NotPosted as error:
            answer = str(error)
        except Exception as error:  # noqa: BLE001 - a bug there costs this try, and no build
            self._limited_log.exception("internal error: a notification was not sent", **_about(letter))
            answer = f"internal error ({type(error).__name__})"
        line.sending = False
        self._settle(line, letter, answer)
        self._settled.set()

    async def _post(self, letter: Letter) -> Answer:
        notice = letter.notice
        headers = signed_headers(notice.identity, notice.body, self._wall_clock(), self._keys)
        return await self._poster.post(letter.destination.url, headers, notice.body)

    def _settle(self, line: _Line, letter: Letter, answer: Answer | str) -> None:
        """Decide what becomes of a letter, by its answer or by the reason why there is none."""
        if isinstance(answer, str):
            verdict, why, asked = Verdict.AGAIN, answer, None
        else:
            verdict, why = verdict_of(answer.status), f"the answer is {answer.status}"
            asked = read_retry_after(answer.retry_after, self._wall_clock())
        if verdict is Verdict.DELIVERED:
            self.counts.delivered += 1
            _log.debug("notification delivered", **_about(letter))
            return
        if verdict is Verdict.GONE:
            self._give_up(line, letter)
        pause = pause_after(letter.tries, self._luck(), asked) if verdict is Verdict.AGAIN else None
        if pause is None or self._finishing:
            self.counts.failed += 1
            self._warn("a notification was not delivered", letter, why=why)
            return
        now = trio.current_time()
        if asked is not None:
            line.outbox.hold(now + asked)
        letter.due = now + pause
        self._limited_log.info(
            "a notification is tried again", **_about(letter), why=why, pause=round(pause, 1)
        )
        self._put(line, letter)

    def _give_up(self, line: _Line, letter: Letter) -> None:
        """Send nothing more to the URL of a letter until the process ends."""
        url = letter.destination.url
        self._gone[url] = None
        if len(self._gone) > _MOST_GONE:
            del self._gone[next(iter(self._gone))]
        dropped = line.outbox.drop(url)
        self.counts.dropped += dropped
        self._warn("nothing more is sent to a URL: it answered 410 Gone", letter, dropped=dropped)

    def _warn(self, event: str, letter: Letter, **context: object) -> None:
        self._limited_log.warning(event, **_about(letter), **context)


def _about(letter: Letter) -> dict[str, object]:
    """Return what log lines say of a letter: the host of its URL alone, as the rest may be a secret."""
    notice = letter.notice
    return {
        "build": notice.build,
        "type": notice.kind.value,
        "host": str(letter.destination),
        "tries": letter.tries,
    }
