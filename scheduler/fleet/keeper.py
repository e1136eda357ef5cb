"""Keeper of the lease of this process: renews it, and notices when that was not possible in time."""

import time
from collections.abc import Callable, Iterable
from typing import Final

import trio

from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, StoreError, WrongLastSequence
from scheduler.fleet.bucket import LeaseBucket
from scheduler.fleet.lease import PERIOD, Lease, Load, Standing, Tenure, read_lease
from scheduler.runtime.logger import Logger

log = Logger()

_AGAIN: Final = 0.5
"""Seconds between the beginnings of two renewals where the first one failed."""
LAPSED: Final = "the lease of this instance ran out: nothing is sent until it is renewed"
UNPROVED: Final = "there is a new connection: nothing is sent until the lease is renewed"
SAME_NAME: Final = "{whose} uses --instance {name}, too: give each process its own"
RENEWED: Final = "the lease of this instance is renewed"


class Superseded(StoreError):
    """Another process has the lease of this one: it uses the same name, or was elected."""


class LeaseKeeper:
    """Keeps one lease.

    Args:
        bucket: bucket of the leases.
        instance: name of this process in the records that it writes.
        name: name of this instance, kept over restarts.
        version: version of this package.
        load: returns what this process works at.
        limits: rules of ``--limits``, normalised.
        on_lapse: callback for when the lease was not renewed in time: nothing more may be sent.
        on_regain: callback for when requests may be sent: with the first renewal, and after each lapse.
        key: key of the lease; that of the name where it is empty.
        connection: returns the number of the present connection, where a renewal counts for the connection
            that it began on alone: another process may have the lease of one that was not connected.
        superseded: what it means that another process has the lease, with places for ``whose`` and ``name``.
        wall_clock: function that returns seconds since 1970.
    """

    def __init__(
        self,
        bucket: LeaseBucket,
        *,
        instance: str,
        name: str,
        version: str = "",
        load: Callable[[], Load] = Load,
        limits: Iterable[str] = (),
        on_lapse: Callable[[], None] = lambda: None,
        on_regain: Callable[[], None] = lambda: None,
        key: str = "",
        connection: Callable[[], int] = lambda: 0,
        superseded: str = SAME_NAME,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.key = key or encode_token(name)
        self.tenure = Tenure()
        """Time for which this process may send requests."""
        self.standing = Standing.ACTIVE
        """What this instance says that it does."""
        self._bucket = bucket
        self._lease = Lease(instance, name, version=version, began=wall_clock(), limits=tuple(limits))
        self.load = load
        """Function that returns what this process works at."""
        self._on_lapse = on_lapse
        self._on_regain = on_regain
        self._superseded = superseded
        self._connection = connection
        self._written = -1
        """Connection on which the last write that went through began."""
        self._proved = -1
        """Connection on which the last renewal began."""
        self.wall_clock = wall_clock
        """Function that returns seconds since 1970."""
        self.count = 0
        """Number of renewals that went through."""
        self.previous = ""
        """Name of the process that had this lease before; empty where none had."""
        self.revision = 0
        """Revision of the lease at the last write of this process, or the one that it is to write over."""
        self.wrote = False
        """Whether this process has ever sent a lease to be written: it may have one."""
        self._renewing = trio.Lock()
        self._renewed = trio.Event()
        """Event for the next renewal."""
        self._due = trio.Event()
        """Event for when a renewal is due before its time."""
        self._lapsed = True
        """Whether there is no lease: none yet, or it ran out and that was said."""
        self._trouble = False
        """Whether the last renewal has failed, and that was said."""

    @property
    def fresh(self) -> bool:
        """Whether this process may send requests: its last renewal is not too old."""
        return self.tenure.holds(trio.current_time()) and self._proved == self._connection()

    def check(self) -> bool:
        """Return whether requests may be sent; if that has just ended, say so first. Synchronous."""
        if self.fresh:
            return True
        if not self._lapsed and self.standing is not Standing.GONE:
            self._lapsed = True
            if self.tenure.holds(trio.current_time()):
                log.info(UNPROVED)
            else:
                self.tenure.lapses += 1
                log.error(LAPSED)
            self._on_lapse()
        return False

    async def renewed(self) -> None:
        """Wait until requests may be sent."""
        while not self.fresh:
            await self._renewed.wait()

    async def take(self) -> None:
        """Take the lease of this name, whoever has it.

        Raises:
            BusError: the bucket cannot be used.
        """
        while True:
            found = await self._bucket.last(self.key)
            lease = None if found is None else read_lease(found.data)
            self.previous = "" if lease is None else lease.instance
            if await self.take_over(0 if found is None else found.sequence):
                return

    async def take_over(self, revision: int) -> bool:
        """Take the lease where it is of ``revision``, 0 for none; returns whether that went through.

        After `end` it waits to be cancelled: this process takes nothing more.

        Raises:
            BusError: the bucket cannot be used.
        """
        # A process that is told to end meanwhile gives up what came of this.
        async with self._renewing:
            if not self._ended:
                self.revision = revision
                began = trio.current_time()
                try:
                    await self._write()
                except WrongLastSequence:
                    return False
                if not self._ended:
                    self._hold(began)
                    return True
        await trio.sleep_forever()
        raise AssertionError("it is cancelled")

    @property
    def _ended(self) -> bool:
        """Whether nothing more is to be sent, nor taken."""
        return self.standing is Standing.GONE

    async def take_back(self) -> bool:
        """Take the lease again after `end`, to end slowly; returns whether that went through.

        Raises:
            Superseded: another process has it.
        """
        # Nobody is to be told of a lapse: this process gave it away itself.
        self._lapsed = True
        self.standing = Standing.DRAINING
        return await self.renew()

    async def renew(self) -> bool:
        """Renew the lease once; returns whether that went through.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        async with self._renewing:
            began = trio.current_time()
            try:
                await self._write()
            except WrongLastSequence:
                await self._read_back()
                return False
            except BusError as error:
                if not self._trouble:
                    log.info("the lease of this instance is not renewed yet", reason=str(error))
                self._trouble = True
                return False
            self._trouble = False
            if self.standing is not Standing.GONE:
                self._hold(began)
            return True

    def end(self) -> None:
        """Send nothing more, from now on; the next renewal says that this instance owns nothing."""
        self.standing = Standing.GONE
        self.tenure.end()

    async def run(self) -> None:
        """Renew the lease every `PERIOD` seconds; never returns.

        Raises:
            Superseded: another process uses the name of this instance.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            while True:
                began = trio.current_time()
                pause = PERIOD if await self.renew() else _AGAIN
                with trio.move_on_after(max(0.0, began + pause - trio.current_time())):
                    await self._due.wait()
                self._due = trio.Event()

    def renew_soon(self) -> None:
        """Renew the lease before its time: nothing may be sent until then. Synchronous."""
        self._due.set()

    async def _watch(self) -> None:
        """Notice when the lease was not renewed in time."""
        while True:
            await trio.sleep_until(self.tenure.until)
            if not self.check():
                await self.renewed()

    def _hold(self, began: float) -> None:
        """Take note of a renewal that went through."""
        # What is overdue is said first: a process that stood still must not renew over it unseen.
        self.check()
        self.tenure.renew(began)
        self._proved = self._written
        if self._lapsed and self.fresh:
            self._lapsed = False
            if self.tenure.lapses:
                log.warning(RENEWED)
            self._on_regain()
        self._renewed.set()
        self._renewed = trio.Event()

    def current(self, standing: Standing) -> Lease:
        """Return the lease as it would be written now, with this standing."""
        first = self._lease
        return Lease(
            instance=first.instance,
            name=first.name,
            standing=standing,
            version=first.version,
            began=first.began,
            renewed=self.wall_clock(),
            count=self.count + 1,
            load=self.load(),
            limits=first.limits,
        )

    async def _write(self) -> None:
        lease, connection = self.current(self.standing), self._connection()
        self.wrote = True
        self.revision = await self._bucket.write(self.key, lease, expected=self.revision)
        self.count += 1
        self._written = connection

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
        if found is not None and (lease is None or lease.instance != self._lease.instance):
            whose = "a process of another version" if lease is None else lease.instance
            self.tenure.end()
            raise Superseded(self._superseded.format(whose=whose, name=self._lease.name))
        # An earlier renewal whose answer was lost; when it began is not known, so it renews nothing.
        self.revision = 0 if found is None else found.sequence
