"""Builds that move from instance to instance while they run, far more often than they do.

Builds of a simulation are small, and over soon. So in some scenarios nobody asks how loaded an instance is.
It is drawn from separate random numbers.
"""

import random
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import trio

import scheduler.fleet.rebalancing
import scheduler.supervision.giving
from scheduler.fleet.rebalancing import FRESH, Burden, Move, Taker
from scheduler.supervision.giving import Rebalancer

_PART = 0.4
"""Of the scenarios with several instances, so many have builds that move."""
_SECONDS = {
    "REST": 0.8,
    "ACCEPT_REST": 0.2,
    "MOVED_REST": 1.5,
    "SETTLED": 0.1,
    "REFUSED_REST": 1.0,
}
_UNTIL = 60.0
"""Seconds from the beginning within which builds move: what a few starts a minute keep back would move on."""


def moves(seed: int, instances: int) -> bool:
    """Decide for a seed whether builds move."""
    return instances > 1 and random.Random(f"given builds {seed}").random() < _PART


def _anything(_: int, burdens: Iterable[Burden], takers: Iterable[Taker]) -> list[Move]:
    if trio.current_time() > _UNTIL:
        return []
    ready = [one for one in takers if one.takes and one.age <= FRESH]
    # Those with the most left first: they may be under way when they are moved.
    burdens = sorted(burdens, key=lambda one: (-one.left, one.build))
    return [Move(one.build, one.left, taker) for one in burdens for taker in ready]


@contextmanager
def often() -> Iterator[None]:
    """Let each instance give builds away as often as it can."""
    giving, rebalancing = scheduler.supervision.giving, scheduler.fleet.rebalancing
    with ExitStack() as stack:
        for name, seconds in _SECONDS.items():
            stack.enter_context(mock.patch.object(rebalancing, name, seconds))
        stack.enter_context(mock.patch.object(giving, "PERIOD", 0.3))
        stack.enter_context(mock.patch.object(giving, "LEAST_GAP", 0))
        stack.enter_context(mock.patch.object(giving, "choose", _anything))
        stack.enter_context(mock.patch.object(giving, "fits", return_value=True))
        yield


@contextmanager
def never() -> Iterator[None]:
    """Let no instance give builds away: they are too small for that, and runs stay as they were."""

    async def idle(_: Rebalancer) -> None:
        await trio.sleep_forever()

    with mock.patch.object(Rebalancer, "run", idle):
        yield
