"""Transcripts: builds as Ernest's mapper makes them, with every message that follows written beside them.

Each file in ``tests/transcripts`` is one build. What it expects was written from the protocol (WIRE), not
taken from what the scheduler does: a reader can check it by eye. A line is a comment (``#``), a name for
something (``a = create("net", "a")``), or one message, with what it holds:

    in       <subject>  a build that is published, as Ernest does: without a reply subject
    row      <type> <status>  a build as another scheduler left it in the store, before ours starts
    start    our scheduler starts; where there is no such line it has started before everything else
    stop     our scheduler is killed
    refuses  <subject>  how the store answers the next such request, instead of carrying it out
    reply    <subject>  what a connector publishes
    after    so many seconds pass
    store    <subject>  what the store is asked to do
    request  <subject>  what a connector is asked to do
    report   <subject>  the build as it is published in the end, or as it is refused

The last three are what the scheduler has to publish after the message above them: all of it, and nothing
else. A line that begins with white space goes on with the one before it. What stands behind a subject is
JSON, in which names and the functions of `Words` may stand, and ``|`` changes the fields of an object.
"""

import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import trio
from trio.testing import wait_all_tasks_blocked

from scheduler.config import Settings
from scheduler.service import Service
from scheduler.stores.ernest import ErnestStore
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus

JSON = dict[str, Any]

FOLDER = Path(__file__).parents[1] / "transcripts"
EXPECTED = frozenset({"store", "request", "report"})
ACTIONS = ("create", "update", "delete", "get", "find", "none")
REQUESTS = tuple(f"*.{action}.*" for action in ACTIONS)


def edges(text: str) -> list[JSON]:
    """``edges("start > a > b > end, a > c")``: an edge for each ``>``, as the mapper writes them."""
    found = []
    for path in text.split(","):
        names = [name.strip() for name in path.split(">")]
        found += [
            {"source": source, "destination": destination, "length": 1}
            for source, destination in pairwise(names)
        ]
    return found


def ref(name: str, field: str) -> str:
    """A reference, as the mapper writes it."""
    return f'$(components.#[_component_id="{name}"].{field})'


PROVIDER = ref("credentials::c", "_provider")


def component(action: str, kind: str, name: str, /, **fields: Any) -> JSON:
    """A component, as the mapper writes it."""
    return {
        "_component_id": f"{kind}::{name}",
        "_component": kind,
        "_action": action,
        "_provider": PROVIDER,
        "_state": "waiting",
        "name": name,
        "service": "",
        **fields,
    }


