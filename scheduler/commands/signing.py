"""Flags of every command that changes a build: why, and who wants it."""

import getpass
import socket
from typing import Annotated, TypeAlias, TypedDict

from cyclopts import Parameter

from scheduler.commands.asking import option
from scheduler.commands.parameters import OPTIONS

Reason: TypeAlias = Annotated[str, option("Reason, for `scheduler history` and the logs.")]
As: TypeAlias = Annotated[
    str,
    Parameter(
        name="--as",
        help="Your name, for the same [default: $USER@HOST]; the broker's word goes before it.",
        negative="",
        group=OPTIONS,
        show_default=False,
    ),
]


class Signature(TypedDict):
    """Members of a command that say why it is given, and by whom."""

    reason: str | None
    by: str | None


def signed(reason: str, as_: str) -> Signature:
    """Return the members of a command for these flags."""
    return {"reason": reason or None, "by": as_ or user_and_host() or None}


def user_and_host() -> str:
    """Return ``user@host`` of this process; without what cannot be told, as in some containers."""
    try:
        user = getpass.getuser()
    except (OSError, KeyError):
        user = ""
    host = socket.gethostname()
    return f"{user}@{host}" if user and host else user or host
