"""``scheduler why BUILD [COMPONENT]``: what it is waiting for, since when, and what to do about it."""

from functools import partial

import msgspec

from scheduler.bus import Bus
from scheduler.client.ask import ask
from scheduler.commands.asking import Json, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId, ComponentId
from scheduler.control.verbs import Why


def why(
    build: BuildId,
    component: ComponentId | None = None,
    /,
    *,
    json: Json = False,
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Explain what a build or component is waiting for."""
    return run_asking(broker, log, partial(_why, Why(id=build, component=component), json), json=json)


async def _why(question: Why, json: bool, bus: Bus) -> int:
    answer = await ask(bus, question.verb(), msgspec.to_builtins(question))
    if json:
        say_json(answer)
    else:
        from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
        from scheduler.display.tables import show_reasons  # noqa: PLC0415

        show_reasons(Output(), answer)
    return 0
