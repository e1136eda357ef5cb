"""``scheduler release BUILD``: releases a quarantined build so that it is loaded again."""

import secrets
from functools import partial
from typing import Any, Final

from scheduler.commands.flags import (
    BROKER_DEFAULTS,
    QUIET_LOG_DEFAULTS,
    BrokerFlags,
    QuietLogFlags,
    settings_of,
)
from scheduler.commands.parameters import BuildId
from scheduler.commands.reaching import reach
from scheduler.commands.saying import complain, say
from scheduler.commands.signing import As, Reason, signed

_LONGEST_REASON: Final = 1_000
"""Characters of a reason that are kept."""


def release(
    build: BuildId,
    /,
    *,
    reason: Reason = "",
    as_: As = "",
    broker: BrokerFlags = BROKER_DEFAULTS,
    log: QuietLogFlags = QUIET_LOG_DEFAULTS,
) -> int:
    """Release a quarantined build so that it is loaded again."""
    settings = reach(settings_of(broker, log), serving=True, aloud=True)

    # Wrong flags are reported without loading these.
    from scheduler.commands.session import run_async, until_signal, with_parts  # noqa: PLC0415
    from scheduler.definition.secrets.masking import Secrets  # noqa: PLC0415
    from scheduler.errors import BusError, StoreError  # noqa: PLC0415
    from scheduler.jetstream.api import JetStream  # noqa: PLC0415
    from scheduler.journal.orders import Order  # noqa: PLC0415
    from scheduler.log import configure_logging  # noqa: PLC0415
    from scheduler.recovery import crash_loops  # noqa: PLC0415

    configure_logging(settings.log_level, settings.log_format)

    said = signed(reason, as_)
    # No build is read here that would tell its secrets: those are found that look like one.
    masked = Secrets().mask
    reason = masked(said["reason"] or "", _LONGEST_REASON)
    order = Order("release", claim=said["by"] or "", reason=reason, id=secrets.token_hex(8))

    async def job(bus: Any) -> int:
        try:
            await crash_loops.release(JetStream(bus), build, order)
        except (BusError, StoreError) as error:
            complain(str(error))
            return 1
        say(f"{build} is released: the next scheduler to start takes it up")
        return 0

    def stopped() -> None:
        complain("interrupted: it is unknown whether the build was released")

    return run_async(partial(until_signal, partial(with_parts, settings, None, job), stopped))
