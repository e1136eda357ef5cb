"""``scheduler list`` and ``scheduler status BUILD``: all builds, and the state of one."""

import time
from functools import partial
from typing import Annotated

import trio

from scheduler.bus import Bus
from scheduler.client.ask import get_build, list_builds
from scheduler.client.lenient import number
from scheduler.client.progress import Progress
from scheduler.commands.asking import Json, in_time, option, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId
from scheduler.commands.saying import say


def list_(
    *,
    all_: Annotated[bool, option("List finished builds too, while their logs are kept.")] = False,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """List the builds of a scheduler."""
    return run_asking(broker, log, partial(_list, all_, json), json=json)


async def _list(finished: bool, json: bool, bus: Bus) -> int:
    builds = await in_time(list_builds(bus, finished=finished), pages=True)
    if json:
        say_json({"builds": builds})
    elif builds:
        from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
        from scheduler.display.tables import show_builds  # noqa: PLC0415

        show_builds(Output(), builds, time.time())
    else:
        say("no builds" if finished else "no builds are running; --all lists finished ones too")
    return 0


def status(
    build: BuildId,
    /,
    *,
    components: Annotated[bool, option("List every component.")] = False,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Show the current state of a build."""
    return run_asking(broker, log, partial(_status, build, components, json), json=json)


async def _status(build: str, components: bool, json: bool, bus: Bus) -> int:
    answer = await in_time(get_build(bus, build), pages=True)
    if json:
        answer.pop("next", None)
        if not components:
            answer.pop("components", None)
        say_json(answer)
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
    from scheduler.display.tables import show_components, show_status  # noqa: PLC0415

    console = Output()
    if components:
        show_components(console, answer, number(answer.get("now")) or time.time())
        return 0
    now = trio.current_time()
    progress = Progress(build, "", now)
    progress.snapshot(answer, now)
    show_status(console, answer, progress, now)
    return 0
