"""The ledger of a build: its components and changes as they stand (WIRE: "What a completion changes").

The plan decides when a change settles. The ledger holds the effect of that on the change, on the components
that exist, and on the values that later components can refer to. Methods that make an event change nothing;
only `complete`, `keep` and `reopen` do.
"""

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from scheduler.definition.graph import Graph, Vertex
from scheduler.definition.keys import from_connector, without_mistakable
from scheduler.definition.limits import Limits
from scheduler.definition.model import PSEUDO_IDS, UNSENT, Action, Build, State
from scheduler.definition.scope import Due, Returned, Submitted, elements_of
from scheduler.definition.strictjson import Raw
from scheduler.journal.events import Settled
from scheduler.plan.outcome import Outcome, cut, error_text, failure

_WITHOUT_OUTPUT = frozenset({Action.NONE, Action.DELETE})
"""Actions of changes whose outcome others cannot refer to."""
_UNUSUAL = frozenset({*UNSENT, Action.DELETE, Action.FIND})
"""Actions of changes that do not leave the one component that they are about."""


class Ledger:
    """Components and changes of one build.

    Args:
        build: the build as it was submitted.
        graph: its dependencies.
        limits: bounds on texts and ids that connectors return.
    """

    def __init__(self, build: Build, graph: Graph, limits: Limits) -> None:
        self.existing: dict[str, Mapping[str, Any]] = {
            component.id: component.fields for component in build.components
        }
        """Components that exist, by id."""
        self.final: dict[Vertex, Mapping[str, Any]] = {}
        """Changes as they are kept, of those that settled in this process."""
        self._build = build
        self._limits = limits
        self._returned = Returned(Submitted(build), graph)

    def scope(self, vertex: Vertex) -> Due:
        """Return the values that the references of a change can see now."""
        return Due(self._returned, vertex)

    def shown(self, vertex: Vertex, state: State) -> Mapping[str, Any] | Raw:
        """Return a change as it is reported while it is in ``state``."""
        final = self.final.get(vertex)
        if final is not None:
            return final
        change = self._build.changes[vertex]
        return Raw(change.raw) if change.state is state else {**change.fields, "_state": state.value}

    def completion(self, vertex: Vertex, body: Mapping[str, Any]) -> Settled:
        """Return the event of a completed change; ``body`` is kept."""
        change = self._build.changes[vertex]
        action = change.action
        if action not in _UNUSUAL:
            return Settled(change.id, body, (body,))
        if action in UNSENT:
            return Settled(change.id, body)
        if action is Action.DELETE:
            return Settled(change.id, body, deletes=(body,))
        elements = {
            identity: {**without_mistakable(element), "service": self._build.id}
            for identity, element in elements_of(body)
        }
        return Settled(change.id, body, tuple(elements.values()))

    def failure(self, vertex: Vertex, error: str, body: Mapping[str, Any] | None = None) -> Settled:
        """Return the event of an errored change; without a ``body`` it is kept as submitted."""
        change = self._build.changes[vertex]
        kept = change.fields if body is None else body
        return Settled(change.id, {**kept, "_state": "errored", "error": error})

    def late_success(self, vertex: Vertex, adoptable: Mapping[str, Any]) -> Settled:
        """Return the event of a success that came after the failure; it is kept beside the error."""
        change = self._build.changes[vertex]
        return Settled(change.id, {**self.final[vertex], "adoptable": adoptable})

    def complete(self, vertex: Vertex, settled: Settled) -> None:
        """Record a completed change, by the event of `completion`."""
        self.final[vertex] = settled.body
        for document in settled.upserts:
            self.existing[document["_component_id"]] = document
        for document in settled.deletes:
            self.existing.pop(document["_component_id"], None)
        action = self._build.changes[vertex].action
        if action is Action.FIND:
            for document in settled.upserts:
                self._returned.found.setdefault(document["_component_id"], {})[vertex] = document
        if action not in _WITHOUT_OUTPUT:
            self._returned.add(vertex, settled.body)

    def note_packed(self, vertex: Vertex) -> None:
        """Note that the output of a change is large, and may be packed (`strictjson.packed`)."""
        self._returned.packed.add(vertex)

    def reopen(self, vertex: Vertex) -> None:
        """Forget the failure of a change that is to be done after all."""
        self.final.pop(vertex, None)

    def kept(self, vertex: Vertex) -> Mapping[str, Any]:
        """Return a change as it is kept: with its outcome, or else as it was submitted."""
        final = self.final.get(vertex)
        return self._build.changes[vertex].fields if final is None else final

    def error(self, vertex: Vertex) -> str | None:
        """Return the error of a failed change; None where there is none."""
        found = self.kept(vertex).get("error")
        return None if found is None else error_text(found, self._limits)

    def keep(self, vertex: Vertex, body: Mapping[str, Any]) -> None:
        """Record an errored change as an earlier process kept it."""
        self.final[vertex] = body

    def catch_up(self, vertex: Vertex) -> Settled | None:
        """Complete what an earlier process may have left undone after it persisted a completed change.

        Returns:
            An event with what is missing in the store; None where nothing is.
        """
        settled = self.completion(vertex, self._build.changes[vertex].fields)
        upserts = tuple(
            document
            for document in settled.upserts
            if self.existing.get(document["_component_id"]) != document
        )
        deletes = tuple(
            document for document in settled.deletes if document["_component_id"] in self.existing
        )
        self.complete(vertex, settled)
        return replace(settled, upserts=upserts, deletes=deletes) if upserts or deletes else None

    def identified(
        self, vertex: Vertex, body: Mapping[str, Any], state: State, *, type_: str, provider: str
    ) -> dict[str, Any]:
        """Return a reply with our own keys, as it is kept: connectors with typed structs drop unknown fields.

        Keys that differ from ours only in case are left out, so that a report can be submitted again.
        """
        change = self._build.changes[vertex]
        kept = {**from_connector(body), **change.settings}
        # One by one: written into the literal they would make a dictionary of their own first.
        kept["_component_id"] = change.id
        kept["_component"] = type_
        kept["_action"] = change.action._value_
        kept["_provider"] = provider
        kept["_state"] = state._value_
        kept["service"] = self._build.id
        if state is State.COMPLETED and isinstance(kept.get("error"), str):
            kept["error"] = cut(kept["error"], self._limits.max_error_bytes)
        return kept

    def checked_find(self, body: Mapping[str, Any]) -> Outcome:
        """Return the outcome of a ``find``: a failure where the found components cannot be kept."""
        elements = body.get("components")
        if elements is not None and not isinstance(elements, list):
            return failure("the reply's components are not a list")
        for position, element in enumerate(elements or ()):
            identity = element.get("_component_id") if isinstance(element, dict) else None
            if not isinstance(identity, str) or not identity:
                return failure(f"the reply's components[{position}] is no component with a _component_id")
            if identity in PSEUDO_IDS:
                return failure(f"the reply's components[{position}]._component_id {identity!r} is reserved")
            if len(identity.encode()) > self._limits.max_id_bytes:
                return failure(
                    f"the reply's components[{position}]._component_id is longer than "
                    f"max_id_bytes {self._limits.max_id_bytes}"
                )
        return Outcome(True, dict(body))
