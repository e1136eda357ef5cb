"""Membership of this process in the fleet: keeps its lease, and looks at those of the others."""

import time
from collections.abc import Callable, Iterable
from hashlib import blake2b
from typing import Final

import trio

from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, JetStreamUnavailable, StreamNotFound
from scheduler.fleet.absences import INSTANCE, PING, Absences, Answering, NameInUse
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.keeper import LeaseKeeper, Superseded
from scheduler.fleet.lease import PERIOD, Found, Judge, Load, Member, Standing
from scheduler.fleet.news import News
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

__all__ = ["INSTANCE", "Fleet", "NameInUse", "Superseded"]

CAME: Final = "another instance has come"
WENT: Final = "another instance has gone: its builds are taken over"
MADE_AGAIN: Final = "the bucket of the leases was removed: it is made again"
_BETWEEN: Final = 0.25
"""Seconds between two questions, at the start, for instances that may have gone."""
_AGAIN: Final = 1.0
"""Seconds between them later: after the broker's restart all others are on their way back."""
_PAUSE: Final = 1.0
_SOON: Final = 0.05
_MOST_KNOWN: Final = 10_000
_FORGOTTEN: Final = 600.0
"""Seconds after which the lease of an instance that has gone is removed."""

log = Logger()


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
        self.on_change = on_change
        self._bus = js.bus
        self._bucket = LeaseBucket(js)
        self._replicas = replicas
        self.keeper = LeaseKeeper(
            self._bucket,
            instance=instance,
            name=self.name,
            version=version,
            load=load,
            limits=limits,
            on_lapse=on_lapse,
            wall_clock=wall_clock,
        )
        """Keeper of the lease of this process."""
        self._judge = Judge()
        self._absences = Absences(js.bus, instance)
        self._answering = Answering(js.bus, f"{self.subject}{PING}", instance)
        self._owners: frozenset[str] = frozenset({instance})
        self._names: dict[str, str] = {}
        """Names of instances by process, at the last look: a later process may have the name since."""
        self._known: dict[str, None] = {}
        """Processes that were seen to have a lease, the last ones."""
        self._news = News(js.bus, self._on_orphans)
        self._unreadable = False
        """Whether the leases could not be read at the last look."""

    # ---- what the rest of the process asks

    @property
    def key(self) -> str:
        """Key of the lease of this instance, and its word in subjects."""
        return self.keeper.key

    @property
    def subject(self) -> str:
        """Beginning of the subjects of this instance; a verb follows."""
        return f"{INSTANCE}{self.key}."

    @property
    def fresh(self) -> bool:
        """Whether this process may send requests: its last renewal is not too old."""
        return self.keeper.fresh

    async def renewed(self) -> None:
        """Wait until requests may be sent."""
        await self.keeper.renewed()

    def check(self) -> bool:
        """Return whether requests may be sent; if that has just ended, say so first. Synchronous."""
        return self.keeper.check()

    def members(self) -> list[Member]:
        """Return all instances that have a lease, this one included, by name."""
        return self._judge.members()

    def others(self) -> list[Member]:
        """Return the other instances that own builds."""
        return [member for member in self._live() if not self._absences.gone(member)]

    def owners(self) -> frozenset[str]:
        """Return the names of the processes that own builds, this one included, as records have them."""
        return self._owners

    def is_first_for(self, build: str) -> bool:
        """Return whether this is the instance that is to take over ``build`` first, if it has no owner.

        By rendezvous hashing: all agree, and the builds of one that is gone spread over the others.
        """
        names = [self.name, *(one.lease.name for one in self.others() if one.takes)]
        return max(names, key=lambda name: _rank(name, build)) == self.name

    async def leased(self) -> frozenset[str]:
        """Return the processes that have a lease, whether or not they own builds.

        Those in the bucket now, and those that own builds although it was removed.

        Raises:
            BusError: the leases cannot be read.
        """
        began = trio.current_time()
        try:
            leases = await self._bucket.read()
        except StreamNotFound:
            return self._owners
        # Should the bucket be removed before the next look, these hold until they lapse all the same.
        self._judge.look(began, leases)
        return self._owners.union(found.lease.instance for found in leases.values())

    def find(self, instance: str) -> Member | None:
        """Return the member whose process has this name; None where it has no lease (any more)."""
        return next((member for member in self.members() if member.lease.instance == instance), None)

    def had_lease(self, instance: str) -> bool:
        """Return whether a process is known to have, or have had, a lease: none of an earlier version has."""
        return instance in self._known

    # ---- joining, staying and leaving

    async def join(self) -> None:
        """Take the lease of this instance, and find the others; waits for as long as JetStream needs.

        Raises:
            NameInUse: another process has this name, and goes on to answer.
            BusError: JetStream refuses the bucket, or cannot be used.
        """
        while True:
            if await self._take_name():
                break
            await trio.sleep(_PAUSE)
        await self.look_until_seen()
        self._news.spread()
        while self._absences.suspected:
            await trio.sleep(_BETWEEN)
            await self.look_until_seen()

    async def _take_name(self) -> bool:
        """Take the lease of this instance, unless another process has its name; False: try again soon."""
        if self.name != self.instance:
            # That of the process is nobody else's. Asked each time: one may have come during the pause.
            await self._absences.await_name(self.name)
        await self._answering.begin()
        try:
            await self._bucket.make(self._replicas)
            await self.keeper.take()
        except JetStreamUnavailable as error:
            log.warning("the lease of this instance cannot be taken yet", reason=str(error))
            # Whoever asks for the name next is not told that it is in use; our next question is for others.
            await self._answering.end()
            return False
        return True

    async def look_until_seen(self) -> None:
        """Look at the leases until they could be read, from now on: each owner of now has one among them.

        A process takes its lease before it writes into any log.
        """
        while True:
            if await self.look():
                return
            await trio.sleep(_PAUSE)

    async def run(self) -> None:
        """Renew the lease, and look at the others; never returns.

        Raises:
            Superseded: another process uses the name of this instance.
            BusError: the broker does not let us listen.
        """
        await self._news.listen()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.keeper.run)
            nursery.start_soon(self._news.run)
            while True:
                with trio.move_on_after(_AGAIN if self._absences.suspected else PERIOD):
                    await self._news.come()
                self._news.seen()
                await self.look()

    async def drain(self) -> None:
        """Say that this instance takes no more builds; the caller sets the deadline."""
        self.keeper.standing = Standing.DRAINING
        await self._say()

    async def leave(self) -> None:
        """Say that this instance owns nothing any more; the caller sets the deadline.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        self.keeper.end()
        if self.keeper.wrote:
            await self._say()

    async def _say(self) -> None:
        while True:
            if await self.keeper.renew():
                break
            await trio.sleep(_SOON)
        self._news.spread()

    def tell_of_orphans(self) -> None:
        """Tell the others that there are builds which no instance has: soon, once for many. Synchronous."""
        self._news.tell_of_orphans()

    def _on_orphans(self) -> None:
        # Its callback may be another one by then.
        self.on_change()

    # ---- the others

    async def look(self) -> bool:
        """Look at all leases once; returns whether they could be read."""
        began = trio.current_time()
        try:
            self._judge.look(began, await self._read())
            await self._absences.ask(self._live(), self._owners)
            await self._clear_away()
        except BusError as error:
            self._judge.miss()
            if not self._unreadable:
                log.info("the leases of the fleet cannot be read now", reason=str(error))
            self._unreadable = True
            return False
        self._unreadable = False
        before, self._owners = (
            self._owners,
            frozenset({self.instance, *(one.lease.instance for one in self.others())}),
        )
        self._note(self.keeper.previous, *(one.lease.instance for one in self.members()))
        names = self._names
        self._names = {one.lease.instance: one.lease.name for one in self.members()}
        for instance in sorted(self._owners - before):
            log.info(CAME, other=self._names[instance], process=instance)
        for instance in sorted(before - self._owners):
            gone = self.find(instance)
            # An end in order is nothing to worry about.
            ended = gone is not None and gone.lease.standing is Standing.GONE
            (log.info if ended else log.warning)(WENT, other=names.get(instance, instance), process=instance)
        if before != self._owners:
            self.on_change()
        return True

    async def _read(self) -> dict[str, Found]:
        """Read all leases; where their bucket is gone, make it again: without it nothing is ever renewed."""
        try:
            return await self._bucket.read()
        except StreamNotFound:
            await self._bucket.make(self._replicas)
            log.warning(MADE_AGAIN)
            return await self._bucket.read()

    def _note(self, *instances: str) -> None:
        """Note processes that have, or had, a lease."""
        for instance in instances:
            self._known.pop(instance, None)
            self._known[instance] = None
        while len(self._known) > _MOST_KNOWN:
            del self._known[next(iter(self._known))]

    def _live(self) -> list[Member]:
        """Return the other instances whose lease is live."""
        # One under the name of this process has replaced it, and owns builds: this one is only yet to notice.
        return [member for member in self.members() if member.live and member.lease.instance != self.instance]

    async def _clear_away(self) -> None:
        """Remove the leases of instances that have gone long ago."""
        for member in self.members():
            if member.age >= _FORGOTTEN:
                await self._bucket.remove(encode_token(member.lease.name), member.revision)


def _rank(name: str, build: str) -> bytes:
    return blake2b(f"{name}\n{build}".encode(), digest_size=8).digest()
