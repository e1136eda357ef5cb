"""The configuration of each of three brokers: the shipped permissions, with nkeys for passwords."""

import re
from typing import Final

from scheduler.permissions import shipped

VARIABLE: Final = "NATS_{}_NKEY"
"""Name of the environment variable with the public key of a user."""
_LOGIN: Final = re.compile(r"(?m)^( *)user: (\w+)\n *password: \$NATS_\w+$")
_LISTEN: Final = re.compile(r"(?m)^listen: .*\n")


def broker_configuration(head: str) -> str:
    """Return the configuration.

    Args:
        head: its beginning: what the brokers of a cluster have beside permissions and limits.

    Raises:
        ValueError: the shipped permissions are not as they are expected.
    """
    _, *rest = _LISTEN.split(shipped())
    text, number = _LOGIN.subn(lambda found: f"{found[1]}nkey: ${variable_of(found[2])}", "".join(rest))
    if len(rest) != 1 or not number or "password:" in text:
        raise ValueError("a login in the shipped permissions is no user with a password")
    return head.rstrip("\n") + "\n" + text


def variable_of(user: str) -> str:
    """Return the name of the environment variable with the public key of a user."""
    return VARIABLE.format(user.upper())
