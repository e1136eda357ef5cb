"""A build's error, the end of its pause and orders of its operator, all in one moment of a component's turn."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import trio
from fakes import document, ignore, open_world, states
from test_build import Run
from test_build_steered import helm, tick
from trio.testing import MockClock, wait_all_tasks_blocked


async def test_an_error_in_the_moment_in_which_a_pause_ends_hangs_nothing(autojump_clock: MockClock) -> None:
    """What was held back by the pause is about to be entered anew, and is not to begin any more."""
    async with open_world(script=ignore) as world, trio.open_nursery() as nursery:
        run = Run(world, document(["a", "b", "c", "d"], [("a", "c"), ("a", "d")]))
        await run.start(nursery)
        await helm(run).pause()
        world.cloud.answer("a")
        await wait_all_tasks_blocked()
        run.plan.pause(on=False)
        run.walk.unpause()
        run.walk.halt("the store failed")
        world.cloud.answer("b")
        await tick()
        assert states(run.done) == {"a": "completed", "b": "completed", "c": "waiting", "d": "waiting"}
        assert world.cloud.asked == ["a", "b"]
        run.check_end()
