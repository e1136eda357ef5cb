"""Builds that begin in the durable store."""

from scheduler.journal.events import (
    Accepted,
    Started,
)
from support.fakes import document


def accept(build: str = "b1", digest: str = "d1", size: int = 0) -> Accepted:
    return Accepted({**document("ab", build=build), "x": "x" * size}, digest, "k")


def start(name: str) -> Started:
    return Started(name, f"b1/{name}/1", b"{}")
