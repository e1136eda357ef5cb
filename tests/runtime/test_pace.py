"""Long loops give others a turn, by what was done."""

from collections.abc import Sequence

import pytest
import trio

from scheduler.runtime.pace import TURN, Pace, drained, paced, slices


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


@pytest.mark.parametrize(("count", "pauses"), [(0, 0), (2, 0), (3, 1), (4, 1), (9, 3), (10, 3)])
async def test_others_have_a_turn_after_so_many_items(count: int, pauses: int) -> None:
    """The items come in their order, each once."""
    seen: list[int] = []
    places: list[int] = []

    async def pause() -> None:
        places.append(len(seen))

    async for item in paced(range(count), every=3, pause=pause):
        seen += [item]
    assert seen == list(range(count))
    assert places == [3, 6, 9][:pauses]


@pytest.mark.parametrize(("count", "pauses"), [(0, 0), (2, 0), (3, 0), (4, 1), (9, 2), (10, 3)])
async def test_others_have_a_turn_between_slices(count: int, pauses: int) -> None:
    """The items come in their order, each once."""
    seen: list[int] = []
    places: list[int] = []

    async def pause() -> None:
        places.append(len(seen))

    async for some in slices(range(count), of=3, pause=pause):
        seen += some
    assert seen == list(range(count))
    assert places == [3, 6, 9][:pauses]


async def test_what_is_added_meanwhile_is_drained_as_well() -> None:
    """Until there is none."""
    items = [1, 2]
    seen: list[int] = []
    async for item in paced(drained(items), every=1):
        seen += [item]
        if item == 1:
            items.append(3)
    assert (seen, items) == ([2, 1, 3], [])
