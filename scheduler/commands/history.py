"""``scheduler history BUILD``: what operators had done to a build, when, by whom and why."""

import time
from functools import partial

from scheduler.bus import Bus
from scheduler.client.ask import get_history
from scheduler.commands.asking import Json, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId


def history(
    build: BuildId,
    /,
    *,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """List what operators had done to a build, by whom and why."""
    return run_asking(broker, log, partial(_history, build, json), json=json)


async def _history(build: str, json: bool, bus: Bus) -> int:
    answer = await get_history(bus, build)
    if json:
        answer.pop("next", None)
        say_json(answer)
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
    from scheduler.display.orders import show_history  # noqa: PLC0415

    show_history(Output(), answer, time.time())
    return 0
