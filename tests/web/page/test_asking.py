"""Questions of the page: which of them wait for which."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import pytest
import trio
from support.fakes import document
from support.instances import open_desk
from trio.testing import MockClock

from scheduler.errors import Refused
from scheduler.journal.events import Accepted
from scheduler.web.board import Board
from scheduler.web.console import Console
from scheduler.web.page.asking import Desk

HUNG = 40
"""Builds that are asked about of an instance that hangs; more than it is asked about at a time."""


async def test_questions_to_an_instance_that_hangs_hold_up_no_others(autojump_clock: MockClock) -> None:
    """What is answered here is answered at once, and each of the others within two seconds."""
    refusals: list[str] = []
    async with open_desk() as fleet, trio.open_nursery() as nursery:
        other = await fleet.join()
        other.there, other.says = False, lambda _verb, _question: None
        board = Board(console=Console(fleet.broker.bus, "alpha", control=fleet.control))
        desk = Desk(board)

        async def ask(build: str) -> None:
            with pytest.raises(Refused) as refused:
                await desk.ask("get", {"id": build})
            refusals.append(str(refused.value))

        for number in range(HUNG):
            build = f"b{number}"
            fleet.broker.write(Accepted(document("a", build=build)), build=build)
            nursery.start_soon(ask, build)
        await trio.sleep(0.5)
        began = trio.current_time()
        with pytest.raises(Refused, match="there is no build 'none'"):
            await desk.ask("get", {"id": "none"})
        assert trio.current_time() - began < 0.5
        await trio.sleep(2.5)
        assert len(refusals) == HUNG
        assert all("owned by beta, which does not answer" in one for one in refusals)
