"""Membership of this process in the fleet: keeps its lease, and looks at those of the others.

Where the broker is a single server it also knows who is connected: an instance with an old lease whose own
subject nobody subscribes to, asked twice, has gone, and nobody waits for its lease to run out.
"""

import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from scheduler.bus import Message
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import may_be_answered
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, NoResponders, StoreError, WrongLastSequence
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.lease import (
    LEASE,
    PERIOD,
    Judge,
    Lease,
    Load,
    Member,
    Standing,
    Tenure,
    read_lease,
)
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

NEWS: Final = "scheduler.fleet.news"
"""Subject on which an instance says that its lease has changed in a way that others should not wait for."""
INSTANCE: Final = "scheduler.instance."
"""Beginning of the subjects of one instance; its key follows, then a verb."""
_PING: Final = "ping"
_PATIENCE: Final = 1.0
"""Seconds for the answer of the broker whether anybody subscribes."""
_ABSENCES: Final = 2
"""Times that nobody subscribed to its subject, one after another, after which an instance has gone."""
_BETWEEN: Final = 0.5
"""Seconds between two such questions at the start."""
_FORGOTTEN: Final = 600.0
"""Seconds after which the lease of an instance that has gone is removed."""

log = Logger()


class Superseded(StoreError):
    """Another process uses the name of this instance."""


