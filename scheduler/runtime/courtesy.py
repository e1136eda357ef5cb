"""Long work for those who look at builds, last in turn behind the builds themselves."""

import trio

_PAUSE = 0.005
"""Seconds that are left to others where they have something to do: five times as much as a slice takes."""


async def give_way() -> None:
    """Let everything else that is to be done go first; to be called after each slice of about 1 ms.

    Where others are busy, this work gets a sixth of the time at most, and so much always: it comes to an end.
    """
    # Trio runs what can run in batches, of which one sees, before and after, only what is for the next.
    busy = trio.lowlevel.current_statistics().tasks_runnable
    await trio.lowlevel.checkpoint()
    if busy or trio.lowlevel.current_statistics().tasks_runnable:
        await trio.sleep(_PAUSE)
