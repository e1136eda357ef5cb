"""``scheduler watch BUILD``: follows a build that is already running."""

from functools import partial

import trio

from scheduler.bus import Bus
from scheduler.client.ask import get_summary
from scheduler.client.follow import explain, open_following, show
from scheduler.client.lenient import text
from scheduler.client.progress import Progress
from scheduler.client.timeline import FINISHED
from scheduler.commands.asking import Json, run_asking
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId
from scheduler.text import printable


def watch(
    build: BuildId,
    /,
    *,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Follow a running build live and print how it ends."""
    said = f"interrupted: no longer following {printable(build)}; it continues"
    return run_asking(broker, log, partial(watch_build, build, json), json=json, interrupted=said)


async def watch_build(build: str, json: bool, bus: Bus) -> int:
    """Follow a build to its end; return 0 if it succeeded, 1 if it failed.

    Raises:
        SteeringError: the build is unknown, or no scheduler answers.
    """
    # The action names the subject of the report; all else is asked again once we listen.
    summary = await get_summary(bus, build)
    now = trio.current_time()
    progress = Progress(build, text(summary.get("action")), now)
    progress.refresh(summary, now)
    from scheduler.display import open_view  # noqa: PLC0415 - it loads rich, for an answer to show

    view = open_view(progress, json=json)
    if summary.get("status") in FINISHED:
        await explain(bus, progress)
        view.summary(trio.current_time())
        return 0 if progress.error is None else 1
    async with open_following(bus, build, progress.action) as following:
        progress.behind = True
        view.start()
        try:
            await show(bus, following, progress, view)
        finally:
            view.stop()
    view.summary(trio.current_time())
    return 0 if progress.error is None else 1
