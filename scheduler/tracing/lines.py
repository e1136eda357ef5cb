"""Ids of traces for lines of the log.

A line names its build, and some name a component. Lines are written all over the service, and by tasks that
serve many builds; so the ids are looked up by these names when a line is written, and nothing carries them
along. What is known here is the builds of this process that have a trace.
"""

from typing import Final, Protocol


class Traced(Protocol):
    """A build with a trace."""

    @property
    def trace_id(self) -> str:
        """Id of the trace."""

    def span_id(self, component: str | None) -> str:
        """Return the id of the span that a line is about: of the build, or the component's last attempt."""


TRACED: Final[dict[str, Traced]] = {}
"""Builds of this process that have a trace, by id."""
