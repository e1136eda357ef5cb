"""Absences: finds instances that have gone, where the broker is a single server and knows who is connected.

An instance that has missed a renewal, or was not seen before, is asked for on its own subject. Where nobody
subscribes to that, asked twice, it has gone, and nobody waits for its lease to run out. In a cluster that
proves nothing: its server may be cut off from ours. Nor does it in the seconds after a new connection: when
the broker was away, the others are on their way back.
"""

import math
from collections.abc import Container, Iterable
from typing import Final

import msgspec
import trio

from scheduler.bus import Bus, Message, Subscription
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import may_be_answered
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, NoResponders, NotPermitted, StoreError
from scheduler.fleet.lease import PERIOD, Member
from scheduler.runtime.logger import Logger
from scheduler.runtime.values import Value

INSTANCE: Final = "scheduler.instance."
"""Beginning of the subjects of one instance; its key follows, then a verb."""
PING: Final = "ping"
"""Verb that only asks whether the instance is there."""
_PATIENCE: Final = 1.0
"""Seconds for the answer of the broker whether anybody subscribes."""
_MORE_PATIENCE: Final = 3.0
"""Seconds for the same question once more, before a process of our name that says nothing counts as hung: a
broker or a process that is busy for a second has cost nobody its name."""
_MISSED: Final = 0.75 * PERIOD
"""Age of a lease, in seconds, from which a renewal is overdue: a live one is seen anew with each look."""
_BACK_WITHIN: Final = 6.0
"""Seconds after a new connection in which others come back, too: they try every five seconds, at least."""
_NAME_WITHIN: Final = 5.0
"""Seconds in which a process that has the name of this one is to end."""
_BETWEEN: Final = 0.25
_LONGEST: Final = 100
"""Characters of a process's name that are shown."""
_TIMES: Final = 2
"""Times in a row that nobody subscribed after which an instance has gone."""

UNASKED: Final = "instances that have gone are not asked for: their leases have to run out"

log = Logger()


class NameInUse(StoreError):
    """Another process has the name of this instance, and answers."""


class _Answer(Value, frozen=True):
    instance: str


_decode: Final = msgspec.json.Decoder(_Answer).decode


class Returning:
    """Tells whether others may be on their way back, as there is a new connection.

    Args:
        bus: the connection; the one that it has at first is none of these.
    """

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._generation = bus.generation
        self._since = -math.inf

    @property
    def may_be(self) -> bool:
        """Whether they may be; the time begins when this is read first on a connection."""
        now = trio.current_time()
        if self._bus.generation != self._generation:
            self._generation, self._since = self._bus.generation, now
        return now - self._since < _BACK_WITHIN


