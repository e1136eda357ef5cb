"""Console: what the page may use of the service in this process, while that is there."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import trio
from attrs import define, field

from scheduler.bus import Bus
from scheduler.control.endpoint import Control
from scheduler.stores.jetstream import JetStreamStore


@define(eq=False)
class Console:
    """Access to one service."""

    bus: Bus
    """Connection on which events of builds are heard."""
    instance: str
    """Name of this instance."""
    stopping: trio.Event = field(factory=trio.Event)
    """Event set when the service is asked to stop."""
    page: str = ""
    """Address of the page, which discovery tells; empty where there is none."""
    lists_ended: bool = True
    """Whether builds that have ended are listed: their reports are in JetStream."""
    control: Control | None = None
    """Answers questions and commands; None while the service starts, stands by or has ended."""
    questions: set[trio.CancelScope] = field(factory=set)
    """Scopes of the questions that are being answered: what would answer them ends with the service."""

    def described(self, facts: Mapping[str, str]) -> Mapping[str, str]:
        """Return facts about the process for service discovery, with the page's address; notes its store."""
        self.lists_ended = facts.get("store") == JetStreamStore.name
        return {**facts, "web": self.page} if self.page else facts

    @contextmanager
    def answering(self, control: Control) -> Iterator[None]:
        """Let questions be answered until the context is left."""
        self.control = control
        try:
            yield
        finally:
            self.control = None
            for scope in self.questions:
                scope.cancel()
