"""Trace: the steps of a simulated world in one order, by which the checker judges."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import trio


class Step(NamedTuple):
    """One thing that happened."""

    time: float
    """Trio's clock."""
    kind: str
    who: str = ""
    """The process, connector or stream it happened to."""
    build: str = ""
    component: str = ""
    detail: Any = None
    """Further details; their ``repr`` is part of the hash."""

    def __str__(self) -> str:
        words = [f"{self.time:9.4f}", f"{self.kind:<10}", self.who, self.build, self.component]
        return " ".join(word for word in words if word) + (
            "" if self.detail is None else f"  {self.detail!r:.600}"
        )


class Trace:
    """All steps so far."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.listeners: list[Callable[[Step], None]] = []
        """Are told of each step; they may not block."""

    def add(self, kind: str, who: str = "", build: str = "", component: str = "", detail: Any = None) -> None:
        """Note that something happens now."""
        step = Step(trio.current_time(), kind, who, build, component, detail)
        self.steps.append(step)
        for listener in list(self.listeners):
            listener(step)

    def digest(self) -> str:
        """Equal for equal traces."""
        state = hashlib.sha256()
        for step in self.steps:
            state.update(repr(step).encode())
        return state.hexdigest()

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))
