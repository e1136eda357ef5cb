"""Requests that are held back while this process has no right to send any.

The right is a lease (`scheduler.fleet`). It may run out while requests wait for a connection, or while the
process stands still. Meanwhile another process may take over the builds that they belong to. So they leave
only when the lease is renewed, and after a record in the log of their build, which shows that it is still
this process's.
"""

from collections.abc import Callable
from typing import NoReturn, Protocol

import trio

from scheduler.dispatch.call import Call
from scheduler.errors import MessageTooLarge, StoreError
from scheduler.runtime.logger import Logger

log = Logger()


class Tenure(Protocol):
    """Right of this process to send the requests of its builds."""

    def check(self) -> bool:
        """Return whether requests may be sent now. Synchronous."""

    async def renewed(self) -> None:
        """Wait until they may."""

    async def confirm(self, build: str) -> None:
        """Show that a build is still this process's.

        Raises:
            StoreError: it is not, or that cannot be told any more.
        """


class HeldBack:
    """A request that is held back, as its call sees it: like one that waits for a connection."""

    generation = 0
    refused: MessageTooLarge | None = None

    def __init__(self, requests: "HeldRequests", call: Call) -> None:
        self._requests = requests
        self._call = call
        self.withdrawn = False

    def withdraw(self) -> bool:
        """Take the request back; see `Outgoing.withdraw`."""
        self.withdrawn = True
        self._requests.withdraw(self._call)
        return True


class HeldRequests:
    """Requests held back until this process may send them; `run` has to be running.

    They are bounded as requests in flight are: each belongs to a call.

    Args:
        tenure: the right to send.
        publish: publishes the request of a call.
        on_withdrawn: callback with a call whose request was taken back: another copy may be out.
    """

    def __init__(
        self, tenure: Tenure, publish: Callable[[Call], None], on_withdrawn: Callable[[Call], None]
    ) -> None:
        self._tenure = tenure
        self._publish = publish
        self._on_withdrawn = on_withdrawn
        self._held: dict[Call, None] = {}
        self._asked: set[str] = set()
        """Builds that are being confirmed."""
        self._wake = trio.Event()

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, call: Call) -> bool:
        return call in self._held

    def hold(self, call: Call) -> None:
        """Hold a request back; synchronous."""
        call.outgoing = HeldBack(self, call)
        self._held[call] = None
        self._wake.set()

    def withdraw(self, call: Call) -> None:
        """Take a request back; synchronous."""
        self.drop(call)
        self._on_withdrawn(call)

    def drop(self, call: Call) -> None:
        """Forget a request. Idempotent."""
        self._held.pop(call, None)

    async def run(self) -> NoReturn:
        """Let requests leave once they may; never returns."""
        async with trio.open_nursery() as nursery:
            while True:
                await self._wake.wait()
                await self._tenure.renewed()
                self._wake = trio.Event()
                builds: dict[str, list[Call]] = {}
                for call in self._held:
                    if call.request.build not in self._asked:
                        builds.setdefault(call.request.build, []).append(call)
                # A log that takes long to write keeps no other build waiting.
                self._asked.update(builds)
                for build, calls in builds.items():
                    nursery.start_soon(self._release, build, calls)

    async def _release(self, build: str, calls: list[Call]) -> None:
        """Let the requests of one build leave, if it is still this process's."""
        try:
            await self._tenure.confirm(build)
        except StoreError as error:
            # Its walk is told as well, and puts the calls away.
            log.info("requests are not sent any more", build=build, requests=len(calls), why=str(error))
            for call in calls:
                self.drop(call)
            return
        finally:
            self._asked.discard(build)
            # Perhaps others of it are held back by now.
            self._wake.set()
        for call in calls:
            if call in self._held:
                del self._held[call]
                if not call.answered and not call.closed:
                    call.unsure = False
                    self._publish(call)
