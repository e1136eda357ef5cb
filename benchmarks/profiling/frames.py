"""Assigns samples of stacks to rows of a table.

The innermost function that has a row decides: what it calls in libraries, and in modules of ours that serve
everybody, is part of it. A new part of the scheduler without a row is shown under `ELSE`, by its name.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from attrs import frozen

INTAKE: Final = "intake: reading, checking, answering"
PLANNING: Final = "plan, ledger and events"
WALK: Final = "the walk's own code"
SLOTS: Final = "slots and limits"
RENDERING: Final = "rendering"
SEND: Final = "send: the call, its timeout, the message"
WRITE: Final = "writing to the socket"
READ: Final = "nats-py and reading from the socket"
REPLIES: Final = "routing and decoding replies"
LOOP: Final = "the asyncio loop and its bridge"
TRIO: Final = "Trio's scheduler"
WAITS: Final = "Trio's waits: events, channels, scopes"
STORE: Final = "store and log"
REPORT: Final = "report"
FEED: Final = "feed of events"
GARBAGE: Final = "full garbage collections"
ELSE: Final = "else"
TITLES: Final = (
    INTAKE, PLANNING, WALK, SLOTS, RENDERING, SEND, WRITE, READ, REPLIES, LOOP, TRIO, WAITS, STORE, REPORT,
    FEED, GARBAGE, ELSE,
)  # fmt: skip
"""Rows in the order of the table."""

_CALLER: Final = ""
"""Part of whatever called it."""
ROWS: Final[Mapping[str, str]] = {
    "scheduler.notifying": ELSE,
    "scheduler.supervision": ELSE,
    "scheduler.supervision.admission": INTAKE,
    "scheduler.supervision.intake": INTAKE,
    "scheduler.supervision.reader": INTAKE,
    "scheduler.supervision.reception": INTAKE,
    "scheduler.supervision.supervisor": INTAKE,
    "scheduler.supervision.runner": WALK,
    "scheduler.supervision.planner": PLANNING,
    "scheduler.supervision.reporting": REPORT,
    "scheduler.supervision.feed": FEED,
    "scheduler.supervision.spans": FEED,
    "scheduler.definition": _CALLER,
    "scheduler.definition.scope": RENDERING,
    "scheduler.definition.template": RENDERING,
    "scheduler.plan": PLANNING,
    "scheduler.plan.report": REPORT,
    "scheduler.plan.summary": REPORT,
    "scheduler.journal": PLANNING,
    "scheduler.journal.records": STORE,
    "scheduler.journal.timings": FEED,
    "scheduler.forecast": FEED,
    "scheduler.tracing": FEED,
    "scheduler.walk": WALK,
    "scheduler.walk.recording": STORE,
    "scheduler.walk.rendered_ahead": RENDERING,
    "scheduler.walk.rendering": RENDERING,
    "scheduler.walk.granted": SLOTS,
    "scheduler.walk.lineup": SLOTS,
    "scheduler.walk.slot_queue": SLOTS,
    "scheduler.limiter": SLOTS,
    "scheduler.dispatch": REPLIES,
    "scheduler.dispatch.call": SEND,
    "scheduler.dispatch.channels": SEND,
    "scheduler.dispatch.client": SEND,
    "scheduler.dispatch.senders": SEND,
    "scheduler.dispatch.sending": SEND,
    "scheduler.dispatch.slots": SLOTS,
    "scheduler.dispatch.timers": SEND,
    "scheduler.dispatch.tracing": SEND,
    "scheduler.bus": READ,
    "scheduler.bus.endpoint": SEND,
    "scheduler.bus.subjects": SEND,
    "scheduler.bus.outbox": WRITE,
    "scheduler.bus.guards:Connection.pump": WRITE,
    "scheduler.bus.guards:Connection._batch": WRITE,
    "scheduler.bus.guards:Connection._ask": WRITE,
    "scheduler.bus.stream:ByteStream.write": WRITE,
    "scheduler.bus.stream:ByteStream.writelines": WRITE,
    "scheduler.bus.stream:ByteStream.drain": WRITE,
    "scheduler.stores": STORE,
    "scheduler.jetstream": STORE,
    "scheduler.recovery": STORE,
    "scheduler.fleet": STORE,
    "scheduler.control": ELSE,
    # Counted where it happens, and shown to whoever asks.
    "scheduler.metrics": _CALLER,
    "scheduler.web": ELSE,
    "scheduler.diagnosis": ELSE,
    "scheduler.runtime": _CALLER,
    "scheduler.runtime.watchdog": ELSE,
    "scheduler.config": _CALLER,
    "scheduler.errors": _CALLER,
    "scheduler.text": _CALLER,
    "scheduler.log": _CALLER,
    # Where everything begins.
    "scheduler.__main__": _CALLER,
    "scheduler.cli": _CALLER,
    "scheduler.commands": _CALLER,
    "scheduler.process": _CALLER,
    "scheduler.service": _CALLER,
    "scheduler": ELSE,
    "nats": READ,
    "asyncio": LOOP,
    "asyncio.selector_events:_SelectorSocketTransport.write": WRITE,
    "asyncio.selector_events:_SelectorSocketTransport._write_ready": WRITE,
    "asyncio.selector_events:_SelectorSocketTransport._read_ready": READ,
    "trio_asyncio": LOOP,
    "trio": WAITS,
    "trio._core": TRIO,
    "trio._core._generated_run": WAITS,
    "trio._core._parking_lot": WAITS,
    "trio._core._run:Cancel": WAITS,
    "trio._core._run:Nursery": WAITS,
    "trio._core._run:checkpoint": WAITS,
    "trio._core._run:current_t": WAITS,
    "trio._core._traps": WAITS,
    "trio._threads": TRIO,
}
"""Rows by the beginning of ``module:function``; the longest that fits counts."""
_ANYWHERE: Final[Mapping[str, str]] = {
    "scheduler.definition.validation": INTAKE,
    "scheduler.runtime.collector": GARBAGE,
}
"""Rows of samples with such a function anywhere: everything that it calls is part of it."""

_FRAME: Final = re.compile(r"(?P<function>.*) \((?P<file>.*?)(?::\d+)?\)")
_LIBRARY: Final = re.compile(r".*/(?:site-packages|lib/python\d+\.\d+)/")


@frozen
class Samples:
    """Samples by row, and those of `ELSE` by function."""

    counts: Mapping[str, int]
    """Samples of each row of `TITLES`."""
    others: Mapping[str, int]

    @property
    def total(self) -> int:
        """All of them."""
        return sum(self.counts.values())


def assign(lines: Iterable[str], root: Path) -> Samples:
    """Assign stacks to rows.

    Args:
        lines: stacks with their number of samples, outermost function first: ``f (a.py:1);g (b.py:2) 17``.
        root: folder that the scheduler's package is in.
    """
    counts: Counter[str] = Counter(dict.fromkeys(TITLES, 0))
    others: Counter[str] = Counter()
    for line in lines:
        stack, _, count = line.rpartition(" ")
        functions = [found for frame in stack.split(";") if (found := _function(frame, root))]
        row = _row(functions)
        counts[row] += int(count)
        if row == ELSE:
            others[_named(functions)] += int(count)
    return Samples(counts, others)


def _function(frame: str, root: Path) -> str:
    """Return the name of a frame as ``module:function``; nothing where it is of no module."""
    parts = _FRAME.fullmatch(frame)
    if parts is None or not parts["file"].endswith(".py"):
        return ""
    # An environment may be within the root, and the root within an environment.
    file = parts["file"].removeprefix(f"{root}/")
    if file == parts["file"] or "/site-packages/" in file:
        file = _LIBRARY.sub("", file)
    module = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return f"{module}:{parts['function']}"


def _row(functions: list[str]) -> str:
    for prefix, row in _ANYWHERE.items():
        if any(_begins(function, prefix) for function in functions):
            return row
    for function in reversed(functions):
        if row := _own(function):
            return row
    return ELSE


def _own(function: str) -> str:
    """Return the row of a function, or nothing if its caller decides."""
    fitting = [prefix for prefix in ROWS if _begins(function, prefix)]
    return ROWS[max(fitting, key=len)] if fitting else _CALLER


def _begins(function: str, prefix: str) -> bool:
    """Whether a prefix is that of a function: whole modules, or the beginning of a function's name."""
    return function.startswith(prefix) and (":" in prefix or function[len(prefix)] in ".:")


def _named(functions: list[str]) -> str:
    """Name what is shown of a stack without a row: the innermost function of ours, or of anybody."""
    ours = [function for function in functions if _begins(function, "scheduler")]
    return (ours or functions or ["no Python code"])[-1]
