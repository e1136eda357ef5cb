"""Election of the one scheduler that works, where builds are kept in a store without compare-and-set.

All who want to work look at one lease. The one that has it works, and renews it as any instance of a fleet
does (`scheduler.fleet.keeper`); the others stand by, and take it when it has run out, was given up, or
belongs to a process that has gone. Taking and renewing are compare-and-set on its revision: so a renewal that
goes through proves that nobody else had the lease since the one before.

There is no log here that would fence the holder. So the lease is all: one that could not renew it in time
sends nothing until it could, and one that finds another holder ends. A holder that is not connected to a
single server is not waited for: so what waits for a connection leaves only after a renewal there.
"""

import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, Final

import trio

from scheduler.errors import BusError, JetStreamUnavailable, NotPermitted
from scheduler.fleet.absences import Returning
from scheduler.fleet.contested import KEY, ContestedLease
from scheduler.fleet.keeper import LeaseKeeper, Superseded
from scheduler.fleet.lease import LEASE, PERIOD, Lease, Load, Member, Standing, document
from scheduler.fleet.news import NEWS
from scheduler.fleet.roll import Roll
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

log = Logger()

STANDING_BY: Final = "standing by: another scheduler has the lease"
ELECTED: Final = "elected: this scheduler has the lease"
SUPERSEDED: Final = (
    "{whose} was elected, as the lease of {name} had run out: this process sends and reports nothing more;"
    " started again, it stands by"
)
_BETWEEN: Final = 0.25
"""Seconds between two questions for a holder that may have gone."""
_TIMES: Final = 2
"""Times in a row that the holder was not there after which it has gone."""
_READY: Final = 5.0
"""Seconds for JetStream to become ready, at the start."""
_AGAIN: Final = 0.5
_OFFER: Final = 1.0
"""Seconds for another scheduler to take a lease that is given up."""
_SOON: Final = 0.1


