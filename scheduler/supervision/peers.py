"""Other schedulers on the broker with which builds cannot be shared: one works, and the others stand by.

That are all of them where the store has no leases (`scheduler.fleet`), and those of versions that keep none.

A process that wants to begin looks for one that works, which answers service discovery. Then it announces
itself to the other candidates, and gives way to one that has decided already or whose id is smaller. In that
way two that begin at the same moment see each other.

A scheduler that has gone is told from one that is silent. Where the question has no subscriber, the broker
says so: the other one has gone. Where it has one that does not answer, the other one may hang, or may have
stopped without the broker noticing. It is asked three times over 10 s, and counts as gone if nothing was
written to the logs meanwhile.

A partition can make two of them work at the same time. Where the store has compare-and-set that does no harm,
as each build is owned by one of them; but when one of the two goes, the other has to take up its builds.

One file on purpose: whoever stands by, behind whom, rests on the same few questions and answers.
"""

from collections.abc import Awaitable, Callable, Collection
from enum import Enum, auto

import msgspec
import structlog
import trio

from scheduler.bus import Bus, Message
from scheduler.bus.interest import subscribers
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import may_be_answered
from scheduler.errors import BusError, NoResponders, NotPermitted
from scheduler.runtime.log_limits import RateLimitedLog

_log = structlog.get_logger()

CANDIDATES = "scheduler.candidate"
"""Subject on which candidates announce themselves to each other."""
_LISTEN = 0.2
"""Seconds for the other candidates to answer."""
_STANDBY_PERIOD = 2.0
_WATCH_PERIOD = 10.0
_ANSWERS = 1.0
"""Seconds for schedulers that work to answer."""
_SILENT_ROUNDS = 3
"""Questions without an answer after which a scheduler has gone."""
_BETWEEN = 3.5
"""Seconds between these questions, so that with the waits for answers they take 10 s."""


class _Found(Enum):
    """Result of the question whether another scheduler works."""

    ANSWER = auto()
    NOBODY = auto()
    SILENCE = auto()
    UNKNOWN = auto()


async def _no_logs() -> int:
    return 0


_MOST_NAMED = 20
"""Log lines about other schedulers at a time: anybody may answer, under any name."""


class CandidateWords(msgspec.Struct):
    """Message of a candidate, or an answer to service discovery, as far as it is read."""

    id: str = ""
    decided: bool = False


