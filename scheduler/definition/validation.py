"""Validation: from bytes to a build that can be run; all its problems, or the build with graph and templates.

Everything is synchronous, in short steps, so that it can run in a thread beside the event loop. One file on
purpose: the checks share what was read, and each adds to one list of problems.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise, repeat

from attrs import evolve, field, frozen
from msgspec.structs import replace

from scheduler.definition.codec import ParsedBuild, parse_build
from scheduler.definition.destinations import AllowedHosts, destinations_of
from scheduler.definition.graph import Graph, Pair
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import PSEUDO_IDS, UNSENT, Action, Build, Change, State
from scheduler.definition.places import named_fields
from scheduler.definition.rules import DEFAULT_POLICY, Policy
from scheduler.definition.scope import SeenByItself, Submitted, is_supplied
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.secrets.places import conceal
from scheduler.definition.strictjson import encode
from scheduler.definition.subjects import token_problem
from scheduler.definition.template import (
    INLINE_WORK,
    ExhaustedError,
    OnUnresolved,
    Template,
    Templates,
    Work,
)
from scheduler.definition.template.component import compile_within
from scheduler.definition.template.needs import Needs, suggestion
from scheduler.definition.template.references import Syntax
from scheduler.definition.template.standard import Terms
from scheduler.definition.template.work import build_work
from scheduler.definition.warnings import hints_for
from scheduler.errors import InvalidBuild, InvalidTemplate, Problem, TemplateError
from scheduler.runtime.yielding import yield_now
from scheduler.text import count

_LONGEST_PATH_SHOWN = 24
_MOST_SHARED_SHOWN = 3
_MOST_SUGGESTIONS = 20
_READING_WORK = 64 * 1024 * 1024
"""Units of work for reading the references of a build: more than those of ``max_template_nodes`` take."""
_FEW = 4
_PER_IMPLIED_EDGE = 200
_PER_EDGE_OF_DEFINITIONS = 2_000
"""Units for an edge that a reference implies, and for each more than a component has references."""
_MOST_WORDS = 1_000
_AT_ONCE = 256
_FEW_AT_ONCE = 16
"""Edges, and changes, that are looked at before others have a turn."""
_DEEPEST = 256
"""Highest value of ``max_depth``."""
_LONGEST_NUMBER = 4_300
"""Most digits that CPython reads."""
_LEVELS_ABOVE_A_COMPONENT = 2
"""Levels above a component: the build and its list. A reply may be as deep as a build, and later stands in
one."""
_ACCEPTED_ONCE = Limits(
    max_changes=sys.maxsize,
    max_components=sys.maxsize,
    max_edges=sys.maxsize,
    max_depth=_DEEPEST + _LEVELS_ABOVE_A_COMPONENT,
    max_digits=_LONGEST_NUMBER,
    max_component_bytes=sys.maxsize,
    max_id_bytes=sys.maxsize,
    max_template_nodes=sys.maxsize,
)
"""Limits for a build that was accepted before: it is resumed, whatever the limits are now."""


@frozen
class Prepared:
    """A valid build, with everything that its run needs."""

    build: Build
    graph: Graph = field(repr=False)
    """Graph with the implied edges."""
    templates: tuple[Template, ...] = field(repr=False)
    """Template of each of the build's changes."""
    digest: bytes = field(repr=False)
    """Digest of the content, independent of the order of keys and of white space."""
    policy: Policy = DEFAULT_POLICY
    """Policy by the build's options."""
    secrets: Secrets = field(factory=Secrets, repr=False, eq=False)
    """Values in it that must not be shown."""
    hints: tuple[Problem, ...] = field(default=(), eq=False)
    """Parts that are valid, but probably meant otherwise."""
    size: int = field(default=0, eq=False)
    """Bytes that it was read from."""


