"""Finds the broker for a command where nobody named one: an embedded broker of this user that runs here.

What is configured always goes first. `serve` and `doctor` do not look: a service must not come to depend on
somebody's trial.
"""

from typing import Final

import attrs

from scheduler.bus.options import BusOptions
from scheduler.client.brokers import choose, records_dir, running_brokers
from scheduler.commands.saying import complain
from scheduler.config import Settings
from scheduler.errors import BrokerError

_LOGINS: Final = ("user", "token", "credentials", "nkey")


def reach(settings: Settings, *, serving: bool = False, aloud: bool = False) -> Settings:
    """Return the settings, with an embedded broker's address and token if no broker is configured.

    If just the URL of an embedded broker is configured, its token is added.

    Args:
        settings: the settings of the command.
        serving: whether only a broker will do whose scheduler does not end with a build.
        aloud: whether to tell on standard error which one it is.

    Raises:
        BrokerError: several run, and none is that of the default data directory.
    """
    options = settings.bus
    if settings.embedded or (options.chosen and not _is_bare(options)):
        return settings
    brokers = running_brokers()
    if options.chosen:
        named = [broker for broker in brokers if options.servers == (broker.url,)]
        return attrs.evolve(settings, bus=attrs.evolve(options, token=named[0].token)) if named else settings
    left = choose(brokers, serving=serving)
    if len(left) > 1:
        raise BrokerError(
            f"{len(left)} embedded brokers run here; choose one with --nats-url: "
            + ", ".join(str(broker) for broker in left)
        )
    if not left:
        what = "serves" if serving else "runs"
        origin = f"none is configured, and no embedded one of yours {what}: see {str(records_dir())!r}"
        return attrs.evolve(settings, bus=attrs.evolve(options, origin=origin))
    (broker,) = left
    origin = f"the embedded broker at {broker}"
    if aloud:
        complain(f"using {origin}")
    found = BusOptions(servers=(broker.url,), token=broker.token, chosen=False, origin=origin)
    return attrs.evolve(settings, bus=found)


def asked(options: BusOptions) -> str:
    """Return the end of a message about a refusal: which embedded broker was asked, if that was found."""
    return f" (asked {options.origin})" if options.origin and options.token else ""


def _is_bare(options: BusOptions) -> bool:
    """Tell whether these are one server's URL and no login."""
    return (
        len(options.servers) == 1
        and "@" not in options.servers[0]
        and all(getattr(options, login) is None for login in _LOGINS)
    )
