"""Long loops give others a turn, by what was done."""

from collections.abc import Sequence

import pytest
import trio

from scheduler.runtime.pace import TURN, Pace


@pytest.mark.parametrize(
    ("units", "turns"), [([0] * 99, 0), ([0] * 200, 2), ([TURN] * 3, 3)], ids=["little", "many", "heavy"]
)
async def test_others_have_a_turn_as_often_as_the_work_asks_for(units: Sequence[int], turns: int) -> None:
    seen = 0

    async def other() -> None:
        nonlocal seen
        while True:
            await trio.lowlevel.checkpoint()
            seen += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(other)
        await trio.lowlevel.checkpoint()
        before, pace = seen, Pace(TURN // 100)
        for one in units:
            await pace.turn(one)
        assert turns - 1 <= seen - before <= turns
        nursery.cancel_scope.cancel()
