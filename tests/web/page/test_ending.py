"""Viewers of a build that ends at the very moment at which they come."""

from typing import Any

import pytest
import trio
from support.asking import run as run_build
from support.fakes import JSON, document
from support.pages import Visited, of, visited


async def told(page: Visited) -> tuple[str, JSON, JSON]:
    """What a viewer of a build is told at last: the state of its component, its status, and the end."""
    states, status = "", dict[str, Any]()
    async with page.stream(of("b1", "stream")) as stream:
        while (event := await stream.next()) is not None and event.name != "end":
            states = event.data.get("states", states)
            for _, letter in event.data.get("rows", ()):
                states = letter
            status |= event.data.get("status", {})
        assert event is not None
        assert await stream.next() is None
        return states, status, event.data


@pytest.mark.parametrize("turns", [0, 3])
@pytest.mark.parametrize("question", [1, 2])
async def test_a_viewer_that_comes_as_a_build_ends_is_told_how(
    monkeypatch: pytest.MonkeyPatch, question: int, turns: int
) -> None:
    """Between any two questions of its page: with the last states, or that there is no build any more."""
    async with visited(None) as page:
        await run_build(page.site, document("a"))
        assert page.board.console is not None
        control = page.board.console.control
        assert control is not None
        ask, asked = control.ask, list[str]()

        async def interrupted(verb: str, *rest: Any) -> Any:
            answer = await ask(verb, *rest)
            asked.append(verb)
            if len(asked) == question:
                page.site.cloud.answer("a")
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
            return answer

        monkeypatch.setattr(control, "ask", interrupted)
        with trio.fail_after(10):
            states, status, end = await told(page)
    if end["reason"] == "gone":
        # This store keeps no build that has ended; the page had just asked whether there is one.
        assert (question, states, status) == (1, "", {})
        assert end["message"] == "there is no build 'b1' here"
    else:
        assert (states, status["status"], end) == ("c", "done", {"reason": "finished"})
        assert status["counts"]["completed"] == 1
