"""Parts of an explanation: a reason in words, and the commands that may help."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from attrs import frozen


@frozen
class Reason:
    """Reason why a build or a component waits."""

    text: str
    since: float | None = None
    """Beginning of the wait, seconds since 1970."""
    more: Mapping[str, Any] = {}
    """Members of the answer beside these."""
    cures: Sequence[str] = ()
    """Commands that may help, the first one first."""


@frozen
class Knowledge:
    """Facts about requests beside the build that they belong to."""

    usual: Callable[[str], float | None] = lambda _: None
    """Returns the seconds that a request of a subject usually takes; None where that is unknown."""
    subscribed: Mapping[str, bool] = {}
    """Whether anybody is seen to subscribe to a subject now; without those of which that is unknown."""


def command(verb: str, build: str, component: str, *flags: str) -> str:
    """Return a command of an operator about a component, for a shell."""
    return shlex.join(["scheduler", verb, build, component, *flags])
