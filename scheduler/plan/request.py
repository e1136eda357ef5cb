"""A request for one component, as a plan hands it to the walk."""

from scheduler.definition.graph import Vertex
from scheduler.definition.rules import Retry
from scheduler.journal.events import Started
from scheduler.runtime.values import Value
from scheduler.tracing.context import TraceContext


class Request(Value, frozen=True):
    """The request for one component."""

    UNSHOWN = frozenset({"body", "started"})

    vertex: Vertex
    build: str
    component: str
    attempt: str
    """``<build>/<component>/<n>``, and the mark of the build's acceptance if it has one: a key by which a
    connector can recognise a request that it had before."""
    subject: str
    type: str
    provider: str
    timeout: float | None
    """Timeout in seconds, where the component names one."""
    retry: Retry
    """Rule for what follows a failure."""
    body: bytes
    started: Started
    """Event to be persisted before the request leaves."""
    mark: str = ""
    """End of the ids of all attempts of the build: empty, or ``/`` and the mark of its acceptance."""
    heartbeat: float | None = None
    """Seconds within which the connector has to beat again, where the component asks for that."""
    trace: TraceContext | None = None
    """Context of the attempt's span; None where the build has no trace."""

    @property
    def key(self) -> str:
        """``<build>/<component>`` and the mark: the same for all attempts, and for all runs of a build."""
        return f"{self.build}/{self.component}{self.mark}"