def read_build(
    data: bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    templates: Templates = Templates.ALL,
    unresolved: OnUnresolved = OnUnresolved.ERROR,
    resumed: bool = False,
    action: str | None = None,
    inline: bool = False,
    allowance: int = INLINE_WORK,
    notify: AllowedHosts | None = None,
) -> Prepared:
    """Read and check a submitted build (WIRE: "Intake").

    Args:
        data: the build's JSON.
        limits: bounds on its content.
        templates: valid forms of references.
        unresolved: treatment of a ``$(path)`` that leads to nothing.
        resumed: whether it comes from the store, where an earlier process put it. Connectors' results in it
            may be larger than a submitted build, and are never rendered. Checks that can wait until a
            component is due are skipped, because it was accepted before.
        action: the subject that it came in on; None for another origin (`codec.parse_build`).
        inline: whether other tasks wait meanwhile, so that long work has to be done again elsewhere.
        allowance: units of work above which that is so.
        notify: hosts that its field ``notify`` may name; None: that field has no meaning.

    Raises:
        Laborious: its references take more than ``allowance``, and ``inline`` is set.
        InvalidBuild: with every problem that was found, each with its place.
    """
    if resumed:
        limits = _ACCEPTED_ONCE
    parsed = parse_build(data, limits, action=action, accepted=resumed)
    if not resumed:
        parsed = evolve(parsed, build=_again(parsed.build))
    check = _Check(parsed, limits, resumed=resumed, allowance=allowance if inline else None)
    check.edges()
    compiled = check.templates(templates, unresolved, resumed=resumed)
    graph = check.graph(compiled)
    if not resumed:
        check.tokens(templates)
        check.references(graph, compiled)
        check.secrets()
    secrets = Secrets.of(parsed.build)
    policy, problems = Policy.of(parsed.build.fields.get("options"), len(parsed.build.changes))
    if not resumed:
        check.problems += problems
        if notify is not None:
            check.problems += destinations_of(parsed.build.fields.get("notify"), notify)[1]
    if check.problems:
        raise InvalidBuild("invalid", [secrets.mask_problem(problem) for problem in check.problems])
    every = tuple(template for template in compiled if template is not None)
    hints: tuple[Problem, ...] = ()
    if not resumed:
        found = hints_for(parsed.build, parsed.names, every, expressions=templates is Templates.ALL)
        hints = tuple(secrets.mask_problem(hint) for hint in found)
    return Prepared(parsed.build, graph, every, parsed.digest, policy, secrets, hints, len(data))


def _again(build: Build) -> Build:
    """Return ``build`` without the states of an earlier run for changes that are to be done now.

    After a restart, ``running`` or ``errored`` would be taken for states of this run.
    """
    if all(change.state in _AS_SUBMITTED for change in build.changes):
        return build
    return evolve(build, changes=tuple(map(_to_be_done, build.changes)))


_AS_SUBMITTED = frozenset({State.WAITING, State.COMPLETED})
"""States that are no states of a run."""


def _to_be_done(change: Change) -> Change:
    if change.state in _AS_SUBMITTED:
        return change
    fields = {**change.fields, "_state": State.WAITING.value}
    fields.pop("error", None)
    return replace(change, state=State.WAITING, raw=encode(fields))