class Absences:
    """Instances whose subject nobody subscribes to.

    Args:
        bus: the connection.
        instance: name of this process: its own answer says nothing of others.
    """

    def __init__(self, bus: Bus, instance: str = "") -> None:
        self._bus = bus
        self._instance = instance
        self._forbidden = False
        """Whether the broker does not permit the question, and that was said."""
        self._returning = Returning(bus)
        self._times: dict[str, int] = {}
        """Times in a row that nobody subscribed to the subject of a process."""

    @property
    def suspected(self) -> bool:
        """Whether there are instances to be asked for again soon."""
        return any(0 < times < _TIMES for times in self._times.values())

    def gone(self, member: Member) -> bool:
        """Return whether an instance has gone."""
        return self._times.get(member.lease.instance, 0) >= _TIMES

    async def ask(self, others: Iterable[Member], known: Container[str]) -> None:
        """Ask for the instances among ``others`` that may have gone.

        Where the broker does not permit that, none has: the leases decide, as in a cluster.

        Args:
            others: the other instances with a live lease.
            known: processes that were seen to own builds before.

        Raises:
            BusError: the bus cannot be used.
        """
        times: dict[str, int] = {}
        errors: list[BusError] = []

        async def ask(member: Member) -> None:
            process = member.lease.instance
            try:
                absent = await self._is_absent(member)
            except NotPermitted as error:
                self._complain(error)
            except BusError as error:
                errors.append(error)
            else:
                times[process] = self._times.get(process, 0) + 1 if absent else 0

        returning = self._returning.may_be
        # All at once: those that hang, and let each question wait for its whole time, keep no other one back.
        async with trio.open_nursery() as nursery:
            for member in () if self._bus.clustered else others:
                process = member.lease.instance
                if returning and not self.gone(member):
                    continue
                if member.age >= _MISSED or self._times.get(process) or process not in known:
                    nursery.start_soon(ask, member)
        if errors:
            raise errors[0]
        self._times = times

    async def await_name(self, name: str) -> None:
        """Wait until no process answers under the name of an instance.

        Of two that restart whenever they end, each would take the name from the other, for ever. One that is
        dead answers nothing, and nobody waits for it; nor for one that hangs, once it was silent twice.

        Raises:
            NameInUse: one still answers after a while.
            NotPermitted: the broker does not let us ask, so that two could replace each other unseen.
            BusError: the bus cannot be used.
        """
        until: float | None = None
        while (process := await self._who_answers(name)) is not None:
            if until is None:
                # From its first answer on: before that nobody could know of it.
                until = trio.current_time() + _NAME_WITHIN
                log.warning("waits for the process that has the name of this one", name=name, process=process)
            elif trio.current_time() >= until:
                cure = "give each process a name of its own, or end that one first"
                raise NameInUse(f"--instance {name} is in use: {process} answers under it; {cure}")
            await trio.sleep(_BETWEEN)

    async def _who_answers(self, name: str) -> str | None:
        """Return the other process that answers under a name; None where none does.

        What a connection says that is not the one it was asked on proves nothing: the other process may be on
        its way to the new one. No more does silence while there is no connection.
        """
        patience, until = _PATIENCE, trio.current_time() + _NAME_WITHIN
        while True:
            generation, nobody = self._bus.generation, False
            with trio.move_on_after(patience):
                try:
                    answer = await self._bus.request(f"{INSTANCE}{encode_token(name)}.{PING}", b"")
                except NoResponders:
                    nobody = True
                else:
                    process = _process_of(answer.data)
                    if process != self._instance[:_LONGEST]:
                        return process
                    # By an earlier subscription of ours, which a server of the cluster has not ended yet.
                    nobody = trio.current_time() >= until
                    if not nobody:
                        await trio.sleep(_BETWEEN)
                        continue
            if generation != self._bus.generation or not self._bus.connected:
                await trio.sleep(_BETWEEN)
            elif nobody or patience == _MORE_PATIENCE:
                return None
            else:
                patience = _MORE_PATIENCE

    async def _is_absent(self, member: Member) -> bool:
        generation = self._bus.generation
        with trio.move_on_after(_PATIENCE):
            try:
                await self._bus.request(f"{INSTANCE}{encode_token(member.lease.name)}.{PING}", b"")
            except NoResponders:
                return generation == self._bus.generation
        return False

    def _complain(self, error: NotPermitted) -> None:
        """Say once that instances cannot be asked for."""
        if not self._forbidden:
            cure = "let this user publish on it (`scheduler permissions` prints all that it takes)"
            log.warning(UNASKED, reason=str(error), cure=cure)
        self._forbidden = True


class Answering:
    """Answers others that ask whether this instance is there.

    Args:
        bus: the connection.
        subject: subject of the question.
        instance: name of this process.
    """

    def __init__(self, bus: Bus, subject: str, instance: str) -> None:
        self._bus = bus
        self._subject = subject
        self._instance = instance
        self._subscription: Subscription | None = None

    async def begin(self) -> None:
        """Answer from now on; raises BusError."""
        self._subscription = await self._bus.subscribe(self._subject, self._answer)

    async def end(self) -> None:
        """Answer no more: another one that asks next is told that nobody is there. Idempotent."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def _answer(self, message: Message) -> None:
        if may_be_answered(message.reply):
            try:
                self._bus.publish(message.reply, answer_of(self._instance))
            except BusError as error:
                log.info("another instance was not answered", reason=str(error))


def answer_of(instance: str) -> bytes:
    """Make the answer of an instance that is there."""
    return encode({"instance": instance})


def _process_of(data: bytes) -> str:
    """Return the process that has answered."""
    try:
        return _decode(data).instance[:_LONGEST]
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return "a process of another version"