class Fleet:
    """This process and the others on the same broker; `join` first, then `run` has to be running.

    Args:
        js: JetStream of the store.
        instance: name of this process in the records that it writes.
        name: name of this instance, kept over restarts; that of the process where it is empty.
        version: version of this package.
        load: returns what this process works at.
        limits: rules of ``--limits``, normalised.
        replicas: number of servers that keep the bucket, where it is made.
        on_lapse: callback for when the lease was not renewed in time: nothing more may be sent.
        on_change: callback for when an instance has come, or does not own builds any more.
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
        on_change: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.instance = instance
        self.name = name or instance
        self.key = encode_token(self.name)
        self.tenure = Tenure()
        """Time for which this process may send requests."""
        self.standing = Standing.ACTIVE
        """What this instance says that it does."""
        self.load = load
        self.on_lapse = on_lapse
        self.on_change = on_change
        self._bus = js.bus
        self._bucket = LeaseBucket(js)
        self._version = version
        self._limits = tuple(limits)
        self._replicas = replicas
        self._wall_clock = wall_clock
        self._began = wall_clock()
        self._count = 0
        self._revision = 0
        self._judge = Judge()
        self._absences: dict[tuple[str, str], int] = {}
        """Times in a row that nobody subscribed to the subject of an instance, by key and instance."""
        self._owners: frozenset[str] = frozenset({instance})
        self._news = trio.Event()
        self._renewed = trio.Event()
        """Event for the next renewal."""
        self._lapsed = False
        """Whether the lease ran out since its last renewal, and that was said."""

    @property
    def subject(self) -> str:
        """Beginning of the subjects of this instance; a verb follows."""
        return f"{INSTANCE}{self.key}."

    # ---- what the rest of the process asks

    @property
    def fresh(self) -> bool:
        """Whether this process may send requests: its last renewal is not too old."""
        return self.tenure.holds(trio.current_time())

    def members(self) -> list[Member]:
        """Return all instances that have a lease, this one included, by name."""
        return self._judge.members()

    def others(self) -> list[Member]:
        """Return the other instances that own builds."""
        return [
            member for member in self.members() if self._is_live(member) and member.lease.name != self.name
        ]

    def owners(self) -> frozenset[str]:
        """Return the names of the processes that own builds, this one included, as records have them."""
        return self._owners

    def find(self, instance: str) -> Member | None:
        """Return the member whose process has this name; None where it has no lease (any more)."""
        return next((member for member in self.members() if member.lease.instance == instance), None)

    # ---- joining, staying and leaving

    async def join(self) -> None:
        """Take the lease of this instance, and find the others; waits for as long as JetStream needs.

        Raises:
            BusError: JetStream refuses the bucket, or cannot be used.
        """
        await self._bus.subscribe(f"{self.subject}{_PING}", self._answer)
        await self._bucket.make(self._replicas)
        await self._take()
        await self.look()
        for _ in range(_ABSENCES - 1):
            if any(self._absences.values()):
                await trio.sleep(_BETWEEN)
                await self.look()

    async def run(self) -> None:
        """Renew the lease, and look at the others; never returns.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        await self._bus.subscribe(NEWS, lambda _: self._news.set())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            nursery.start_soon(self._look_often)
            while True:
                began = trio.current_time()
                await self.renew()
                await trio.sleep(max(0.0, began + PERIOD - trio.current_time()))

    async def drain(self) -> None:
        """Say that this instance takes no more builds."""
        self.standing = Standing.DRAINING
        await self._say()

    async def leave(self) -> None:
        """Say that this instance owns nothing any more; the caller sets the deadline."""
        self.standing = Standing.GONE
        self.tenure.end()
        await self._say()

    def _answer(self, message: Message) -> None:
        """Answer another instance that asks whether this one is there."""
        if may_be_answered(message.reply):
            try:
                self._bus.publish(message.reply, encode({"instance": self.instance}))
            except BusError as error:
                log.info("another instance was not answered", reason=str(error))

    async def _say(self) -> None:
        if await self.renew():
            try:
                self._bus.publish(NEWS, b"")
            except BusError as error:
                log.info("the others see it a little later", reason=str(error))

    async def renew(self) -> bool:
        """Renew the lease once; returns whether that went through.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        began = trio.current_time()
        try:
            await self._write()
        except WrongLastSequence:
            await self._read_back()
            return False
        except BusError as error:
            log.info("the lease of this instance is not renewed yet", reason=str(error))
            return False
        if self.standing is not Standing.GONE:
            self._hold(began)
        return True

    async def look(self) -> bool:
        """Look at all leases once; returns whether they could be read."""
        began = trio.current_time()
        try:
            found = await self._bucket.read()
            self._judge.look(began, found)
            await self._ask_the_silent()
        except BusError as error:
            self._judge.miss()
            log.info("the leases of the fleet cannot be read now", reason=str(error))
            return False
        await self._clear_away()
        owners = frozenset({self.instance, *(one.lease.instance for one in self.others())})
        changed, self._owners = owners != self._owners, owners
        if changed:
            self.on_change()
        return True

    async def _look_often(self) -> None:
        while True:
            with trio.move_on_after(PERIOD):
                await self._news.wait()
            self._news = trio.Event()
            await self.look()

    def check(self) -> bool:
        """Return whether requests may be sent; if that has just ended, say so first. Synchronous."""
        if self.fresh:
            return True
        if not self._lapsed and self.standing is not Standing.GONE:
            self._lapsed = True
            self.tenure.lapses += 1
            log.error("the lease of this instance ran out: nothing is sent until it is renewed")
            self.on_lapse()
        return False

    async def renewed(self) -> None:
        """Wait until requests may be sent."""
        while not self.fresh:
            await self._renewed.wait()

    async def _watch(self) -> None:
        """Notice when the lease was not renewed in time."""
        while True:
            await trio.sleep_until(self.tenure.until)
            if not self.check():
                await self.renewed()

    # ---- the bucket

    async def _take(self) -> None:
        """Take the lease of this name, whoever has it."""
        while True:
            found = await self._bucket.last(self.key)
            self._revision = 0 if found is None else found.sequence
            try:
                began = trio.current_time()
                await self._write()
            except WrongLastSequence:
                continue
            self._hold(began)
            return

    def _hold(self, began: float) -> None:
        """Take note of a renewal that went through."""
        # What is overdue is said first: a process that stood still must not renew over it unseen.
        self.check()
        self.tenure.renew(began)
        if self._lapsed and self.fresh:
            self._lapsed = False
            log.warning("the lease of this instance is renewed")
        self._renewed.set()
        self._renewed = trio.Event()

    async def _write(self) -> None:
        lease = Lease(
            instance=self.instance,
            name=self.name,
            standing=self.standing,
            version=self._version,
            began=self._began,
            renewed=self._wall_clock(),
            count=self._count + 1,
            load=self.load(),
            limits=self._limits,
        )
        self._revision = await self._bucket.write(self.key, lease, expected=self._revision)
        self._count += 1

    async def _read_back(self) -> None:
        """Find out why a renewal was refused. The next one tries again.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        try:
            found = await self._bucket.last(self.key)
        except BusError as error:
            log.info("the lease of this instance cannot be read back now", reason=str(error))
            return
        lease = None if found is None else read_lease(found.data)
        if found is not None and (lease is None or lease.instance != self.instance):
            whose = "a process of another version" if lease is None else lease.instance
            self.tenure.end()
            raise Superseded(f"{whose} uses --instance {self.name}, too: give each process its own")
        # An earlier renewal whose answer was lost; when it began is not known, so it renews nothing.
        self._revision = 0 if found is None else found.sequence

    async def _ask_the_silent(self) -> None:
        """Ask a broker that is a single server for instances whose lease is old, or was not seen before."""
        absences: dict[tuple[str, str], int] = {}
        if not self._bus.clustered:
            for member in self._judge.members():
                lease, key = member.lease, encode_token(member.lease.name)
                known = (key, lease.instance)
                if not member.live or lease.name == self.name:
                    continue
                if member.age >= 2 * PERIOD or known in self._absences or lease.instance not in self._owners:
                    absences[known] = self._absences.get(known, 0) + 1 if await self._is_absent(key) else 0
        self._absences = absences

    async def _is_absent(self, key: str) -> bool:
        generation = self._bus.generation
        with trio.move_on_after(_PATIENCE):
            try:
                await self._bus.request(f"{INSTANCE}{key}.{_PING}", b"")
            except NoResponders:
                return generation == self._bus.generation
        return False

    def _is_live(self, member: Member) -> bool:
        known = (encode_token(member.lease.name), member.lease.instance)
        return member.live and self._absences.get(known, 0) < _ABSENCES

    async def _clear_away(self) -> None:
        """Remove the leases of instances that have gone long ago."""
        for member in self._judge.members():
            if member.age >= max(LEASE, _FORGOTTEN):
                key = encode_token(member.lease.name)
                await self._bucket.remove(key, member.revision)
