"""Carries out each order of an operator once, however often it comes.

A sender that gets no answer sends its order again, and a server that hung may deliver a copy a minute and a
half later. So an order has an id, which stands beside what followed from it in the log of its build
(`scheduler.journal.orders`), and a time from which it is not carried out any more: by then its sender has
been told that there was no answer, and may have done something else.

An order that comes again is answered in the same words, as long as this process remembers them; otherwise
with the time at which it was carried out, which the log knows over restarts and take-overs as well.
"""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Final, TypeAlias

import trio

from scheduler.control.finder import BuildFinder
from scheduler.control.verbs import Command, Done
from scheduler.errors import CarriedOut, Fenced, Refused
from scheduler.journal.orders import Order
from scheduler.text import seconds

ALLOWANCE: Final = 30.0
"""Seconds after its expiry for which an order is still taken. The expiry is by the sender's clock, and clocks
without a time service get seconds apart within days. This is as much as the usual life of an order: together
that is a minute, less than the minute and a half for which a server that hung keeps what it was given."""
_REMEMBERED: Final = 120.0
"""Seconds for which an answer is remembered: no copy that comes later is taken."""
_MOST: Final = 1_000
"""Answers that are remembered."""
_LONGEST: Final = 4_000
"""Characters of the text of an answer that is remembered."""

_Key: TypeAlias = tuple[str, str, str]
"""Build, verb, and id of an order."""


class OrderBook:
    """Carries out orders once.

    Args:
        builds: finds the builds that orders are about.
        wall_clock: returns the seconds since 1970.
    """

    def __init__(self, builds: BuildFinder, wall_clock: Callable[[], float] = time.time) -> None:
        self._builds = builds
        self._wall_clock = wall_clock
        self._under_way: dict[_Key, trio.Event] = {}
        self._answers: OrderedDict[_Key, tuple[float, Done | tuple[str, str]]] = OrderedDict()
        """Time until which each is remembered, Trio clock, and the answer, or code and text of a refusal."""

    async def carry_out(self, command: Command, order: Order, act: Callable[[], Awaitable[Done]]) -> Done:
        """Carry out an order, or answer as before if that was done already.

        A copy that comes meanwhile waits for the first one; its asker sets the deadline.

        Args:
            command: the request.
            order: the order that it gives.
            act: carries it out; raises CarriedOut where the build's log says that this was done.

        Raises:
            Refused: it has expired, or was refused.
            StoreError, BusError: as by ``act``.
        """
        self._check_expiry(command)
        if not order.id:
            return await act()
        key = command.id, order.verb, order.id
        while (first := self._under_way.get(key)) is not None:
            await first.wait()
        if (known := self._remembered(key)) is not None:
            return known
        done = self._under_way[key] = trio.Event()
        try:
            answer = await self._act_once(command, order, act)
        except Refused as refusal:
            # What was impossible may have become possible, when the sender knows of the refusal.
            if refusal.code == "conflict":
                self._remember(key, (refusal.code, str(refusal)))
            raise
        finally:
            del self._under_way[key]
            done.set()
        self._remember(key, answer)
        return answer

    async def _act_once(self, command: Command, order: Order, act: Callable[[], Awaitable[Done]]) -> Done:
        try:
            return await act()
        except CarriedOut as before:
            at = before.time
        except Fenced:
            # Another process has written to the log: maybe because of another copy.
            builds = await self._builds.find(command.id)  # noqa: ASYNC120 - cancelled, nobody waits for it
            found = builds.orders.find(order.verb, order.id)
            if found is None:
                raise
            at = found.time
        seen = await self._builds.find(command.id)
        when = datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        return Done(id=command.id, status=seen.status, text=f"carried out already at {when}")

    def _check_expiry(self, command: Command) -> None:
        if command.expires is None:
            return
        late = self._wall_clock() - command.expires
        if late > ALLOWANCE:
            text = f"it expired {seconds(late)} ago, by its sender's clock, and this copy is not carried out"
            raise Refused("expired", f"{text}: give it again; if it was just given, the clocks are apart")

    def _remembered(self, key: _Key) -> Done | None:
        """Return the answer to an order that was carried out; None if nothing is remembered of it.

        Raises:
            Refused: it was refused.
        """
        now = trio.current_time()
        while self._answers and next(iter(self._answers.values()))[0] <= now:
            self._answers.popitem(last=False)
        known = self._answers.get(key)
        if known is None:
            return None
        if isinstance(known[1], Done):
            return known[1]
        raise Refused(*known[1])

    def _remember(self, key: _Key, answer: Done | tuple[str, str]) -> None:
        if len(answer.text if isinstance(answer, Done) else answer[1]) <= _LONGEST:
            self._answers[key] = trio.current_time() + _REMEMBERED, answer
        while len(self._answers) > _MOST:
            self._answers.popitem(last=False)
