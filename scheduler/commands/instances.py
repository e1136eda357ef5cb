"""``scheduler instances``: the schedulers that share the builds of a broker."""

import time
from functools import partial

from scheduler.bus import Bus
from scheduler.client.ask import ask
from scheduler.commands.asking import Json, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags


def instances(
    *,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """List the instances that share the builds."""
    return run_asking(broker, log, partial(_instances, json), json=json)


async def _instances(json: bool, bus: Bus) -> int:
    answer = await ask(bus, "instances", {})
    if json:
        say_json(answer)
        return 0
    from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
    from scheduler.display.instances import show_instances  # noqa: PLC0415

    show_instances(Output(), answer, time.time())
    return 0
