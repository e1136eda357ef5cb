"""Other schedulers on the same broker: whether there is one that works, and whether one has gone.

Of several one works and the others stand by. Who wants to begin looks for one that works (it answers service
discovery), then says so to the other candidates, and gives way to one that has decided already or whose id is
smaller. Two that begin in the same moment see each other that way.

A partition can make two of them work at the same time. Where the store has compare-and-set that does no harm,
each build being one's only; but when one of the two then goes, the other has to look after its builds.
"""

from collections.abc import Callable

import msgspec
import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.errors import BusError, NoResponders, NotPermitted
from scheduler.ratelimit import RateLimitedLog
from scheduler.strictjson import encode
from scheduler.subjects import may_be_answered

_log = structlog.get_logger()

CANDIDATES = "scheduler.candidate"
"""Where those who want to begin speak to each other."""
_LISTEN = 0.2
"""Seconds for the other candidates to answer."""
_STANDBY_PERIOD = 2.0
_WATCH_PERIOD = 10.0
_ANSWERS = 1.0
"""Seconds for schedulers that work to answer."""
_GONE_AFTER = 2
"""Rounds without an answer after which a scheduler has gone."""


class _Words(msgspec.Struct):
    """What candidates, and those who answer service discovery, say of themselves."""

    id: str = ""
    decided: bool = False


class Peers:
    """The others.

    Args:
        bus: the connection.
        name: of the service, in service discovery.
        id: of this process, there and among candidates.
    """

    def __init__(self, bus: Bus, name: str, id: str) -> None:  # noqa: A002 - the protocol's word
        self._bus = bus
        self._ping = f"$SRV.PING.{name}"
        self._id = id
        self._decided = False
        self._limited_log = RateLimitedLog(_log)
        self._outbid = False
        """Whether a candidate that goes first has asked, since we began to look."""
        self.live: frozenset[str] = frozenset({id})
        """Who worked when it was looked last, this process included."""

    async def stand_by(self) -> None:
        """Return when this process is to work: no other scheduler does.

        Raises:
            BusError: a subscription could not be made.
        """
        announced = False
        await self._bus.subscribe(CANDIDATES, self._on_candidate)
        while True:
            generation = self._bus.generation
            self._outbid = False
            if (
                await self._another_works() is False
                and await self._is_first()
                and await self._another_works() is False
                and generation == self._bus.generation
                and not self._is_outbid()
            ):
                break
            if not announced:
                _log.warning("standing by: another scheduler is there")
                announced = True
            # After a restart of the broker the other one is on its way back, as we are.
            await trio.sleep(_STANDBY_PERIOD)
        self._decided = True
        if announced:
            _log.info("taking over: no other scheduler answers any more")

    async def look(self) -> frozenset[str]:
        """The ids of those that work, our own included; where they cannot be asked, those known last."""
        answers = await self._ask(self._ping, b"", _ANSWERS)
        if answers is not None:
            self.live = frozenset({self._id, *(one.id for one in answers if one.id)})
        return self.live

    async def watch(self, on_gone: Callable[[], None]) -> None:
        """Look for others that work, from time to time; never returns.

        Args:
            on_gone: called when one has gone.
        """
        missed: dict[str, int] = {}
        while True:
            await trio.sleep(_WATCH_PERIOD)
            generation = self._bus.generation
            answers = await self._ask(self._ping, b"", _ANSWERS)
            if answers is None or generation != self._bus.generation or not self._bus.connected:
                continue
            others = {one.id for one in answers} - {self._id, ""}
            for other in others - missed.keys():
                _log.warning("another scheduler works beside this one", other=other)
            missed = {other: 0 if other in others else missed[other] + 1 for other in others | missed.keys()}
            gone = {other for other, rounds in missed.items() if rounds >= _GONE_AFTER}
            self.live = frozenset({self._id, *missed} - gone)
            if gone:
                _log.warning("another scheduler has gone: its builds are looked after", others=sorted(gone))
                on_gone()
                missed = {other: rounds for other, rounds in missed.items() if other not in gone}

    def _on_candidate(self, message: Message) -> None:
        words = _read(message)
        if words is not None and words.id != self._id and may_be_answered(message.reply):
            self._outbid = self._outbid or words.id < self._id
            try:
                self._bus.publish(message.reply, encode({"id": self._id, "decided": self._decided}))
            except BusError as error:
                self._limited_log.warning("another candidate was not answered", error=str(error))

    def _is_outbid(self) -> bool:
        return self._outbid

    async def _is_first(self) -> bool:
        """Whether no other candidate goes first."""
        answers = await self._ask(CANDIDATES, encode({"id": self._id}), _LISTEN)
        if answers is None:
            return False
        return not any(one.decided or one.id < self._id for one in answers if one.id != self._id)

    async def _another_works(self) -> bool | None:
        """Whether another scheduler works; None where that cannot be told."""
        try:
            with trio.fail_after(_ANSWERS):
                await self._bus.request(self._ping, b"")
        except NoResponders:
            return False
        except trio.TooSlowError:
            # Where something listens to everything nobody says that there is nobody.
            return False if self._bus.connected else None
        except NotPermitted as error:
            _log.error("cannot ask for other schedulers, and works as if there were none", error=str(error))
            return False
        except BusError as error:
            _log.warning("cannot ask for other schedulers", error=str(error))
            return None
        return True

    async def _ask(self, subject: str, data: bytes, seconds: float) -> list[_Words] | None:
        """What everybody answers who does so in time; None where nobody could be asked."""
        answers: list[_Words] = []

        def take(message: Message) -> None:
            words = _read(message)
            if words is not None:
                answers.append(words)

        inbox = self._bus.new_inbox()
        with trio.move_on_after(seconds + _ANSWERS):
            try:
                subscription = await self._bus.subscribe(inbox, take)
                self._bus.publish(subject, data, reply=inbox)
            except BusError as error:
                _log.warning("cannot ask for other schedulers", error=str(error))
                return None
            await trio.sleep(seconds)
            await subscription.unsubscribe()
            return answers
        return None


def _read(message: Message) -> _Words | None:
    try:
        return msgspec.json.decode(message.data, type=_Words)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