class _Check:
    """Checks of a build as a whole; each adds to ``problems``."""

    def __init__(self, parsed: ParsedBuild, limits: Limits, *, resumed: bool, allowance: int | None) -> None:
        self.parsed = parsed
        self.build = parsed.build
        self.limits = limits
        self.problems = list(parsed.problems)
        self.scope = Submitted(parsed.build)
        self.index = {name: vertex for vertex, name in enumerate(self.scope.changes)}
        """Vertex of each change by its id."""
        self.pairs: dict[Pair, None] = {}
        """Edges between changes, those of the build first, then those that references imply."""
        # Includes the ids of elements with other mistakes, so that one mistake is reported once.
        self.known = parsed.known
        self.coming = {name for name, change in self.scope.changes.items() if is_supplied(change)}
        """Ids whose values come, or may change, before they are looked at; also those of elements with other
        mistakes, of which nothing more is reported."""
        self.coming |= self.known - self.scope.changes.keys() - self.scope.existing.keys()
        self.suggestions = _MOST_SUGGESTIONS
        changes = len(parsed.build.changes)
        self.work = Work.of_build(changes) if allowance is None else Work(allowance, inline=True)
        # A build that was accepted before is read again, however much another version took.
        most = (sys.maxsize if resumed else _READING_WORK) if allowance is None else allowance
        inline = allowance is not None
        self.reading = Work(most, inline=inline)
        # The same holds for finding dependencies, where references lead on through definitions.
        self.following = Work(build_work(changes) if most == _READING_WORK else most, inline=inline)

    def edges(self) -> None:
        """Check that both ends of each edge are known and different."""
        vertex_of, pairs = self.index.get, self.pairs
        for number, edge in enumerate(self.build.edges):
            if not number % _AT_ONCE:
                yield_now()
            source, destination = vertex_of(edge.source), vertex_of(edge.destination)
            if source is None or destination is None or source == destination:
                self.unusual_edge(edge.source, edge.destination, self.parsed.edge_places[number])
            else:
                pairs[source, destination] = None

    def unusual_edge(self, source: str, destination: str, position: int) -> None:
        """Check an edge that is not between two changes."""
        for end, name in ((source, "source"), (destination, "destination")):
            if end not in self.known and end not in PSEUDO_IDS:
                text = f"there is no {end[:600]!r}{self.suggest(end)}"
                self.problems.append(Problem(f"edges[{position}].{name}", text))
        if source == destination and source not in PSEUDO_IDS:
            text = f"{source[:600]!r} cannot depend on itself"
            self.problems.append(Problem(f"edges[{position}]", text))

    def suggest(self, wrong: str) -> str:
        """Return ``; did you mean ...?`` for the first few: comparing with 10,000 ids takes time."""
        if not self.suggestions or len(wrong) > 200:
            return ""
        self.suggestions -= 1
        return suggestion(wrong, self.known)

    def tokens(self, mode: Templates) -> None:
        """Check the parts of requests' subjects; parts that references supply are checked when due."""
        completed = State.COMPLETED
        known: set[tuple[str, str]] = set()
        """Pairs of words without a problem: there are few."""
        for change, position in zip(self.build.changes, self.parsed.places, strict=True):
            words = change.type, change.provider
            if words in known or change.action in UNSENT or change.state is completed:
                continue
            found = len(self.problems)
            for name, token in (("_component", change.type), ("_provider", change.provider)):
                if token.startswith("$(") or (mode is Templates.ALL and "{{" in token):
                    continue
                text = token_problem(name, token)
                if text is not None:
                    self.problems.append(Problem(f"changes[{position}].{name}", text))
            if found == len(self.problems) and len(known) < _MOST_WORDS:
                known.add(words)

    def templates(self, mode: Templates, unresolved: OnUnresolved, *, resumed: bool) -> list[Template | None]:
        """Compile every reference and expression, within the limits; None for a change where that fails."""
        compiled: list[Template | None] = []
        nodes = 0
        data = {State.COMPLETED, State.ERRORED} if resumed else {State.COMPLETED}
        terms = Terms.of(self.build.id, mode, unresolved, self.limits)
        words = {name: name for name in self.index}
        every = self.parsed.found if mode is Templates.ALL else repeat(None)
        for number, (change, found) in enumerate(zip(self.build.changes, every, strict=False)):
            if not number % _FEW_AT_ONCE:
                yield_now()
            # A connector's result is data.
            source = replace(change, raw=b"{}") if change.state in data else change
            try:
                template = compile_within(source, terms, words, self.reading.spend, found)
            except ExhaustedError:
                text = f"reading its references and those before it takes more than {_READING_WORK:,} units"
                self.problems.append(Problem(change.id, f"{text} of work, the limit of a build"))
                break
            except InvalidTemplate as error:
                self.problems.extend(conceal(problem, change) for problem in error.problems)
                compiled.append(None)
                continue
            nodes += template.nodes
            compiled.append(template)
            if nodes > self.limits.max_template_nodes:
                break
        if nodes > self.limits.max_template_nodes:
            limit = f"max_template_nodes is {self.limits.max_template_nodes}"
            rest = len(self.build.changes) - len(compiled)
            where = f"in the first {len(compiled):,} of them" if rest else "in all"
            self.problems.append(Problem("changes", f"{nodes} template nodes {where}; {limit}"))
        compiled += [None] * (len(self.build.changes) - len(compiled))
        return compiled

    def graph(self, compiled: Sequence[Template | None]) -> Graph:
        """Check that there is no cycle, including the implied edges; return the graph."""
        given = len(self.pairs)
        self.pairs.update(dict.fromkeys(self.implied(compiled)))
        ids = tuple(self.index)
        graph = Graph.of_pairs(ids, self.index, self.pairs)
        # An element with another mistake can still be on a cycle.
        unread = sorted(self.known - self.scope.existing.keys() - self.index.keys())
        if unread or not graph.is_acyclic():
            implied = [(ids[source], ids[end]) for source, end in islice(self.pairs, given, None)]
            self.cycles(self.with_unread(unread, implied) if unread else graph, set(implied))
        return graph

    def with_unread(self, unread: list[str], implied: list[tuple[str, str]]) -> Graph:
        """Return the graph as it would be with the elements that have other mistakes."""
        edges = [(edge.source, edge.destination) for edge in self.build.edges]
        own = [(source, end) for source, end in edges if source != end]
        return Graph.of([*self.index, *unread], own + implied)

    def references(self, graph: Graph, compiled: Sequence[Template | None]) -> None:
        """Check that no reference leads to nothing, as far as that can be known."""
        if self.reading.left < 0 or self.following.left < 0:
            return  # It is refused for that; to judge it would take as much again.
        finders = self.behind_a_find(graph)
        coming = self.coming.__contains__
        for change, template in zip(self.build.changes, compiled, strict=True):
            if template is None or template.constant:
                continue
            if template.waits_for_all(change.id, coming, self.work):
                continue
            own = template.names(change.id)
            found = template.check(
                SeenByItself(self.scope, change) if own else self.scope,
                partial(self.supplied_to, change.id) if own else coming,
                open_ended=graph.index[change.id] in finders,
                suggest=self.suggestions > 0,
                work=self.work,
            )
            self.suggestions = max(0, self.suggestions - len(found))
            self.problems.extend(found)
            if self.work.exhausted:
                break  # The last of the problems says so; to judge the others would take as much.

    def secrets(self) -> None:
        """Check that the secrets named by components can be followed."""
        settings = [(component.id, component.fields) for component in self.build.components]
        settings += [(change.id, change.settings) for change in self.build.changes if change.settings]
        for id_, fields in settings:
            if "_secret" not in fields:
                continue
            try:
                named_fields(fields, "_secret")
            except TemplateError as error:
                self.problems.append(Problem(f"{id_}._secret", str(error)))

    def implied(self, compiled: Sequence[Template | None]) -> Iterator[Pair]:
        """Yield edges that references imply: to a change that only this build can supply."""
        syntax = next((template.syntax for template in compiled if template is not None), Syntax())
        # Only this build can supply these.
        existing = self.scope.existing
        only = {
            name: vertex
            for name, vertex in self.index.items()
            if name in self.coming and name not in existing
        }
        needs = Needs(self.scope, syntax, only.__contains__, self.following.spend)
        for number, (change, template) in enumerate(zip(self.build.changes, compiled, strict=True)):
            if not number % _FEW_AT_ONCE:
                yield_now()
            if template is None or template.constant:
                continue
            own, named = change.id, template.named
            try:
                if named is not None and only.keys() >= set(named):
                    # Nothing leads on from what does not exist yet.
                    every, most = sorted(set(named)), len(named)
                else:
                    every = sorted(template.needs(needs))
                    # For a few, their origin does not matter.
                    most = _FEW if len(every) <= _FEW else sum(1 for _ in template.targets())
                for rank, needed in enumerate(every):
                    if needed != own:
                        self.following.spend(_PER_IMPLIED_EDGE if rank < most else _PER_EDGE_OF_DEFINITIONS)
                        yield only[needed], self.index[own]
            except ExhaustedError:
                text = "following its references through definitions takes more work than a build may"
                self.problems.append(Problem(own, text))
                return

    def supplied_to(self, own: str, id: str) -> bool:  # noqa: A002 - as in the port
        """Whether the value under this id comes for a change with its own id: its own definition is fixed."""
        return id != own and id in self.coming

    def behind_a_find(self, graph: Graph) -> set[int]:
        """Return the changes with a ``find`` among their dependencies, direct or not."""
        todo = [
            dependent
            for change in self.build.changes
            if change.action is Action.FIND
            for dependent in graph.dependents[graph.index[change.id]]
        ]
        found: set[int] = set()
        while todo:
            vertex = todo.pop()
            if vertex not in found:
                found.add(vertex)
                todo.extend(graph.dependents[vertex])
        return found

    def cycles(self, graph: Graph, implied: Collection[tuple[str, str]]) -> None:
        """Report each knot of cycles by its shortest one as a path, with a cure.

        Args:
            graph: graph with the implied edges.
            implied: edges that only a reference makes.
        """
        for knot in graph.knots():
            names = [graph.ids[vertex] for vertex in knot.cycle]
            shared = [(graph.ids[source], graph.ids[end]) for source, end in knot.shared]
            text = f"cycle: {_path(names)}"
            by_reference = [pair for pair in shared or pairwise(names) if pair in implied][:1]
            reason = "".join(
                f" ({end} refers to {source}, which therefore has to complete first)"
                for source, end in by_reference
            )
            if knot.others:
                more = count(knot.others, "more way")
                text += f", and {'' if knot.counted else 'at least '}{more} round"
                text += _opened_by(by_reference or shared) if shared else "; no edge is on all of them"
            self.problems.append(Problem("edges", text + reason))


def _opened_by(shared: Sequence[tuple[str, str]]) -> str:
    """Return the text for the edges that are on all cycles of a knot."""
    shown = [f"{source} -> {end}" for source, end in shared[:_MOST_SHARED_SHOWN]]
    if len(shared) > len(shown):
        shown.append(count(len(shared) - len(shown), "other"))
    edges = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    return f"; all go over {edges}{': without any one of these there is no cycle' if len(shown) > 1 else ''}"


def _path(names: list[str]) -> str:
    if len(names) > _LONGEST_PATH_SHOWN:
        half = _LONGEST_PATH_SHOWN // 2
        names = [*names[:half], f"... {len(names) - 2 * half} more ...", *names[-half:]]
    return " -> ".join(names)
