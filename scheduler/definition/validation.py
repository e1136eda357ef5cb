"""From bytes to a build that can be run: every problem it has, or the build with its graph and templates.

All of it is synchronous and made of short steps, so that it can run in a thread beside the event loop.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import pairwise

from attrs import evolve, field, frozen

from scheduler.definition.codec import Parsed, parse_build
from scheduler.definition.graph import Graph
from scheduler.definition.hints import hints_for
from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import PSEUDO_IDS, Action, Build, Change, State
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
    compile_change,
)
from scheduler.definition.template.needs import Needs, suggestion
from scheduler.definition.template.places import named_fields
from scheduler.definition.template.references import Syntax
from scheduler.definition.template.work import build_work
from scheduler.errors import InvalidBuild, InvalidTemplate, Problem, TemplateError
from scheduler.text import count

_LONGEST_PATH_SHOWN = 24
_MOST_SHARED_SHOWN = 3
_MOST_SUGGESTIONS = 20
_READING_WORK = 64 * 1024 * 1024
"""Units of work for reading the references of a build: more than those of ``max_template_nodes`` take."""
_FEW = 4
_PER_IMPLIED_EDGE = 200
_PER_EDGE_OF_DEFINITIONS = 2_000
"""Units for an edge that a reference implies, and for one more than a component has references."""
_DEEPEST = 256
"""The highest that ``max_depth`` may be set to."""
_LONGEST_NUMBER = 4_300
"""Digits that CPython reads."""
_LEVELS_ABOVE_A_COMPONENT = 2
"""The build, and the list in it: a reply may be as deep as a build, and stands in one afterwards."""
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
"""What was within limits when it was accepted is resumed, whatever they are now."""


@frozen
class Prepared:
    """A build that was found valid, with everything its run needs."""

    build: Build
    graph: Graph = field(repr=False)
    """With the implied edges."""
    templates: tuple[Template, ...] = field(repr=False)
    """One for each of the build's changes."""
    digest: bytes = field(repr=False)
    """Equal for equal content, whatever the order of keys and the white space."""
    policy: Policy = DEFAULT_POLICY
    """What its options say of how it is to be run."""
    secrets: Secrets = field(factory=Secrets, repr=False, eq=False)
    """What of it must not be shown."""
    hints: tuple[Problem, ...] = field(default=(), eq=False)
    """What was probably meant otherwise, although it is valid."""
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
) -> Prepared:
    """Read and check a submitted build (WIRE: "Intake").

    Args:
        data: its JSON.
        limits: bounds on what it may hold.
        templates: which forms of references there are.
        unresolved: what becomes of a ``$(path)`` that leads to nothing.
        resumed: it comes from the store, where an earlier process put it. What connectors returned
            stands in it, which may be larger than what is submitted, and is never rendered; what can be
            judged when a component is due is left until then, since it was accepted once.
        action: the subject that it came in on; None where it came otherwise (`codec.parse_build`).
        inline: whether others wait meanwhile, so that what takes long is to be done again elsewhere.
        allowance: units of work from which on that is so.

    Raises:
        Laborious: its references take more than ``allowance``, and ``inline`` says that they must not.
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
    if check.problems:
        raise InvalidBuild("invalid", [secrets.mask_problem(problem) for problem in check.problems])
    every = tuple(template for template in compiled if template is not None)
    hints: tuple[Problem, ...] = ()
    if not resumed:
        found = hints_for(parsed.build, parsed.names, every, expressions=templates is Templates.ALL)
        hints = tuple(secrets.mask_problem(hint) for hint in found)
    return Prepared(parsed.build, graph, every, parsed.digest, policy, secrets, hints, len(data))


def _again(build: Build) -> Build:
    """``build`` without what an earlier run said of the changes that are now to be done.

    Its `running` or `errored` would be taken for this run's after a restart.
    """
    return evolve(build, changes=tuple(map(_to_be_done, build.changes)))


def _to_be_done(change: Change) -> Change:
    if change.state in {State.WAITING, State.COMPLETED}:
        return change
    fields = {**change.fields, "_state": State.WAITING.value}
    fields.pop("error", None)
    return evolve(change, state=State.WAITING, raw=encode(fields))


class _Check:
    """The questions asked of a build as a whole; each adds to ``problems``."""

    def __init__(self, parsed: Parsed, limits: Limits, *, resumed: bool, allowance: int | None) -> None:
        self.parsed = parsed
        self.build = parsed.build
        self.limits = limits
        self.problems = list(parsed.problems)
        self.scope = Submitted(parsed.build)
        # With the ids of elements that are wrong otherwise, so that one mistake is told once.
        self.known = parsed.known
        self.suggestions = _MOST_SUGGESTIONS
        changes = len(parsed.build.changes)
        self.work = Work.of_build(changes) if allowance is None else Work(allowance, inline=True)
        # What was accepted once may be read again, however much another version took.
        most = (sys.maxsize if resumed else _READING_WORK) if allowance is None else allowance
        inline = allowance is not None
        self.reading = Work(most, inline=inline)
        # And so may who waits for whom be found out, where references lead on through definitions.
        self.following = Work(build_work(changes) if most == _READING_WORK else most, inline=inline)

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
        return suggestion(wrong, self.known)

    def tokens(self, mode: Templates) -> None:
        """No request is bound to fail for its subject; what a reference supplies is judged when due."""
        for change, position in zip(self.build.changes, self.parsed.places, strict=True):
            if change.action is Action.NONE or change.state is State.COMPLETED:
                continue
            for name, token in (("_component", change.type), ("_provider", change.provider)):
                if token.startswith("$(") or (mode is Templates.ALL and "{{" in token):
                    continue
                text = token_problem(name, token)
                if text is not None:
                    self.problems.append(Problem(f"changes[{position}].{name}", text))

    def templates(self, mode: Templates, unresolved: OnUnresolved, *, resumed: bool) -> list[Template | None]:
        """Every reference and expression can be read, within the limits; None for a change where not."""
        compiled: list[Template | None] = []
        nodes = 0
        data = {State.COMPLETED, State.ERRORED} if resumed else {State.COMPLETED}
        for change in self.build.changes:
            # What a connector returned is data.
            source = evolve(change, raw=b"{}") if change.state in data else change
            try:
                template = compile_change(
                    source,
                    self.build.id,
                    templates=mode,
                    unresolved=unresolved,
                    limits=self.limits,
                    spend=self.reading.spend,
                )
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
        """There is no cycle, not with the implied edges either."""
        changes = self.build.changes
        ids = list(dict.fromkeys(change.id for change in changes))
        pairs = ((edge.source, edge.destination) for edge in self.build.edges)
        edges = [pair for pair in pairs if pair[0] != pair[1]]
        known = set(edges)
        implied = dict.fromkeys(pair for pair in self.implied(compiled) if pair not in known)
        edges += implied
        graph = Graph.of(ids, edges)
        # What is wrong otherwise can still be on a cycle.
        unread = sorted(self.known - self.scope.existing.keys() - set(ids))
        self.cycles(Graph.of([*ids, *unread], edges) if unread else graph, implied.keys())
        return graph

    def references(self, graph: Graph, compiled: Sequence[Template | None]) -> None:
        """Nothing refers to nothing, as far as that can be known."""
        if self.reading.left < 0 or self.following.left < 0:
            return  # It is refused for that; to judge it would take as much again.
        finders = self.behind_a_find(graph)
        for change, template in zip(self.build.changes, compiled, strict=True):
            if template is None or template.constant:
                continue
            if template.waits_for_all(change.id, self.supplied, self.work):
                continue
            own = template.names(change.id)
            found = template.check(
                SeenByItself(self.scope, change) if own else self.scope,
                partial(self.supplied_to, change.id) if own else self.supplied,
                open_ended=graph.index[change.id] in finders,
                suggest=self.suggestions > 0,
                work=self.work,
            )
            self.suggestions = max(0, self.suggestions - len(found))
            self.problems.extend(found)
            if self.work.exhausted:
                break  # The last of the problems says so; to judge the others would take as much.

    def secrets(self) -> None:
        """What a component says of its own secrets can be followed."""
        settings = [(component.id, component.fields) for component in self.build.components]
        settings += [(change.id, change.settings) for change in self.build.changes if change.settings]
        for id_, fields in settings:
            if "_secret" not in fields:
                continue
            try:
                named_fields(fields, "_secret")
            except TemplateError as error:
                self.problems.append(Problem(f"{id_}._secret", str(error)))

    def implied(self, compiled: Sequence[Template | None]) -> Iterator[tuple[str, str]]:
        """Edges that references imply: to a change that only this build can supply."""
        syntax = next((template.syntax for template in compiled if template is not None), Syntax())
        needs = Needs(self.scope, syntax, self.only_supplied, self.following.spend)
        for change, template in zip(self.build.changes, compiled, strict=True):
            if template is None or template.constant:
                continue
            try:
                every = sorted(template.needs(needs))
                # Of a few it does not matter where they come from.
                own = _FEW if len(every) <= _FEW else sum(1 for _ in template.targets())
                for number, needed in enumerate(every):
                    if needed != change.id:
                        self.following.spend(_PER_IMPLIED_EDGE if number < own else _PER_EDGE_OF_DEFINITIONS)
                        yield needed, change.id
            except ExhaustedError:
                text = "following its references through definitions takes more work than a build may"
                self.problems.append(Problem(change.id, text))
                return

    def only_supplied(self, id: str) -> bool:  # noqa: A002 - as in the port
        """Whether only this build can supply the component with this id."""
        source = self.scope.changes.get(id)
        return source is not None and id not in self.scope.existing and is_supplied(source)

    def supplied(self, id: str) -> bool:  # noqa: A002 - as in the port
        """Whether what is known under this id can change before it is looked at."""
        change = self.scope.changes.get(id)
        if change is None:
            # Of an element that is wrong otherwise nothing more is said.
            return id in self.known and id not in self.scope.existing
        return is_supplied(change)

    def supplied_to(self, own: str, id: str) -> bool:  # noqa: A002 - as in the port
        """The same, as seen by a change of its own id: that stands there as submitted."""
        return id != own and self.supplied(id)

    def behind_a_find(self, graph: Graph) -> set[int]:
        """The changes that have a ``find`` among their dependencies, direct or not."""
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
        """Tell each knot of cycles by its shortest as a path, and what would open it.

        Args:
            graph: with the implied edges.
            implied: those edges that only a reference makes.
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
    """What is said of the edges that are on all cycles of a knot."""
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