class Peers:
    """Other schedulers on the broker.

    Args:
        bus: the connection.
        name: name of the service, in service discovery.
        id: id of this process, there and among candidates.
        written: returns the size of the logs: a number that grows while any scheduler works. Raises BusError
            where it cannot be read now.
    """

    def __init__(
        self,
        bus: Bus,
        name: str,
        id: str,  # noqa: A002 - the protocol's word
        written: Callable[[], Awaitable[int]] = _no_logs,
    ) -> None:
        self._bus = bus
        self._ping = f"$SRV.PING.{name}"
        self._id = id
        self._written = written
        self._decided = False
        self._limited_log = RateLimitedLog(_log, burst=_MOST_NAMED)
        self._outbid = False
        """Whether a candidate that takes precedence has asked, since we began to look."""
        self.elders: frozenset[str] = frozenset()
        """Ids of the schedulers without a lease that worked at the last look: each keeps its builds."""

    async def stand_by(self) -> None:
        """Wait until no other scheduler works, so that this one is to.

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
                and await self._ask_once() in {_Found.NOBODY, _Found.SILENCE}
                and generation == self._bus.generation
                and not self._is_outbid()
            ):
                break
            if not announced:
                _log.warning("standing by: another scheduler is there")
                announced = True
            # After a restart of the broker the other scheduler is on its way back too.
            await trio.sleep(_STANDBY_PERIOD)
        self._decided = True
        if announced:
            _log.info("taking over: no other scheduler answers any more")

    async def stand_elected(
        self, leased: Callable[[], Awaitable[frozenset[str]]], *, inherited: bool, alone: bool
    ) -> None:
        """Wait, with the lease of those that keep one, until no scheduler without a lease works.

        Args:
            leased: returns the ids of the processes that had the lease, this one included.
            inherited: whether it was taken from one that worked until then: no other can have begun.
            alone: whether no scheduler worked a moment ago.

        Raises:
            BusError: a subscription could not be made.
        """
        self._decided = inherited
        await self._bus.subscribe(CANDIDATES, self._on_candidate)
        announced = False
        while not self._decided:
            self._outbid = False
            generation = self._bus.generation
            self._decided = (
                (alone or not await self._an_elder_works(leased))
                and await self._is_first(besides=await leased())
                and generation == self._bus.generation
                and not self._is_outbid()
            )
            alone = False
            if not self._decided:
                if not announced:
                    _log.warning("standing by: a scheduler without a lease is there")
                    announced = True
                await trio.sleep(_STANDBY_PERIOD)
        if announced:
            _log.info("taking over: no scheduler without a lease answers any more")

    async def is_absent(self) -> bool:
        """Return whether no scheduler works, for sure: nobody can hear the question for one."""
        found = await self._ask_once()
        return found is _Found.NOBODY or (found is _Found.SILENCE and not await self._is_heard())

    async def stand_behind(self, leased: Callable[[], Awaitable[frozenset[str]]]) -> None:
        """Wait until no scheduler of a version works that keeps no lease: builds cannot be shared with it.

        Args:
            leased: returns the ids of the schedulers that keep leases; raises BusError.

        Raises:
            BusError: a subscription could not be made.
        """
        announced = False
        while await self._an_elder_works(leased):
            if not announced:
                _log.warning(
                    "standing by: a scheduler without a lease here is there",
                    reason="it is of an earlier version, or works at another JetStream",
                )
                announced = True
            await trio.sleep(_STANDBY_PERIOD)
        # One that begins now stands by, or is seen by `watch`.
        self._decided = True
        await self._bus.subscribe(CANDIDATES, self._on_candidate)
        if announced:
            _log.info("taking over: no scheduler without a lease answers any more")

    async def _an_elder_works(self, leased: Callable[[], Awaitable[frozenset[str]]]) -> bool:
        found = await self._ask_once()
        if found is _Found.NOBODY:
            return False
        try:
            with trio.fail_after(_ANSWERS):
                known = await leased()
        except (BusError, trio.TooSlowError) as error:
            _log.warning("the leases of other schedulers cannot be read yet", reason=str(error))
            return True
        answers = await self._ask(self._ping, b"", _ANSWERS)
        if answers is None:
            return True
        if ids := {one.id for one in answers if one.id}:
            return not ids <= known
        # Somebody listens, and says nothing: where there are leases, that is for these to judge.
        return not known and await self._another_works() is not False

    async def find_elders(self, leased: Callable[[], Awaitable[frozenset[str]]]) -> frozenset[str]:
        """Return the ids of the schedulers without a lease that work now, or did at the last look.

        Args:
            leased: as for `stand_behind`.
        """
        if await self._ask_once() is _Found.NOBODY:
            return self.elders
        answers = await self._ask(self._ping, b"", _ANSWERS)
        if ids := {one.id for one in answers or ()} - {self._id, ""}:
            try:
                with trio.fail_after(_ANSWERS):
                    self.elders |= ids - await leased()
            except (BusError, trio.TooSlowError) as error:
                # In doubt each keeps its builds, until the next look.
                _log.warning("the leases of other schedulers cannot be read", reason=str(error))
                return self.elders | ids
        return self.elders

    async def watch(
        self, leased: Callable[[], Awaitable[frozenset[str]]], on_gone: Callable[[], None]
    ) -> None:
        """Look for schedulers without a lease from time to time, and keep `elders`; never returns.

        Args:
            leased: as for `stand_behind`.
            on_gone: callback for when one has gone.
        """
        missed: dict[str, int] = {}
        while True:
            await trio.sleep(_BETWEEN if any(missed.values()) else _WATCH_PERIOD)
            generation = self._bus.generation
            answers = await self._ask(self._ping, b"", _ANSWERS)
            if answers is None or generation != self._bus.generation or not self._bus.connected:
                continue
            ids = {one.id for one in answers} - {self._id, ""}
            if not ids and not missed and not self.elders:
                continue
            try:
                with trio.fail_after(_ANSWERS):
                    others = ids - await leased()
            except (BusError, trio.TooSlowError):
                # Asked again in a moment.
                continue
            for other in others - missed.keys():
                self._limited_log.warning(
                    "a scheduler of an earlier version works beside this one", other=other[:100]
                )
            missed = dict.fromkeys(self.elders, 0) | missed
            missed = {other: 0 if other in others else missed[other] + 1 for other in others | missed.keys()}
            gone = {other for other, rounds in missed.items() if rounds >= _SILENT_ROUNDS}
            missed = {other: rounds for other, rounds in missed.items() if other not in gone}
            self.elders = frozenset(missed)
            if gone:
                _log.warning(
                    "a scheduler of an earlier version has gone: its builds are taken over",
                    others=sorted(gone)[:_MOST_NAMED],
                )
                on_gone()

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

    async def _is_first(self, besides: Collection[str] = ()) -> bool:
        """Return whether no other candidate takes precedence, besides those that are judged by a lease."""
        answers = await self._ask(CANDIDATES, encode({"id": self._id}), _LISTEN)
        if answers is None:
            return False
        others = [one for one in answers if one.id != self._id and one.id not in besides]
        return not any(one.decided or one.id < self._id for one in others)

    async def _another_works(self) -> bool | None:
        """Return whether another scheduler works; None where that cannot be told."""
        found = await self._ask_once()
        if found is _Found.SILENCE and await self._is_heard():
            written = await self._read_written()
            for _ in range(_SILENT_ROUNDS - 1):
                await trio.sleep(_BETWEEN)
                found = await self._ask_once()
                if found is not _Found.SILENCE:
                    break
            else:
                now = await self._read_written()
                if written is None or now is None:
                    return None
                if now != written:
                    return True
                _log.warning("another scheduler is silent, and nothing is written: it counts as gone")
        return None if found is _Found.UNKNOWN else found is _Found.ANSWER

    async def _ask_once(self) -> _Found:
        try:
            with trio.fail_after(_ANSWERS):
                await self._bus.request(self._ping, b"")
        except NoResponders:
            return _Found.NOBODY
        except trio.TooSlowError:
            return _Found.SILENCE if self._bus.connected else _Found.UNKNOWN
        except NotPermitted as error:
            _log.error("cannot ask for other schedulers, and works as if there were none", error=str(error))
            return _Found.NOBODY
        except BusError as error:
            _log.warning("cannot ask for other schedulers", error=str(error))
            return _Found.UNKNOWN
        return _Found.ANSWER

    async def _is_heard(self) -> bool:
        """Return whether a scheduler may hear the question, and not only a subscriber to everything."""
        try:
            return self._ping in await subscribers(self._bus)
        except BusError:
            return True

    async def _read_written(self) -> int | None:
        """Return the size of the logs; None where it cannot be read."""
        try:
            with trio.fail_after(_ANSWERS):
                return await self._written()
        except (BusError, trio.TooSlowError) as error:
            _log.warning("cannot tell whether another scheduler writes", error=str(error))
            return None

    async def _ask(self, subject: str, data: bytes, seconds: float) -> list[CandidateWords] | None:
        """Return the answers that come in time; None where the question could not be sent."""
        answers: list[CandidateWords] = []

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


def _read(message: Message) -> CandidateWords | None:
    try:
        return msgspec.json.decode(message.data, type=CandidateWords)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
