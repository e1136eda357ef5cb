"""Whole builds, for all who ask at the same time."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.desks import FakeDesk
from trio.testing import MockClock

from scheduler.errors import Refused
from scheduler.web.page.discarding import Discarded
from scheduler.web.page.wholes import Wholes


async def test_all_who_wait_for_a_build_are_refused_together(autojump_clock: MockClock) -> None:
    """Its owner is asked once for all of them; and again for one that asks later."""
    desk = FakeDesk(seconds=2.0, refusal=Refused("unavailable", "alpha does not answer"))
    wholes = Wholes(desk, Discarded())  # type: ignore[arg-type]

    async def ask() -> None:
        with pytest.raises(Refused, match="alpha does not answer") as refused:
            await wholes.get("b1")
        assert refused.value.code == "unavailable"

    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        for _ in range(10):
            nursery.start_soon(ask)
    assert trio.current_time() - began == pytest.approx(2.0)
    assert desk.asked == ["get"]
    await ask()
    assert desk.asked == ["get", "get"]
