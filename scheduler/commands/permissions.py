"""``scheduler permissions``: a configuration for nats-server with the least that each side needs."""

import sys
from importlib import resources


def permissions() -> int:
    """Print a broker's configuration with the least permissions."""
    sys.stdout.write(read_permissions())
    return 0


def read_permissions() -> str:
    """The file as it was shipped."""
    return resources.files("scheduler").joinpath("permissions", "nats-server.conf").read_text()
