"""The trace of one build: the ids of its spans.

All ids are derived, from the trace, the build, and what a span is about. So a process that takes a build over
tells of the same spans as the one before it, links lead to spans that another process has told of, and what
is known of a build that has ended makes the same trace again.
"""

from hashlib import blake2b
from typing import Final

from scheduler.runtime.values import Value
from scheduler.tracing.context import SAMPLED, TraceContext

_NO_SPAN: Final = "0" * 16
_APART: Final = "\x1f"
"""Separates the words that an id is derived from; no build id, mark or number has it."""


def derive(trace: str, *words: str) -> str:
    """Return the id of the span that these words are about: 16 hexadecimal digits, not all of them zero."""
    text = _APART.join((trace, *words)).encode(errors="replace")
    found = blake2b(text, digest_size=8).hexdigest()
    return found if found != _NO_SPAN else f"{1:016x}"


class BuildTrace(Value, frozen=True):
    """The place of a build in a trace."""

    trace: str
    """Id of the trace: 32 hexadecimal digits."""
    first: str
    """Id of the span of the first run: 16 hexadecimal digits."""
    parent: str = ""
    """Id of the span that the build hangs below; empty where it is the root of the trace."""
    flags: int = SAMPLED
    state: str = ""
    """Value of ``tracestate``; empty where there is none."""

    @classmethod
    def of(cls, context: TraceContext, build: str, mark: str) -> "BuildTrace":
        """Return the trace of a build whose context is known.

        Args:
            context: context that it was submitted with, or was kept with it (`context`).
            build: id of the build.
            mark: mark of its acceptance; empty where there is none.
        """
        first = derive(context.trace, build, mark)
        parent = "" if context.span == first else context.span
        return cls(context.trace, first, parent, context.flags, context.state)

    @classmethod
    def begun(cls, trace: str, build: str, mark: str) -> "BuildTrace":
        """Return a trace that begins with the build.

        Args:
            trace: id of the trace.
            build: id of the build.
            mark: mark of its acceptance; empty where there is none.
        """
        return cls(trace, derive(trace, build, mark))

    @property
    def sampled(self) -> bool:
        """Whether its spans are to be sent to a collector."""
        return bool(self.flags & SAMPLED)

    @property
    def context(self) -> TraceContext:
        """Context that is kept with the build; `of` makes the same trace of it.

        Where the build is the root, it names the build's own span.
        """
        return TraceContext(self.trace, self.parent or self.first, self.flags, self.state)

    def document(self) -> dict[str, str | bool]:
        """Return it as JSON for operators; what is empty is left out."""
        document = {"id": self.trace, "span": self.first, "parent": self.parent, "state": self.state}
        return {name: value for name, value in document.items() if value} | {"sampled": self.sampled}

    def run(self, number: int) -> str:
        """Return the id of the span of a run, from 1."""
        return self.first if number == 1 else derive(self.trace, self.first, "run", str(number))

    def attempt(self, component: str, number: int) -> str:
        """Return the id of the span of an attempt, from 1: their numbers go on in further runs."""
        return derive(self.trace, self.first, "attempt", component, str(number))

    def context_of(self, component: str, number: int) -> TraceContext:
        """Return the context for the request of an attempt."""
        return TraceContext(self.trace, self.attempt(component, number), self.flags, self.state)
