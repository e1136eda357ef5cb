"""Yields of long, unimportant work, such as answers to questions, to the builds themselves."""

import trio

_PAUSE = 0.005
"""Seconds left to other tasks if they have work: five times the duration of a slice."""


async def give_way() -> None:
    """Let all other tasks run first; to be called after each slice of about 1 ms.

    If others are busy, this work gets at most a sixth of the time, but always that much, so that it finishes.
    """
    # Trio runs tasks in batches, and before and after a batch only the tasks of the next one can be seen.
    busy = trio.lowlevel.current_statistics().tasks_runnable
    await trio.lowlevel.checkpoint()
    if busy or trio.lowlevel.current_statistics().tasks_runnable:
        await trio.sleep(_PAUSE)