class Election:
    """The one lease, and this process as a candidate or as its holder.

    `open` first, then `take`; from then on `run` has to be running.

    Args:
        js: JetStream of the broker.
        instance: id of this process.
        name: name of this instance, kept over restarts; the id where it is empty.
        version: version of this package.
        load: returns what this process works at.
        limits: rules of ``--limits``, normalised.
        replicas: number of servers that keep the bucket, where it is made.
        on_lapse: callback for when nothing may be sent: the lease was not renewed in time, or not yet since
            there is a new connection.
        on_regain: callback for when this process may send: it was elected, or has its lease again.
        on_passed_over: callback for when another process has the lease after all that nobody seemed to have.
        wall_clock: function that returns seconds since 1970.
    """

    def __init__(
        self,
        js: JetStream,
        *,
        instance: str,
        name: str = "",
        version: str = "",
        load: Callable[[], Load] = Load,
        limits: Iterable[str] = (),
        replicas: int = 1,
        on_lapse: Callable[[], None] = lambda: None,
        on_regain: Callable[[], None] = lambda: None,
        on_passed_over: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.instance = instance
        self.name = name or instance
        self._bus = js.bus
        self._on_passed_over = on_passed_over
        self._lease = ContestedLease(js, instance, replicas)
        self._returning = Returning(js.bus)
        self._roll = Roll(js.bus, self._standing_by)
        self.keeper = LeaseKeeper(
            self._lease.bucket,
            instance=instance,
            name=self.name,
            version=version,
            load=load,
            limits=limits,
            on_lapse=on_lapse,
            on_regain=on_regain,
            key=KEY,
            connection=lambda: js.bus.generation,
            superseded=SUPERSEDED,
            wall_clock=wall_clock,
        )
        """Keeper of the lease, where this process has it."""
        # All that waits leaves only after a renewal on the new connection.
        js.bus.on_connected(self.keeper.renew_soon)
        self.elected = False
        """Whether this process has taken the lease."""
        self.vacant = False
        """Whether nobody had the lease, at revision `_vacant_at`: this process may be the next to have it."""
        self._vacant_at = 0
        self.inherited = False
        """Whether it was taken from one that gave it up before our eyes, so that it was never without."""
        self.alone = False
        """Whether it was taken because no scheduler was there any more."""
        self._absent = 0
        """Times in a row that the holder was not there."""
        self._news = trio.Event()
        self._offered = False
        self._superseded = trio.Event()

    @property
    def fresh(self) -> bool:
        """Whether this process may send: its last renewal is not too old."""
        return self.keeper.fresh

    @property
    def seen(self) -> frozenset[str]:
        """Ids of the processes that had the lease as far as this one saw, and its own."""
        return self._lease.seen

    @property
    def holder(self) -> Member | None:
        """Holder of the lease at the last look; None where there was none."""
        return self._lease.holder

    async def open(self) -> str:
        """Find the lease, or make its bucket; returns why that is not possible, empty where it is.

        Raises:
            BusError: the bus cannot be used.
        """
        # Others may be elected meanwhile: as long as JetStream may come, nothing but a lease tells.
        until = trio.current_time() + _READY
        while True:
            try:
                await self._lease.read()
                break
            except BusError as error:
                passing = isinstance(error, JetStreamUnavailable) or trio.current_time() < until
                if _is_refused(error) or not passing:
                    return str(error)
                self._lease.complain("waits for JetStream, to look at the lease", error)
            await trio.sleep(_AGAIN)
        try:
            await self._bus.subscribe(NEWS, lambda _: self._news.set())
            await self._roll.open()
        except BusError as error:
            return str(error)
        return ""

    async def instances(self) -> list[dict[str, Any]]:
        """Return the holder of the lease and those that stand by, as JSON for operators; asks these.

        Raises:
            BusError: the bus cannot be used.
        """
        waiting = await self._roll.call()
        holder = self.holder
        shown = [] if holder is None else [document(holder, holds=self.fresh)]
        return [*shown, *({**document(Member(lease, 0, 0.0)), "age": None} for lease in waiting)]

    def _standing_by(self) -> Lease | None:
        return None if self.elected else self.keeper.current(Standing.STANDBY)

    # ---- as a candidate

    async def await_vacancy(self, is_absent: Callable[[], Awaitable[bool]]) -> None:
        """Wait until nobody has the lease, as far as can be seen.

        Args:
            is_absent: returns whether surely no scheduler is connected that works.
        """
        said = ""
        while not await self._is_vacant(is_absent):
            holder = self.holder
            # Not where it only cannot be read.
            if self.vacant and holder is not None and holder.revision > self._vacant_at:
                self.vacant = False
                self._on_passed_over()
            if holder is not None and holder.lease.instance != said:
                said = holder.lease.instance
                log.warning(STANDING_BY, other=holder.lease.name or said, process=said)
            left = PERIOD if holder is None else LEASE - holder.age
            with trio.move_on_after(_BETWEEN if self._absent else min(PERIOD, max(_SOON, left))):
                await self._news.wait()
            self._news = trio.Event()
        self.vacant, self._vacant_at = True, self._lease.revision

    async def take(self, is_absent: Callable[[], Awaitable[bool]]) -> None:
        """Wait until this process is elected: takes the lease when nobody has it.

        Args:
            is_absent: as for `await_vacancy`.

        Raises:
            NotPermitted: this user may not write the lease.
        """
        while True:
            await self.await_vacancy(is_absent)
            before = self.holder
            try:
                if await self.keeper.take_over(self._lease.revision):
                    break
            except BusError as error:
                if isinstance(error.__cause__, NotPermitted):
                    raise error.__cause__ from None
                self._lease.complain("the lease cannot be taken now", error)
                await trio.sleep(_AGAIN)
        self.elected = True
        self.inherited = (
            before is not None
            and before.lease.standing is Standing.GONE
            and before.lease.instance == self._lease.renewer
        )
        self.alone = self._absent > 0
        whose = "" if before is None else before.lease.name
        log.info(ELECTED, name=self.name, before=whose)
        self._spread()

    async def _is_vacant(self, is_absent: Callable[[], Awaitable[bool]]) -> bool:
        if not await self._lease.look():
            return False
        holder = self.holder
        if holder is None or not holder.live or holder.lease.instance == self.instance:
            self._absent = 0
            return True
        # In a cluster its server may be cut off from ours; but one of our name is an earlier process of ours.
        namesake = holder.lease.name == self.name
        returning = self._returning.may_be
        asks = namesake or (holder.age >= 2 * PERIOD and not self._bus.clustered and not returning)
        self._absent = self._absent + 1 if asks and await is_absent() else 0
        return self._absent >= (1 if namesake else _TIMES)

    # ---- as the holder

    async def run(self) -> None:
        """Renew the lease, and look who has it; never returns.

        Raises:
            Superseded: another process has it.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep)
            while True:
                with trio.move_on_after(PERIOD):
                    await self._news.wait()
                self._news = trio.Event()
                if await self._lease.look() and self._is_taken():
                    # The renewal shows it, and ends this process, before more is sent.
                    self.keeper.renew_soon()

    async def _keep(self) -> None:
        try:
            await self.keeper.run()
        except* Superseded:
            if not self._offered:
                raise
            self._superseded.set()

    async def hand_over(self) -> bool:
        """Give the lease up; returns whether another process has it, or may have it.

        Where nobody takes it within a second, this process has it again, and is to end slowly.
        """
        self._offered = True
        self.keeper.end()
        with trio.move_on_after(_OFFER):
            await self._say()
            while not self._is_taken():
                with trio.move_on_after(_SOON):
                    await self._news.wait()
                self._news = trio.Event()
                await self._lease.look()
            return True
        if self._superseded.is_set():
            return True
        try:
            with trio.move_on_after(_OFFER):
                # It is refused where the word that it was given up is stored, and the answer was lost.
                while True:
                    if await self.keeper.take_back():
                        self._offered = False
                        return False
                    await trio.sleep(_SOON)
        except Superseded:
            return True
        log.warning("the lease was given up, and could not be taken back")
        self.keeper.end()
        return True

    async def leave(self) -> None:
        """Say that this process does not need the lease any more; the caller sets the deadline.

        It may have it although it does not know of that yet: what it has sent may be stored.
        """
        self._offered = True
        self.keeper.end()
        if self.keeper.wrote and not self._superseded.is_set() and not self._is_taken():
            await self._say()

    def _is_taken(self) -> bool:
        holder = self.holder
        return self._superseded.is_set() or (
            holder is not None
            and holder.lease.instance != self.instance
            # Not the one that it was taken from, where nobody looked since.
            and holder.revision > self.keeper.revision
        )

    async def _say(self) -> None:
        """Write the lease until that goes through, and tell the others to look."""
        try:
            while True:
                if await self.keeper.renew():
                    break
                await trio.sleep(_SOON)
        except Superseded:
            self._superseded.set()
            return
        self._spread()

    def _spread(self) -> None:
        """Tell the others to look at the lease now."""
        try:
            self._bus.publish(NEWS, b"")
        except BusError as error:
            log.info("the others see it a little later", reason=str(error))


def _is_refused(error: BusError) -> bool:
    return isinstance(error, NotPermitted) or isinstance(error.__cause__, NotPermitted)
