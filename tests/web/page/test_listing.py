"""Lists of builds: how long one is good, and what is told of each build."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from typing import Any

import pytest
import trio
from support.desks import FakeDesk
from support.fakes import JSON
from trio.testing import MockClock

from scheduler.web.page.discarding import Discarded
from scheduler.web.page.listing import Details, Listings


def listed(*builds: str, **more: Any) -> dict[str, JSON]:
    return {"list": {"builds": [{"id": one, "status": "running"} for one in builds], **more}}


async def age_of_news(silent: list[JSON]) -> float:
    """Seconds until a build that has come is listed, where a list takes two seconds."""
    desk = FakeDesk(listed("b1", silent=silent), seconds=2.0)
    listings = Listings(desk, Discarded())  # type: ignore[arg-type]
    for _ in range(3):
        await listings.get()
        await trio.sleep(1.0)
    desk.answers = listed("b1", "b2", silent=silent)
    began = trio.current_time()
    for _ in range(200):
        if len((await listings.get()).rows) > 1:
            return trio.current_time() - began
        await trio.sleep(0.5)
    raise AssertionError("it never comes")


@pytest.mark.parametrize(("silent", "most"), [([{"name": "beta"}], 8.0), ([], 90.0)], ids=["hung", "busy"])
async def test_an_instance_that_hangs_makes_no_list_old(
    autojump_clock: MockClock, silent: list[JSON], most: float
) -> None:
    """Waiting for it is no work: one that took long by work alone is kept the longer."""
    assert most / 10 < await age_of_news(silent) < most


async def test_a_build_that_ends_is_missed_for_a_second_at_most(autojump_clock: MockClock) -> None:
    """Though its report was not stored yet when it was looked for."""
    desk = FakeDesk(listed("b1"))
    listings = Listings(desk, Discarded())  # type: ignore[arg-type]
    await listings.get()
    await trio.sleep(1.0)
    desk.answers = listed()
    assert (await listings.get()).rows == []
    desk.answers["list all"] = {"builds": [{"id": "b1", "status": "done"}]}
    await trio.sleep(1.0)
    [row] = (await listings.get()).rows
    assert row["status"] == "done"


async def test_a_build_that_has_ended_waits_for_nothing(autojump_clock: MockClock) -> None:
    """What was known of it while it ran is told no more."""
    why = {"reasons": [{"text": "no slot"}]}
    details = Details(FakeDesk({"get": {"eta": 9.0, "overdue": None}, "why": why}))  # type: ignore[arg-type]
    [row] = await details.add([{"id": "b1", "status": "running"}])
    assert (row["eta"], row["waiting"]) == (9.0, "no slot")
    assert await details.add([{"id": "b1", "status": "done"}]) == [{"id": "b1", "status": "done"}]
