"""``scheduler serve``: the service."""

import gc
import os
from functools import partial

from scheduler.commands.flags import BROKER_DEFAULTS, BrokerFlags, settings_of
from scheduler.commands.service_flags import (
    BUILD_DEFAULTS,
    EMBEDDED_DEFAULTS,
    LOG_DEFAULTS,
    SERVICE_DEFAULTS,
    STORE_DEFAULTS,
    BuildFlags,
    EmbeddedFlags,
    LogFlags,
    ServiceFlags,
    StoreFlags,
)
from scheduler.commands.variables import misspelt_variables


def serve(
    *,
    broker: BrokerFlags = BROKER_DEFAULTS,
    embedded: EmbeddedFlags = EMBEDDED_DEFAULTS,
    store: StoreFlags = STORE_DEFAULTS,
    build: BuildFlags = BUILD_DEFAULTS,
    service: ServiceFlags = SERVICE_DEFAULTS,
    log: LogFlags = LOG_DEFAULTS,
) -> int:
    """Take builds from the broker and run them."""
    settings = settings_of(broker, embedded, store, build, service, log)

    # Modules stay: collections that walk what has been loaded so far find nothing.
    gc.disable()
    # A wrong flag is told without loading these.
    import structlog  # noqa: PLC0415

    from scheduler.commands.session import run_async  # noqa: PLC0415
    from scheduler.log import configure_logging  # noqa: PLC0415
    from scheduler.process import run_service  # noqa: PLC0415

    gc.enable()
    configure_logging(settings.log_level, settings.log_format)
    for text in misspelt_variables(os.environ):
        structlog.get_logger().warning("a variable may be misspelt", hint=text)
    return run_async(partial(run_service, settings))
