"""Rivals: other JetStreams that answer the scheduler's appends.

Two JetStreams may share an account: those of a hub and of its leaf nodes. If each of them has a stream on the
scheduler's subjects, both judge every append, and the first answer wins: appends are acknowledged by a log
that is not read, or refused by one that does not know the build, and components are sent twice.

So the streams that answer are found out before the scheduler's own are made or used, and from time to time
after that, by a *probe*: an append that no stream stores, because it expects a stream by a name that does not
exist. Each stream on its subject refuses it, and so reveals itself. An acknowledgement names its stream and
domain; each is checked. While a rival answers nothing is appended: builds are suspended, as in any trouble
with the broker.
"""

from typing import Final, NoReturn

import msgspec
import trio

from scheduler.bus import Message, Subscription
from scheduler.errors import BusError, ForeignAnswer, StoreError, StreamNotFound
from scheduler.jetstream.answers import Ack
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.streams import BUCKET, LOG, OBJECTS, REPORTS
from scheduler.runtime.logger import Logger

PROBE_SUBJECT: Final = "scheduler.log.=rivals"
"""Subject of the probe. It is no build's log: an encoded id never looks like this."""
_NO_STREAM = "SCHEDULER_PROBE"
_QUIET = 0.25
"""Seconds for answers to come in, from anywhere."""
_LONG_QUIET = 2.0
_STALE = 5.0
"""Seconds after which the answers to a probe are out of date."""
_PERIOD = 60.0
"""Seconds between two looks; also between two log lines that say the same."""
_SOON = 5.0
"""Seconds until the first look, and between two of them while there is a rival."""
_GOODBYE = 1.0

_OWNERS: Final = {"scheduler.log.": LOG, "scheduler.report.": REPORTS, f"$O.{BUCKET}.": OBJECTS}
"""Stream for the subjects with each of these beginnings."""

CURE: Final = (
    "remove the streams SCHEDULER_* and OBJ_SCHEDULER_* from the other one (nats stream rm --js-domain ...),"
    f" and keep scheduler.log.>, scheduler.report.>, $O.{BUCKET}.>, scheduler.reply.> and the captured"
    " subjects (*.create.*.done and so on) from passing the leaf node (deny_imports and deny_exports of its"
    " remote); or give the scheduler an account of its own"
)

log = Logger()


class _Answer(msgspec.Struct):
    stream: str


