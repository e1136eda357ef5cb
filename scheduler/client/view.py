"""View of a build's progress: the news that it shows, and the protocol that displays implement."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from attrs import frozen


@frozen
class News:
    """Something that happened to a build and may be worth a line."""

    component: str
    """Id of the component; empty for the build as a whole."""
    state: str
    """State of the component; of a build its event: ``paused``, ``resumed``, ``retried``, ..."""
    took: float | None = None
    """Duration of the attempt, in seconds."""
    error: str = ""
    """Text of the error; of a build's event, further details."""
    attempt: int = 1
    retry_in: float | None = None
    event: Mapping[str, Any] | None = None
    """Event as published; None if the news is from a snapshot or report."""
    old: bool = False
    """Whether it happened before we started to follow."""


class View(Protocol):
    """Display of a build's progress."""

    def start(self) -> None:
        """Begin; the caller also calls ``stop``."""

    def update(self, news: Sequence[News], now: float) -> None:
        """Show the news and the time."""

    def note(self, text: str) -> None:
        """Show a remark on a line of its own."""

    def stop(self) -> None:
        """Leave the terminal as it was; idempotent."""

    def summary(self, now: float) -> None:
        """Show how the build ended, after ``stop``."""
