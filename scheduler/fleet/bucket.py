"""Bucket of the leases, one key an instance, and of the limits; written by compare-and-set.

It is read from the stream's leader: a replica may be behind, and an instance would count as gone that is not.
"""

from typing import Any, Final

from scheduler.errors import JetStreamError
from scheduler.fleet.lease import Found, Lease, encode_lease, read_lease
from scheduler.fleet.ledger import ShareLedger, encode_ledger, read_ledger
from scheduler.jetstream.answers import Stored
from scheduler.jetstream.api import JetStream

BUCKET: Final = "SCHEDULER"
"""Name of the key-value bucket."""
STREAM: Final = f"KV_{BUCKET}"
"""Stream of the bucket."""
LEASES: Final = f"$KV.{BUCKET}.lease."
"""Beginning of the subjects of leases; the key follows."""
ELECTION: Final = f"$KV.{BUCKET}.ernest."
"""Beginning of the subject of the lease that one of the schedulers with an Ernest store has; apart from the
others, so that no instance that shares builds takes its holder for one of its own kind."""
LIMITS: Final = f"$KV.{BUCKET}.limits"
"""Subject of the document that says who may use how much of the limits over the fleet."""
_PATIENCE: Final = 4.0
"""Seconds for a lease to be written: there has to be time for another try, before a renewal is overdue."""
_NAME_IN_USE: Final = 10058


class LeaseBucket:
    """Leases in JetStream; each method raises BusError as `JetStream` does.

    Args:
        js: JetStream of the store.
        subjects: beginning of the subjects of the leases.
    """

    def __init__(self, js: JetStream, subjects: str = LEASES) -> None:
        self._js = js
        self._subjects = subjects

    async def make(self, replicas: int) -> None:
        """Make the bucket where it is missing; one that is there stays as it is."""
        config: dict[str, Any] = {
            "name": STREAM,
            "subjects": [f"$KV.{BUCKET}.>"],
            "storage": "file",
            "num_replicas": replicas,
            "max_msgs_per_subject": 1,
            "discard": "new",
            "allow_rollup_hdrs": True,
            "allow_direct": False,
            "deny_delete": True,
        }
        try:
            await self._js.call(f"STREAM.CREATE.{STREAM}", config)
        except JetStreamError as error:
            if error.err_code != _NAME_IN_USE:
                raise

    async def last(self, key: str) -> Stored | None:
        """Return what stands at a key; None where that is nothing."""
        return await self._js.last(STREAM, f"{self._subjects}{key}")

    async def write(self, key: str, lease: Lease, *, expected: int) -> int:
        """Write a lease over the revision ``expected``, 0 for none; return its own.

        Raises:
            WrongLastSequence: another revision stands there.
        """
        ack = await self._js.publish(
            f"{self._subjects}{key}", encode_lease(lease), expected=expected, timeout=_PATIENCE
        )
        return ack.sequence

    async def read(self) -> dict[str, Found]:
        """Return all leases that this version can read, by key."""
        found: dict[str, Found] = {}
        sequence = 1
        while (one := await self._js.first(STREAM, f"{self._subjects}*", from_sequence=sequence)) is not None:
            sequence = one.sequence + 1
            lease = read_lease(one.data)
            if lease is not None:
                # One that is renewed meanwhile comes again, later.
                found[one.subject.removeprefix(self._subjects)] = Found(lease, one.sequence, one.time / 1e9)
        return found

    async def remove(self, key: str, revision: int) -> None:
        """Remove a lease, where it still is of this revision."""
        await self._js.purge(STREAM, f"{self._subjects}{key}", before=revision + 1)


class LedgerBucket:
    """Document of the limits over the fleet, beside the leases; each method raises BusError.

    Args:
        js: JetStream of the store.
    """

    def __init__(self, js: JetStream) -> None:
        self._js = js

    async def read(self) -> tuple[ShareLedger | None, int]:
        """Return the document, empty where there is none, and its revision; None where it is unreadable."""
        found = await self._js.last(STREAM, LIMITS)
        return (ShareLedger(), 0) if found is None else (read_ledger(found.data), found.sequence)

    async def write(self, ledger: ShareLedger, *, expected: int) -> int:
        """Write the document over the revision ``expected``, 0 for none; return its own.

        Raises:
            WrongLastSequence: another revision stands there.
        """
        ack = await self._js.publish(LIMITS, encode_ledger(ledger), expected=expected)
        return ack.sequence
