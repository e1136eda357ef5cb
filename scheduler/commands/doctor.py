"""``scheduler doctor``: checks whether a service would run well on a broker, and what to do if not."""

import logging
from functools import partial
from typing import Annotated, Any

import msgspec
import structlog
from attrs import evolve

from scheduler.commands.flags import BROKER_DEFAULTS, BrokerFlags, settings_of
from scheduler.commands.parameters import LIMITS, number, switch
from scheduler.commands.saying import complain, say
from scheduler.commands.service_flags import STORE_DEFAULTS, StoreFlags
from scheduler.config import Settings


def doctor(
    *,
    json: Annotated[bool, switch("json", "Print one JSON object instead of text.")] = False,
    store: StoreFlags = STORE_DEFAULTS,
    broker: BrokerFlags = BROKER_DEFAULTS,
    max_bytes_in_flight: Annotated[
        int, number("max_bytes_in_flight", "Bytes of requests in flight, as the service is set.", LIMITS)
    ] = Settings().max_bytes_in_flight,
) -> int:
    """Check whether a service would run well on a broker."""
    settings = evolve(settings_of(broker, store), max_bytes_in_flight=max_bytes_in_flight)

    # Wrong flags are reported without loading these.
    from scheduler.commands.session import run_async, until_signal, with_parts  # noqa: PLC0415
    from scheduler.diagnosis import Diagnosis  # noqa: PLC0415
    from scheduler.diagnosis.examination import examine  # noqa: PLC0415
    from scheduler.diagnosis.output import show  # noqa: PLC0415
    from scheduler.display import Output  # noqa: PLC0415
    from scheduler.errors import BusError  # noqa: PLC0415

    # A refusal of the broker is a finding here, not a line of the log.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    found: list[Diagnosis] = []

    async def job(bus: Any) -> int:
        found.append(await examine(bus, settings))
        return 0

    def stopped() -> None:
        complain("interrupted: nothing is left behind on the broker")

    try:
        code = run_async(partial(until_signal, partial(with_parts, settings, None, job), stopped))
    except BusError as error:
        found.append(Diagnosis())
        found[0].fail("connection", str(error), "see --nats-url and how to log in, and the broker's log")
        code = 0
    if code:
        return code
    (diagnosis,) = found
    if json:
        say(msgspec.json.format(msgspec.json.encode(diagnosis.document()), indent=2).decode())
    else:
        show(diagnosis, Output())
    return 0 if diagnosis.healthy else 1
