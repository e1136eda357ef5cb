"""Tasks beside the body of a context."""

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.runtime.background import open_background


async def test_what_runs_beside_the_body_ends_with_it() -> None:
    """It is cancelled, and has ended when the context is left."""
    ended: list[str] = []

    async def wait() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("task")

    async with open_background() as background:
        background.start_soon(wait)
        await wait_all_tasks_blocked()
        assert ended == []
    assert ended == ["task"]


async def test_what_fails_beside_the_body_ends_it() -> None:
    """The body is cancelled, and the error comes out of the context."""
    left: list[str] = []

    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise KeyError("broken")

    async def stay() -> None:
        async with open_background() as background:
            background.start_soon(fail)
            try:
                await trio.sleep_forever()
            finally:
                left.append("body")

    with pytest.raises(ExceptionGroup) as raised:
        await stay()
    assert raised.group_contains(KeyError)
    assert left == ["body"]
