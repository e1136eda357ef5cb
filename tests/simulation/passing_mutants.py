"""Deliberate faults of orderly stops, as in `simulation.mutants`."""

from collections.abc import Callable, Collection
from typing import Any

import trio

from scheduler.fleet.placing import HERE
from scheduler.recovery.durable import Durable
from scheduler.supervision.passing import Passing
from scheduler.supervision.passing_wire import ELSEWHERE, Answer
from simulation.fleet_mutants import Patch


def _refused_instead_of_passed_on() -> list[Patch]:
    """What an instance cannot take, as it ends, is refused, although another one is there."""

    def stubborn(_: Passing, __: int, tried: Collection[str]) -> str | None:
        return None if HERE in tried else HERE

    return [(Passing, "_choose", stubborn)]


def _peers_that_are_not_told_of_an_end() -> list[Patch]:
    """Others go on to pass builds to one that ends, and its refusal is what their senders get."""
    pass_on = Passing._pass_on

    async def untold(_: Durable) -> None:
        await trio.lowlevel.checkpoint()

    async def trusting(passing: Passing, *asked: Any) -> Answer | None:
        answer = await pass_on(passing, *asked)
        refusal = None if answer is None else answer.refusal
        if refusal is not None and refusal.code in ELSEWHERE:
            # No code by which it is taken elsewhere; the sender sees the same bytes.
            assert answer is not None
            assert answer.error is not None
            answer.error.code = "final"
        return answer

    return [(Durable, "begin_to_end", untold), (Passing, "_pass_on", trusting)]


PASSING_MAKERS: tuple[Callable[[], list[Patch]], ...] = (
    _refused_instead_of_passed_on,
    _peers_that_are_not_told_of_an_end,
)
