"""``scheduler wait BUILD``: waits until a build has ended, for scripts."""

from functools import partial
from typing import Annotated, Final

import trio

from scheduler.bus import Bus
from scheduler.client.lenient import text
from scheduler.client.wait import Waiting, progress_of
from scheduler.commands.asking import Json, duration, option, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId
from scheduler.commands.saying import complain, say
from scheduler.text import printable, seconds

TIMED_OUT: Final = 124
"""Exit code after a timeout, as that of timeout(1)."""
_LONGEST: Final = 365 * 86_400.0
"""Seconds of the longest timeout."""


def wait(
    build: BuildId,
    /,
    *,
    timeout: Annotated[str, option("Wait no longer than this: seconds, or as 10m [default: for ever].")] = "",
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Wait until a build has ended."""
    longest = duration("--timeout", timeout, 0, _LONGEST) if timeout else None
    said = f"interrupted: no longer waiting for {printable(build)}; it continues"
    return run_asking(broker, log, partial(_wait, build, longest, json), json=json, interrupted=said)


async def _wait(build: str, longest: float | None, json: bool, bus: Bus) -> int:
    name = printable(build)
    waiting = Waiting(bus, build, lambda trouble: complain(printable(trouble)))
    with trio.move_on_after(float("inf") if longest is None else longest) as scope:
        ended = await waiting.run()
    if scope.cancelled_caught:
        assert longest is not None
        status = text(waiting.last.get("status")) or "unknown"
        if json:
            say_json({"id": build, "status": status, "timed_out": True})
        complain(f"{name} has not ended within {seconds(longest)}: {printable(progress_of(waiting.last))}")
        return TIMED_OUT
    status, error = text(ended.get("status")), text(ended.get("error"))
    if json:
        say_json({key: ended[key] for key in ("id", "status", "run", "error", "ended") if key in ended})
    else:
        why = printable(error.removeprefix(status).removeprefix(": "), 1_000)
        say(f"{name}: {status}" + (f": {why}" if why else ""))
    return 0 if status == "done" else 1
