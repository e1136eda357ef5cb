"""Expired attempts: their time has passed, and they wait until it is known that no reply was captured."""

import trio

from scheduler.dispatch.call import Call


class ExpiredCalls:
    """Expired attempts that wait for a look at the captured replies."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._added = trio.Event()

    def add(self, call: Call) -> None:
        """Let an attempt wait. Synchronous."""
        self._calls.append(call)
        self._added.set()

    async def take(self) -> list[Call]:
        """Wait until there are any, and take all of them."""
        await self._added.wait()
        self._added = trio.Event()
        calls, self._calls = self._calls, []
        return calls
