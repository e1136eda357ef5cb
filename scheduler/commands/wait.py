"""``scheduler wait BUILD``: waits until a build has ended, for scripts."""

from functools import partial
from typing import Annotated, Final

import trio

from scheduler.bus import Bus
from scheduler.client.lenient import text
from scheduler.client.wait import Waiting, progress_of
from scheduler.commands.asking import Json, option, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId
from scheduler.commands.saying import complain, say
from scheduler.errors import InvalidSettings
from scheduler.text import DURATIONS, printable, read_duration, seconds

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
    longest = _read_timeout(timeout) if timeout else None
    said = f"interrupted: no longer waiting for {printable(build)}; it continues"
    return run_asking(broker, log, partial(_wait, build, longest, json), json=json, interrupted=said)


def _read_timeout(given: str) -> float:
    try:
        value = read_duration(given)
    except ValueError:
        value = -1.0
    if not 0 <= value <= _LONGEST:
        raise InvalidSettings(f"--timeout: {printable(given, 40)!r} is not a duration, such as {DURATIONS}")
    return value


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
