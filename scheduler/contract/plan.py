"""Plan of a check: what a connector is asked."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import frozen

_ALONE: Final = 4
"""Requests that are sent one by one: the first, twice again, and the one that is watched."""


@frozen
class Plan:
    """Plan of a check: what is asked, and for how long answers are awaited."""

    fields: Mapping[str, Any]
    slow: Mapping[str, Any] | None = None
    """Fields of a component that takes long; None: what needs such a one is skipped."""
    timeout: float = 60.0
    """Seconds that an answer may take."""
    within: float = 5.0
    """Seconds between two heartbeats."""
    together: int = 8
    """Requests that are sent at once; 0: none."""
    hostile: bool = False
    """Whether to send what cannot be read."""

    @property
    def most(self) -> int:
        """Number of requests that a connector may carry out."""
        return _ALONE + self.together