class Probe:
    """A request for all streams that answer an append, by which nothing is stored; to be closed."""

    def __init__(self, js: JetStream) -> None:
        self.asked_at = trio.current_time()
        self._js = js
        self._streams: list[str] = []
        self._subscription: Subscription | None = None

    async def ask(self) -> None:
        """Publish the probe; answers may come in while other things are done.

        Raises:
            BusError: as for `JetStream`.
        """
        inbox = self._js.bus.new_inbox()
        self._subscription = await self._js.subscribe(inbox, self._take)
        self.asked_at = trio.current_time()
        self._js.bus.publish(PROBE_SUBJECT, b"", reply=inbox, headers={"Nats-Expected-Stream": _NO_STREAM})

    async def answers(self, quiet: float) -> list[str]:
        """Return the names of the streams that answered, at least ``quiet`` seconds after `ask`."""
        await trio.sleep_until(self.asked_at + quiet)
        return list(self._streams)

    async def close(self) -> None:
        """Take no more answers. Idempotent; shielded from cancellation."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            with trio.move_on_after(_GOODBYE, shield=True):
                await subscription.unsubscribe()

    def _take(self, message: Message) -> None:
        try:
            answer = msgspec.json.decode(message.data, type=_Answer)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return  # no stream is there, as the server says; or a program that answers everything
        self._streams.append(answer.stream)


class Rivals:
    """Looks for rivals: before anything relies on our JetStream, and while it works."""

    def __init__(self, js: JetStream) -> None:
        self._js = js
        self._probe: Probe | None = None
        self._wake = trio.Event()
        self._domain: str | None = None
        """Domain of our JetStream; empty where it has none, None before it is known."""
        self._said_at = 0.0

    async def ask(self) -> None:
        """Begin to look."""
        await self._end_probe()
        self._probe = Probe(self._js)
        try:
            await self._probe.ask()
        except BusError as error:
            log.debug("rivals cannot be looked for yet", reason=str(error))
            self._probe = None

    async def check(self) -> None:
        """Find out our domain, and that no rival answers; from then on `watch` keeps to that domain.

        Raises:
            StoreError: a rival answers; the message has the cure.
            BusError: as for `JetStream`.
        """
        self._domain = await self._ask_domain()
        if self._probe is None or trio.current_time() > self._probe.asked_at + _STALE:
            await self.ask()
        found = await self._confirmed(_QUIET)
        if found:
            raise StoreError(f"{found}; {CURE}")
        self._js.on_ack = self._on_ack
        self._js.bus.on_connected(self._look_soon)

    async def watch(self) -> NoReturn:
        """Look from time to time, and whenever there is a reason; never returns."""
        pause = _SOON
        while True:
            with trio.move_on_after(pause):
                await self._wake.wait()
            self._wake = trio.Event()
            try:
                found = await self._look_again()
            except BusError as error:
                log.debug("rivals cannot be looked for at the moment", reason=str(error))
                pause = _SOON
                continue
            if found:
                self._suspend(found)
            elif self._js.suspended:
                self._js.suspended = ""
                log.warning("no other JetStream answers any more: builds resume")
            pause = _SOON if found else _PERIOD

    async def _look_again(self) -> str:
        domain = await self._ask_domain()
        if domain != self._domain:
            return f"we are connected to JetStream domain {domain!r}, and builds are kept in {self._domain!r}"
        await self.ask()
        return await self._confirmed(_LONG_QUIET)

    async def _confirmed(self, quiet: float) -> str:
        """Look as `_look` does; twice if something is wrong: two may answer while a leader changes."""
        found = await self._look(quiet)
        if found:
            await self.ask()
            found = await self._look(_LONG_QUIET)
        return found

    async def _look(self, quiet: float) -> str:
        """Return what is wrong, in words; empty where nothing is."""
        try:
            try:
                await self._js.info(LOG)
                ours = 1
            except StreamNotFound:
                ours = 0
            answers = [] if self._probe is None else await self._probe.answers(quiet)
        finally:
            await self._end_probe()  # noqa: ASYNC102 - it shields itself, with a deadline
        if len(answers) <= ours:
            return ""
        others = len(answers) - ours
        streams = (
            "stream of another JetStream answers" if others == 1 else "streams of other JetStreams answer"
        )
        return f"{others} {streams} what is appended to scheduler.log.* ({', '.join(sorted(set(answers)))})"

    async def _ask_domain(self) -> str:
        domain = (await self._js.account()).get("domain")
        return domain if isinstance(domain, str) else ""

    async def _end_probe(self) -> None:
        probe, self._probe = self._probe, None
        if probe is not None:
            await probe.close()

    def _look_soon(self) -> None:
        self._wake.set()

    def _on_ack(self, subject: str, ack: Ack) -> None:
        """Check the origin of an acknowledgement for ``subject``.

        Raises:
            ForeignAnswer: it comes from a rival.
        """
        owner = next((stream for prefix, stream in _OWNERS.items() if subject.startswith(prefix)), ack.stream)
        if ack.domain != self._domain or ack.stream != owner:
            found = (
                f"stream {ack.stream} of JetStream domain {ack.domain!r} answers what is appended to {owner}"
            )
            self._suspend(found)
            self._look_soon()
            raise ForeignAnswer(f"{subject}: {found}")

    def _suspend(self, found: str) -> None:
        """Prevent all appends until no rival answers."""
        now = trio.current_time()
        if not self._js.suspended or now - self._said_at >= _PERIOD:
            self._said_at = now
            log.error("builds are suspended: another JetStream answers", problem=found, cure=CURE)
        self._js.suspended = found


async def find_rival(js: JetStream) -> str:
    """Return what is wrong with the answers to our appends, in words; empty where nothing is.

    Raises:
        BusError: as for `JetStream`.
    """
    rivals = Rivals(js)
    await rivals.ask()
    return await rivals._confirmed(_LONG_QUIET / 2)  # noqa: SLF001 - of this module
