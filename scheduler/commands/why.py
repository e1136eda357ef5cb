"""``scheduler why BUILD [COMPONENT]``: what it is waiting for, since when, and what to do about it."""

from functools import partial

from scheduler.bus import Bus
from scheduler.client.ask import Document, ask
from scheduler.commands.asking import Json, in_time, run_asking, say_json
from scheduler.commands.flags import BROKER_DEFAULTS, QUIET_LOG_DEFAULTS, BrokerFlags, QuietLogFlags
from scheduler.commands.parameters import BuildId, ComponentId


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
    question: Document = {"id": build}
    if component is not None:
        question["component"] = component
    return run_asking(broker, log, partial(_why, question, json), json=json)


async def _why(question: Document, json: bool, bus: Bus) -> int:
    answer = await in_time(ask(bus, "why", question))
    if json:
        say_json(answer)
    else:
        from scheduler.display import Output  # noqa: PLC0415 - it loads rich, for an answer to show
        from scheduler.display.tables import show_reasons  # noqa: PLC0415

        show_reasons(Output(), answer)
    return 0
