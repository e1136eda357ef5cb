"""Random builds, replies and orders, for properties."""

import random
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen, mutable
from hypothesis import strategies as st

from scheduler.definition.strictjson import decode
from scheduler.journal.events import Settled
from scheduler.plan import Request
from support.builds import Document, Run, build, change

ACTIONS = ["create", "create", "update", "delete", "get", "find", "none"]

STATES = ["waiting", "waiting", "waiting", "running", "errored", "completed", ""]


@frozen
class Case:
    """A build, what becomes of each of its components, and who comes next at every step."""

    document: Document
    fails: Mapping[str, bool]
    order: list[int] = field(repr=False)
    halt_at: int | None = None


@st.composite
def cases(draw: st.DrawFn) -> Case:
    size = draw(st.integers(0, 9))
    names = [f"c{number}" for number in range(size)]
    rank = draw(st.permutations(range(size)))
    changes, components, edges = [], [], []
    for number, name in enumerate(names):
        earlier = [names[other] for other in range(size) if rank[other] < rank[number]]
        fields: dict[str, Any] = {"name": name, "_state": draw(st.sampled_from(STATES))}
        needed = draw(st.lists(st.sampled_from(earlier), max_size=3)) if earlier else []
        for kind, before in enumerate(needed):
            form = draw(st.integers(0, 2))
            if form == 0:
                edges.append((before, name))
            elif form == 1:
                fields[f"r{kind}"] = f'$(components.#[_component_id="{before}"].name)'
            else:
                fields[f"r{kind}"] = [f'{{{{ components["{before}"].name }}}}']
        one = change(name, draw(st.sampled_from(ACTIONS)), **fields)
        if one["_action"] in {"update", "delete"} and draw(st.booleans()):
            components.append(change(name, name=f"old {name}"))
        changes.append(one)
        edges += draw(st.sampled_from([[], [], [("start", name)], [(name, "end")]]))
    fails = {name: draw(st.integers(0, 5)) == 0 for name in names}
    order = random.Random(draw(st.integers(0, 10**6))).choices(range(10**6), k=60)
    halt_at = draw(st.none() | st.integers(0, 20))
    document = build(*draw(st.permutations(changes)), components=components, edges=edges)
    return Case(document, fails, order, halt_at)


def depends_on(document: Document) -> dict[str, set[str]]:
    """By scanning: what must complete before each change, said by an edge or implied by a reference."""
    changes = {one["_component_id"]: one for one in document["changes"]}
    existing = {one["_component_id"] for one in document["components"]}
    before: dict[str, set[str]] = {name: set() for name in changes}
    for edge in document["edges"]:
        if edge["source"] in changes and edge["destination"] in changes:
            before[edge["destination"]].add(edge["source"])
    for name, one in changes.items():
        for other in changes:
            supplied = changes[other]["_action"] != "delete" and changes[other]["_state"] != "completed"
            if (
                one["_state"] != "completed"
                and supplied
                and other not in existing
                and f'"{other}"' in repr([value for key, value in one.items() if key[0] == "r"])
            ):
                before[name].add(other)
    return before


@mutable
class Watch:
    """Drives a plan, and holds every step against the rules."""

    case: Case
    run: Run = field(init=False)
    before: dict[str, set[str]] = field(init=False)
    sent: list[str] = field(factory=list)
    completed: set[str] = field(factory=set)
    failed: list[str] = field(factory=list)
    flying: list[str] = field(factory=list)
    halted: bool = False

    def __attrs_post_init__(self) -> None:
        self.run = Run(self.case.document)
        self.before = depends_on(self.case.document)
        self.completed = {
            one["_component_id"] for one in self.case.document["changes"] if one["_state"] == "completed"
        }

    def ready(self) -> list[str]:
        """List the components that may start, as seen by a driver that only watches outcomes."""
        settled = self.completed.union(self.failed, self.flying)
        return [
            name for name, before in self.before.items() if name not in settled and before <= self.completed
        ]

    def step(self, choice: int) -> bool:
        """Start a component, or deliver a reply; return False if nothing more can happen."""
        possible = [*(("begin", name) for name in self.ready()), *(("end", name) for name in self.flying)]
        if self.halted:
            assert all(self.run.begin(name) is None for kind, name in possible if kind == "begin")
            possible = [one for one in possible if one[0] == "end"]
        if not possible:
            return False
        kind, name = possible[choice % len(possible)]
        if kind == "end":
            self.end(name)
        else:
            self.begin(name, choice)
        return True

    def begin(self, name: str, choice: int) -> None:
        action = self.run.plan.build.changes[self.run.vertex(name)].action
        step = self.run.begin(name)
        assert step is not None
        assert self.before[name] <= self.completed
        assert name not in self.sent
        if isinstance(step, Settled):
            assert action == "none"
            assert step.body["_state"] == "completed"
            self.completed.add(name)
            return
        assert isinstance(step, Request)
        assert action != "none"
        if choice % 7 == 0:
            withdrawn = self.run.plan.withdraw(step.vertex)
            assert withdrawn.body["_state"] == "waiting"
            step = self.run.begin(name)
            assert isinstance(step, Request)
        self.check_body(name, decode(step.body))
        self.run.plan.sent(step.vertex)
        self.sent.append(name)
        self.flying.append(name)

    def check_body(self, name: str, body: Document) -> None:
        """References are filled: by what a dependency returned, or by what stands there as submitted."""
        assert (body["_state"], body["service"]) == ("running", "b-1")
        for key, text in body.items():
            if key[0] == "r":
                value = text[0] if isinstance(text, list) else text
                assert value.removeprefix("new ").removeprefix("old ") in self.before, (name, value)

    def end(self, name: str) -> None:
        self.flying.remove(name)
        if self.case.fails[name]:
            assert self.run.reply(name, "error", error=f"{name} broke").body["_state"] == "errored"
            self.failed.append(name)
            self.halted = True
        else:
            fields: Document = {"name": f"new {name}"}
            if self.run.plan.build.changes[self.run.vertex(name)].action == "find":
                fields["components"] = [{"_component_id": f"found by {name}"}]
            assert self.run.reply(name, **fields).body["_state"] == "completed"
            self.completed.add(name)
