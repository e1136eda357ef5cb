"""Sight of a lease that several processes want: who has it, for how long it was seen unchanged."""

from typing import Final

import trio

from scheduler.errors import BusError, StreamNotFound
from scheduler.fleet.bucket import ELECTION, LeaseBucket
from scheduler.fleet.lease import Found, Judge, Lease, Member, read_lease
from scheduler.jetstream.api import JetStream
from scheduler.runtime.logger import Logger

log = Logger()

KEY: Final = "active"
"""Key of the lease: one for all, so that there is one holder whatever anybody believes."""
_MOST_SEEN: Final = 1_000
"""Processes that had the lease, and are remembered: one that lost it ends, so only the last can matter."""
_UNREADABLE: Final = Lease("a scheduler of another version", "")
"""Lease that this version cannot read."""


class ContestedLease:
    """The lease, as this process sees it.

    Args:
        js: JetStream of the broker.
        instance: id of this process.
        replicas: number of servers that keep the bucket, where it is made.
    """

    def __init__(self, js: JetStream, instance: str, replicas: int) -> None:
        self.bucket = LeaseBucket(js, ELECTION)
        self.revision = 0
        """Revision at the last look; 0: nobody has written it."""
        self._instance = instance
        self._seen: dict[str, None] = {}
        self.renewer = ""
        """Process that was seen to renew it, last."""
        self._replicas = replicas
        self._judge = Judge()
        self._trouble = False
        """Whether it could not be used the last time, and that was said."""

    @property
    def seen(self) -> frozenset[str]:
        """Ids of the processes that had it as far as this one saw, the last thousand, and its own."""
        return frozenset({*self._seen, self._instance})

    @property
    def holder(self) -> Member | None:
        """Holder at the last look; None where there was none."""
        return next(iter(self._judge.members()), None)

    async def look(self) -> bool:
        """Look at the lease once; returns whether it could be read."""
        began = trio.current_time()
        try:
            found = await self.read()
        except BusError as error:
            self._judge.miss()
            self.complain("the lease cannot be read now", error)
            return False
        self._trouble = False
        before = self.holder
        self._judge.look(began, {} if found is None else {KEY: found})
        holder = self.holder
        if holder is not None:
            process = holder.lease.instance
            self._note(process)
            known = before is not None and before.lease.instance == process
            if known and before is not None and before.revision != holder.revision and holder.live:
                self.renewer = process
        return True

    async def read(self) -> Found | None:
        """Read the lease; where its bucket is missing, make it.

        Raises:
            BusError: it cannot be read, or the bucket cannot be made.
        """
        try:
            stored = await self.bucket.last(KEY)
        except StreamNotFound:
            await self.bucket.make(self._replicas)
            stored = None
        self.revision = 0 if stored is None else stored.sequence
        if stored is None:
            return None
        return Found(read_lease(stored.data) or _UNREADABLE, stored.sequence, stored.time / 1e9)

    def _note(self, process: str) -> None:
        """Note a process that has it as the last one."""
        self._seen.pop(process, None)
        self._seen[process] = None
        if len(self._seen) > _MOST_SEEN:
            del self._seen[next(iter(self._seen))]

    def complain(self, text: str, error: BusError) -> None:
        """Say once that the lease cannot be used."""
        if not self._trouble:
            log.warning(text, reason=str(error))
        self._trouble = True
