"""From bytes to a build that can be run: every problem it has, or the build with its graph and templates.

All of it is synchronous and made of short steps, so that it can run in a thread beside the event loop.
"""

import difflib
from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import pairwise
from typing import Any

from attrs import field, frozen

from scheduler.codec import Parsed, parse_build
from scheduler.errors import InvalidBuild, Problem, TemplateError
from scheduler.graph import Graph
from scheduler.limits import DEFAULT_LIMITS, Limits
from scheduler.model import PSEUDO_IDS, Action, Build
from scheduler.scope import Submitted, is_supplied
from scheduler.strictjson import encode_sorted
from scheduler.template import OnUnresolved, Template, Templates, compile_change

_LONGEST_PATH_SHOWN = 24
_MOST_SUGGESTIONS = 20


@frozen
class Prepared:
    """A build that was found valid, with everything its run needs."""

    build: Build
    document: Mapping[str, Any] = field(repr=False)
    """The whole build as submitted."""
    graph: Graph = field(repr=False)
    """With the implied edges."""
    templates: tuple[Template, ...] = field(repr=False)
    """One for each of the build's changes."""
    digest: bytes = field(repr=False)
    """Equal for equal content, whatever the order of keys and the white space."""


def read_build(
    data: bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    templates: Templates = Templates.ALL,
    unresolved: OnUnresolved = OnUnresolved.ERROR,
) -> Prepared:
    """Read and check a submitted build (WIRE: "Intake").

    Raises:
        InvalidBuild: with every problem that was found, each with its place.
    """
    parsed = parse_build(data, limits)
    check = _Check(parsed, limits)
    check.edges()
    compiled = check.templates(templates, unresolved)
    graph = check.graph(compiled)
    if check.problems:
        raise InvalidBuild("invalid", check.problems)
    return Prepared(parsed.build, parsed.document, graph, tuple(compiled), digest_of(parsed.document))


def digest_of(document: Mapping[str, Any]) -> bytes:
    """A fingerprint of a build's content: 16 bytes, piece by piece so that no step is long."""
    digest = blake2b(digest_size=16)
    for key in sorted(document):
        digest.update(encode_sorted(key))
        value = document[key]
        for part in value if isinstance(value, list) else [value]:
            digest.update(encode_sorted(part))
            digest.update(b",")
        digest.update(b";")
    return digest.digest()