class Containing(str):
    """Any text in which this one stands: where the protocol leaves the words open."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, str) and str(self) in other

    def __hash__(self) -> int:
        return hash(str(self))


class Words(dict[str, Any]):
    """The names of one transcript: those that it gives itself, and these."""

    def __init__(self) -> None:
        super().__init__(true=True, false=False, null=None, __builtins__={})
        self["B"] = "m-1"
        self["P"] = PROVIDER
        self["credentials"] = {
            "_component_id": "credentials::c", "_component": "credentials", "_action": "none",
            "_provider": "fake", "_state": "waiting", "name": "c", "key": "K",
        }  # fmt: skip
        self["head"] = {
            "id": "m-1", "name": "p/e", "user_id": 1, "username": "u", "action": "", "options": None,
        }  # fmt: skip
        self["edges"], self["ref"] = edges, ref
        for action in ACTIONS:
            self[action] = self._of(action)
        # How a component stands in the store, a request, or a reply; `fields` are other than submitted.
        self["running"] = self._in("running")
        self["waiting"] = self._in("waiting")
        self["sent"] = self._in("running", "fake")
        self["done"] = self._in("completed", "fake")
        self["failed"] = self._in("errored", "fake")
        self["containing"] = Containing
        self["without"] = lambda one, *keys: {key: value for key, value in one.items() if key not in keys}

    @staticmethod
    def _of(action: str) -> Callable[..., JSON]:
        return lambda kind, name, /, **fields: component(action, kind, name, **fields)

    def _in(self, state: str, provider: str | None = None) -> Callable[..., JSON]:
        def change(one: JSON, /, **fields: Any) -> JSON:
            rendered = {} if provider is None else {"_provider": provider}
            return {**one, **rendered, "_state": state, "service": self["B"], **fields}

        return change


class Line(NamedTuple):
    """One message."""

    number: int
    word: str
    subject: str
    body: Any

    def __str__(self) -> str:
        return f"{self.word} {self.subject} {json.dumps(self.body)}"


def check(heard: list[Line], expected: list[Line], where: str) -> None:
    """Check that the messages are those of the transcript, in that order."""
    assert [line[1:] for line in heard] == [line[1:] for line in expected], where


def word_for(subject: str) -> str:
    """Return the line of a message in a transcript; empty if a transcript does not contain it."""
    parts = subject.split(".")
    if parts[0] == "build" and parts[1] in {"set", "del"}:
        return "store"
    if parts[0] in {"build", "service"}:
        return "report" if parts[-1] in {"done", "error"} else ""
    return "request" if len(parts) == 3 and parts[1] in ACTIONS else ""


def read(path: Path) -> Iterator[Line]:
    """The messages of a transcript."""
    words = Words()
    for number, text in _lines(path.read_text(encoding="utf-8")):
        first, _, rest = text.partition(" ")
        if rest.lstrip().startswith("=") and first.isidentifier():
            words[first] = eval(rest.lstrip()[1:].strip(), words)
            continue
        subject = ""
        if first not in {"after", "start", "stop"}:
            count = 2 if first == "row" else 1
            *names, rest = rest.split(maxsplit=count)
            subject = " ".join(names)
        yield Line(number, first, subject, eval(rest, words) if rest.strip() else None)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    joined: list[tuple[int, str]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        if line[0].isspace():
            before, start = joined.pop()
            joined.append((before, f"{start} {line.strip()}"))
        else:
            joined.append((number, line.rstrip()))
    yield from joined


class Stage:
    """A scheduler with the Ernest store on a bus in memory, and what it says."""

    def __init__(self) -> None:
        self.bus = FakeBus()
        self.store = ServiceStore()
        self._told = 0

    async def open(self, nursery: trio.Nursery) -> None:
        """Set everything up but our scheduler, which runs in ``nursery``."""
        self._nursery = nursery
        await self.store.attach(self.bus)
        for subject in REQUESTS:
            # Somebody takes the requests, and answers when the transcript says so.
            await self.bus.subscribe(subject, lambda _message: None)

    async def start(self) -> None:
        """Our scheduler starts."""
        await self._nursery.start(self._serve)
        await wait_all_tasks_blocked()

    def stop(self) -> None:
        """It is killed: nothing is said any more, and nothing heard."""
        self._scheduler.cancel()
        kept = {"build.>", self.bus.inbox.subject, *REQUESTS}
        self.bus.interests = {sid: one for sid, one in self.bus.interests.items() if one.subject in kept}

    async def _serve(self, task_status: trio.TaskStatus[None]) -> None:
        service = Service(Settings(store="ernest"), self.bus, ErnestStore(self.bus))
        with trio.CancelScope() as self._scheduler:
            async with trio.open_nursery() as nursery:
                await nursery.start(service.run)
                task_status.started()

    async def play(self, line: Line) -> None:
        """Carry out a step of the transcript on the scheduler."""
        match line.word:
            case "start":
                await self.start()
            case "stop":
                self.stop()
            case "row":
                kind, status = line.subject.split()
                body = {"id": line.body["id"], "type": kind, "status": status, "mapping": line.body}
                self.store.handle("build.set", json.dumps(body).encode())
            case "refuses":
                self.store.script(line.subject, json.dumps(line.body).encode())
            case "after":
                await trio.sleep(line.body)
            case "in" | "reply":
                self.bus.deliver(line.subject, json.dumps(line.body).encode())
            case _:
                raise AssertionError(f"line {line.number}: {line.word}?")
        await wait_all_tasks_blocked()

    def heard(self) -> list[Line]:
        """Return the messages of the scheduler since the last call."""
        new, self._told = self.bus.published[self._told :], len(self.bus.published)
        return [
            Line(0, word, one.subject, json.loads(one.data)) for one in new if (word := word_for(one.subject))
        ]
