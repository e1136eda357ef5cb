"""Results of peers, and their table."""

import textwrap
from collections.abc import Iterator, Sequence
from statistics import median

from attrs import frozen

_WIDTH = 80


@frozen
class Run:
    """Run of a graph, in seconds."""

    seconds: float
    """Time from its hand-over until all tasks are known to be done."""
    scheduler: float
    """CPU time of the process that decides which task is next."""
    everything: float
    """CPU time of all processes: brokers, workers and the one that hands over, too."""


@frozen
class Peer:
    """Runs of one peer, or why there are none."""

    name: str
    persisted: str
    """What is kept, and where."""
    size: int
    """Tasks of the graph."""
    runs: tuple[Run, ...] = ()
    missing: str = ""

    @property
    def rate(self) -> float:
        """Median of tasks a second."""
        return median(self.size / run.seconds for run in self.runs)

    @property
    def scheduler(self) -> float:
        """Median of CPU time of the scheduling process for a task, in seconds."""
        return median(run.scheduler for run in self.runs) / self.size

    @property
    def everything(self) -> float:
        """Median of CPU time of all processes for a task, in seconds."""
        return median(run.everything for run in self.runs) / self.size


def table(peers: Sequence[Peer]) -> str:
    """Format a line for each peer, and another for what it persists, in at most 80 characters."""
    return "\n".join(_lines(peers))


def _lines(peers: Sequence[Peer]) -> Iterator[str]:
    yield f"{'layered, tasks that do nothing':<34} tasks/s  CPU us a task: scheduling     all"
    for peer in peers:
        shown = f"{peer.name}, {peer.size:,}"
        if peer.missing:
            yield from textwrap.wrap(f"{shown}: missing: {peer.missing}", _WIDTH)
            continue
        yield f"{shown:<34} {peer.rate:>7,.0f} {peer.scheduler * 1e6:>26,.0f} {peer.everything * 1e6:>7,.0f}"
        yield f"  persisted: {peer.persisted}"