class _Check:
    """The questions asked of a build as a whole; each adds to ``problems``."""

    def __init__(self, parsed: Parsed, limits: Limits) -> None:
        self.parsed = parsed
        self.build = parsed.build
        self.limits = limits
        self.problems = list(parsed.problems)
        self.scope = Submitted(parsed.build)
        # Ids of elements that are wrong otherwise count as known, so that one mistake is told once.
        self.known = {
            name
            for listed in ("components", "changes")
            for value in parsed.document.get(listed) or ()
            if isinstance(value, dict) and isinstance(name := value.get("_component_id"), str)
        }
        self.suggestions = _MOST_SUGGESTIONS

    def edges(self) -> None:
        """Both ends of an edge are known, and are two."""
        known = self.known | PSEUDO_IDS
        for edge, position in zip(self.build.edges, self.parsed.edge_places, strict=True):
            for end, name in ((edge.source, "source"), (edge.destination, "destination")):
                if end not in known:
                    text = f"there is no {end[:600]!r}{self.suggest(end)}"
                    self.problems.append(Problem(f"edges[{position}].{name}", text))
            if edge.source == edge.destination and edge.source not in PSEUDO_IDS:
                text = f"{edge.source[:600]!r} cannot depend on itself"
                self.problems.append(Problem(f"edges[{position}]", text))

    def suggest(self, wrong: str) -> str:
        """``; did you mean ...?``, for the first few: comparing with 10,000 ids takes its time."""
        if not self.suggestions or len(wrong) > 200:
            return ""
        self.suggestions -= 1
        near = [name for name in self.known if abs(len(name) - len(wrong)) <= 4]
        close = difflib.get_close_matches(wrong, near[:5_000], n=1, cutoff=0.75)
        return f"; did you mean {close[0]!r}?" if close else ""

    def templates(self, mode: Templates, unresolved: OnUnresolved) -> list[Template]:
        """Every reference and expression can be read, within the limits."""
        compiled: list[Template] = []
        nodes = 0
        for change in self.build.changes:
            try:
                template = compile_change(
                    change, self.build.id, templates=mode, unresolved=unresolved, limits=self.limits
                )
            except TemplateError as error:
                found = getattr(error, "problems", None) or [Problem(change.id, str(error))]
                self.problems.extend(found)
                continue
            nodes += template.nodes
            compiled.append(template)
        if nodes > self.limits.max_template_nodes:
            limit = f"max_template_nodes is {self.limits.max_template_nodes}"
            self.problems.append(Problem("changes", f"{nodes} template nodes in all; {limit}"))
        return compiled

    def graph(self, compiled: list[Template]) -> Graph:
        """There is no cycle, and nothing refers to nothing."""
        changes = self.build.changes
        ids = list(dict.fromkeys(change.id for change in changes))
        pairs = ((edge.source, edge.destination) for edge in self.build.edges)
        edges = [pair for pair in pairs if pair[0] != pair[1]]
        explicit = Graph.of(ids, edges)
        self.cycles(explicit, set())
        if len(compiled) != len(changes) or len(ids) != len(changes):
            return explicit
        implied = set(self.implied(compiled)) - set(edges)
        graph = Graph.of(ids, [*edges, *implied]) if implied else explicit
        if implied:
            self.cycles(graph, implied)
        finders = self.behind_a_find(graph)
        for vertex, template in enumerate(compiled):
            if not template.constant:
                self.problems.extend(template.check(self.scope, self.supplied, open_ended=vertex in finders))
        return graph

    def implied(self, compiled: list[Template]) -> Iterator[tuple[str, str]]:
        """Edges that references imply: to a change that only this build can supply."""
        for change, template in zip(self.build.changes, compiled, strict=True):
            if template.constant:
                continue
            for needed in template.needs(self.scope):
                source = self.scope.changes.get(needed)
                if (
                    source is not None
                    and needed != change.id
                    and needed not in self.scope.existing
                    and is_supplied(source)
                ):
                    yield needed, change.id

    def supplied(self, id: str) -> bool:  # noqa: A002 - as in the port
        """Whether what is known under this id can change before it is looked at."""
        change = self.scope.changes.get(id)
        return change is not None and is_supplied(change)

    def behind_a_find(self, graph: Graph) -> set[int]:
        """The changes that have a ``find`` among their dependencies, direct or not."""
        todo = [
            dependent
            for vertex, change in enumerate(self.build.changes)
            if change.action is Action.FIND
            for dependent in graph.dependents[vertex]
        ]
        found: set[int] = set()
        while todo:
            vertex = todo.pop()
            if vertex not in found:
                found.add(vertex)
                todo.extend(graph.dependents[vertex])
        return found

    def cycles(self, graph: Graph, implied: set[tuple[str, str]]) -> None:
        """Name each cycle as a path; with ``implied``, only those that a reference closes."""
        for cycle in graph.cycles():
            names = [graph.ids[vertex] for vertex in cycle]
            by_reference = [pair for pair in pairwise(names) if pair in implied]
            if implied and not by_reference:
                continue
            text = f"cycle: {_path(names)}"
            if by_reference:
                source, destination = by_reference[0]
                text += f" ({destination} refers to {source}, which therefore has to complete first)"
            self.problems.append(Problem("edges", text))


def _path(names: list[str]) -> str:
    if len(names) > _LONGEST_PATH_SHOWN:
        half = _LONGEST_PATH_SHOWN // 2
        names = [*names[:half], f"... {len(names) - 2 * half} more ...", *names[-half:]]
    return " -> ".join(names)
