"""References and expressions in a component's fields (WIRE: "References").

A change is compiled once, when its build is accepted: its JSON becomes constant runs of bytes, with slots
between them. When it is due, the slots are filled from the results of its dependencies, and all is joined.
One file on purpose: the checks at intake have to agree with the rendering. In outline::

    compile_change()  ->  Template  ->  check(), needs()     at intake, against what was submitted
                                    ->  render()             when due
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial

import msgspec
from attrs import frozen

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import Limits
from scheduler.definition.model import Change
from scheduler.definition.places import Owner
from scheduler.definition.template.cutting import Cut, cut_fields
from scheduler.definition.template.grammar import Lookup
from scheduler.definition.template.jsonparts import MAX_RENDERED, encode
from scheduler.definition.template.needs import Needs, Spot, suggestion
from scheduler.definition.template.paths import PathQuery
from scheduler.definition.template.references import PathText, Syntax, Target, Text
from scheduler.definition.template.resolve import Resolver
from scheduler.definition.template.scopes import UNLIMITED, Found, Scope, Shared, plain_text
from scheduler.definition.template.standard import Standard, Terms, find
from scheduler.definition.template.work import NO_WORK, AbortedError, ExhaustedError, Laborious, Work, free
from scheduler.errors import InvalidTemplate, Problem, SchedulerError, TemplateError, Unresolved

_OF_THE_SUBJECT = frozenset({"_component", "_provider"})
_LONG = "is longer than others should wait for"
_FEW = 32
"""References that are followed without counting their work, if they are simple."""
_SIMPLE = 100
"""Units of work for a simple reference, besides writing it."""
_TARGET = 80
"""Units of work for looking at intake whether the target of a reference exists."""
_AT_A_GLANCE = 100
"""Nodes of a component whose references are gone through before that is paid for: 0.1 ms."""
_PROBLEMS = 100
"""Problems of one component that are reported one by one."""
_SUGGESTIONS = 20
"""Ids of one component for which a similar one is searched among all others."""


@frozen
class Reference:
    """A reference of a component."""

    place: str
    """Its place in the component: ``tags.x``, ``rules[0].ip``."""
    text: str
    """Its text, cut at 200 characters."""
    id: str | None
    """Id of the component, if it is a constant."""
    guarded: bool
    """Whether a value may be missing: it stands under ``default`` or ``is defined``, or in a branch."""


class Rendered(msgspec.Struct, frozen=True, gc=False):
    """A component that is ready to be sent."""

    body: bytes
    """Its JSON, with ``_state`` running, and ``service`` the build's id."""
    type: str
    provider: str


class _UnknownError(SchedulerError):
    """A value cannot be known before the build runs."""


class _Known:
    """The part of a scope that will still be the same when the component is due."""

    __slots__ = ("_open_ended", "_scope", "_supplied", "build", "shared", "work")

    def __init__(self, scope: Scope, supplied: Callable[[str], bool], *, open_ended: bool) -> None:
        self._scope = scope
        self._supplied = supplied
        self._open_ended = open_ended
        self.build = scope.build
        self.shared: Shared | None = scope.shared
        self.work: Work = UNLIMITED

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        # A result of a `find` may take the place of a component that exists.
        if self._open_ended or self._supplied(id):
            raise _UnknownError
        return self._scope.find(id)

    def all(self) -> Sequence[Found]:
        raise _UnknownError

    def candidates(self, query: PathQuery) -> Iterable[Found] | None:  # noqa: ARG002 - as in the port
        raise _UnknownError

    def ids(self) -> Iterable[str]:
        return self._scope.ids()


class Template(msgspec.Struct, gc=False):
    """A change with its references found. Made by `compile_change`."""

    _change: Change
    _terms: Terms
    _found: Cut | Standard
    nodes: int
    """Its share of the build's ``max_template_nodes``."""
    constant: bool
    """Whether there is nothing to render."""
    named: Sequence[str] | None
    """Ids that its references name, if each is standard, and so names one and has no default."""

    @classmethod
    def of(cls, change: Change, terms: Terms, found: Cut | Standard) -> "Template":
        """Make the template of a change in which these references were found."""
        if isinstance(found, Standard):
            return cls(change, terms, found, found.form.nodes, not found.names, found.names)
        nodes = sum(text.nodes for _, text in found.slots)
        return cls(change, terms, found, nodes, not found.slots, None)

    def __repr__(self) -> str:
        # What it is made of may be secret.
        return f"<Template of {self._change!r}>"

    @property
    def syntax(self) -> Syntax:
        """Valid forms of references."""
        return self._terms.syntax

    @property
    def spots(self) -> Iterable[Spot] | None:
        """Targets of its references, if each is standard; otherwise `targets` tells, which takes longer."""
        found = self._found
        return zip(found.names, found.form.keys, strict=True) if isinstance(found, Standard) else None

    def _cut(self) -> Cut:
        """Return the change cut at its references; made again each time for a standard one."""
        return self._found if isinstance(self._found, Cut) else cut_change(self._change, self._terms)

    def texts(self) -> Sequence[tuple[str, Text]]:
        """Return every text with references, with its place."""
        return self._cut().slots

    def targets(self) -> Iterator[tuple[str, Target]]:
        """Yield the target of every reference, with the place of the reference."""
        for place, text in self.texts():
            yield from ((place, target) for target in text.targets())

    @property
    def references(self) -> tuple[Reference, ...]:
        """Return every reference in the component."""
        return tuple(
            Reference(place, target.text[:_SHOWN], target.id, target.guarded)
            for place, target in self.targets()
        )

    def names(self, id: str) -> bool:  # noqa: A002 - as in the port
        """Whether a reference names the component with this id by a constant."""
        if self.named is not None:
            return id in self.named
        return any(target.id == id for _, target in self.targets())

    def render(
        self,
        scope: Scope,
        *,
        work: Work | None = None,
        inline: bool = False,
        most: int | None = None,
        expired: Callable[[], bool] | None = None,
    ) -> Rendered:
        """Render the component as it is to be sent.

        Args:
            scope: the values that its references can see.
            work: budget of all renderings of its build; this one is charged to it.
            inline: whether other tasks wait meanwhile: long work is then to be done again elsewhere.
            most: bytes of a result above which that is so as well, if there are references; None: no bound.
            expired: function that says whether there is no more time, in place of that of ``work``.

        Raises:
            Unresolved: something that it needs is absent or null.
            Laborious: it takes more than `INLINE_WORK`, or is longer than ``most``: nothing was charged.
            TemplateError: a reference cannot be resolved, or its value is too large, or takes too much work.
                Every message begins with the place: ``instance::web-1.tags.x: ...``.
        """
        change, found = self._change, self._found
        scope.work = NO_WORK
        try:
            if isinstance(found, Standard):
                body = found.fill(change.raw, scope, self._terms)
            else:
                body = self._simple(found, scope)
        except TemplateError:
            # The other way finds the mistake again, or the work.
            body = None
        if body is not None:
            if most is not None and len(body) > most and not self.constant:
                raise Laborious(_LONG)
            return Rendered(body, change.type, change.provider)
        whole = Work() if work is None else work
        meter = whole.part(inline=inline, expired=expired)
        scope.work = meter
        put_off = False
        try:
            return self._rendered(scope, meter, most)
        except Laborious:
            put_off = True
            raise
        finally:
            # Read before it is charged: another thread may charge its own part meanwhile.
            spent = 0 if put_off else meter.spent
            whole.left -= spent

    def _simple(self, cut: Cut, scope: Scope) -> bytes | None:
        """Return its JSON if that takes no work worth counting; None otherwise."""
        if not cut.slots:
            return cut.runs[0]
        if len(cut.slots) > _FEW:
            return None
        body = _joined(cut, scope, keep=self._terms.syntax.keep)
        return body if body is not None and len(body) <= MAX_RENDERED else None

    def _rendered(self, scope: Scope, work: Work, most: int | None = None) -> Rendered:
        change = self._change
        type_, provider = change.type, change.provider
        keep = self._terms.syntax.keep
        cut = self._cut()
        parts = [cut.runs[0]]
        size = len(parts[0])
        counted = len(cut.slots) > _FEW
        resolver: Resolver | None = None
        for (place, text), run in zip(cut.slots, cut.runs[1:], strict=True):
            try:
                if counted:
                    work.spend(_SIMPLE)
                chunk = _quick(text, scope, keep)
                if chunk is None:
                    if resolver is None:
                        resolver = self._resolver(cut, scope, work)
                    chunk = resolver.written(text, place)
                if counted:
                    work.spend(len(chunk))
                size += len(chunk) + len(run)
                _refuse_over(size)
                if place == "_component":
                    type_ = _token(chunk)
                elif place == "_provider":
                    provider = _token(chunk)
            except Laborious:
                raise
            except TemplateError as error:
                kind = Unresolved if isinstance(error, Unresolved) else TemplateError
                raise kind(f"{change.id}.{place}: {error}") from error
            parts.append(chunk)
            parts.append(run)
        if most is not None and size > most:
            raise Laborious(_LONG)
        return Rendered(b"".join(parts), type_, provider)

    def waits_for_all(self, own: str, supplied: Callable[[str], bool], work: Work) -> bool:
        """Whether `check` has nothing to report, because no target exists yet.

        Args:
            own: id of the component itself.
            supplied: as for `check`.
            work: as for `check`. If the answer is no, nothing is charged: `check` does so.
        """
        if self.nodes > _AT_A_GLANCE or work.left < _TARGET * self.nodes:
            return False
        found = self._found
        if isinstance(found, Standard):
            seen = -1 if own in found.names or not all(map(supplied, found.names)) else len(found.names)
        else:
            seen = _awaited(found, own, supplied)
        if seen < 0:
            return False
        work.spend(_TARGET * seen)
        return True

    def check(
        self,
        scope: Scope,
        supplied: Callable[[str], bool],
        *,
        open_ended: bool = False,
        suggest: bool = True,
        work: Work | None = None,
    ) -> list[Problem]:
        """Return references that are known at intake to resolve to nothing, or not at all.

        Args:
            scope: the submitted build.
            supplied: function that says whether a change of this build returns the component with an id, so
                that its fields are unknown.
            open_ended: whether a ``find`` among the dependencies may return components with any id.
            suggest: whether to search for the id that was meant, which takes a moment with many ids.
            work: budget for this, shared by the components of a build. A reference that is certain to exceed
                the budget when it is due is a problem; one that cannot be judged now is left until then.

        Raises:
            Laborious: ``work`` is for inline use, and there is more to do.
        """
        whole = Work() if work is None else work
        meter = whole.part()
        try:
            return self._checked(scope, supplied, meter, open_ended=open_ended, suggest=suggest)
        finally:
            whole.exhausted = whole.exhausted or meter.exhausted
            spent = meter.spent
            whole.left -= spent

    def _checked(
        self, scope: Scope, supplied: Callable[[str], bool], work: Work, *, open_ended: bool, suggest: bool
    ) -> list[Problem]:
        problems: dict[Problem, None] = {}
        cut = self._cut()
        if cut.slots and (size := sum(map(len, cut.runs))) > MAX_RENDERED:
            message = (
                f"{size} bytes beside its references; the limit of a rendered component is {MAX_RENDERED}"
            )
            problems[Problem(self._change.id, message)] = None
        known = _Known(scope, supplied, open_ended=open_ended)
        known.work = work
        resolver: Resolver | None = None
        suggestions = _SUGGESTIONS if suggest else 0
        for place, text in cut.slots:
            if len(problems) >= _PROBLEMS:
                problems[Problem(self._change.id, f"{_PROBLEMS} problems or more; these are the first")] = (
                    None
                )
                break
            if self._terms.syntax.keep and isinstance(text, PathText):
                continue
            where = f"{self._change.id}.{place}"
            judged, beside = True, False
            try:
                for target in text.targets():
                    work.spend(_TARGET)
                    if target.guarded:
                        continue
                    if target.id is None:
                        beside = True
                    elif supplied(target.id):
                        judged = False
                    elif scope.find(target.id) is not None:
                        beside = True
                    else:
                        judged = False
                        if not open_ended:
                            cure = suggestion(target.id, scope.ids()) if suggestions else ""
                            suggestions = max(0, suggestions - 1)
                            problems[Problem(where, f"there is no '{target.id}'{cure}")] = None
                if not judged and not beside:
                    continue
                if resolver is None:
                    resolver = self._resolver(cut, known, work)
                questions: Iterable[Callable[[], object]] = [partial(_judge, resolver, text, place)]
                if not judged:
                    # Its value is unknown; whether the other components that it names exist may be known.
                    questions = _one_by_one(
                        text, resolver, lambda name: not supplied(name) and scope.find(name) is not None
                    )
                for question in questions:
                    try:
                        question()
                    except AbortedError:
                        raise
                    except _UnknownError:
                        continue
                    except TemplateError as error:
                        problems[Problem(where, str(error))] = None
            except Laborious:
                raise
            except ExhaustedError as error:
                if error.certain:
                    work.exhausted = True
                    problems[Problem(where, str(error))] = None
                break
            except AbortedError as error:
                problems[Problem(where, str(error))] = None
        return list(problems)

    def needs(self, needs: Needs) -> list[str]:
        """Return every id that rendering can touch by a constant, directly or through definitions.

        Args:
            needs: the build's needs, which know the interesting ids.
        """
        if (spots := self.spots) is not None:
            return needs.of(spots)
        # All strings of the component itself are slots already: `component` need not be followed.
        return needs.of((target.id, target.keys) for _, target in self.targets() if target.id is not None)

    def _resolver(self, cut: Cut, scope: Scope, work: Work) -> Resolver:
        work.spend(2 * len(self._change.raw))
        owner = Owner(self._change.fields, cut.raw)
        return Resolver(scope, owner, self._terms.syntax, self._terms.limits.max_digits, work)


def compile_change(
    component: Change,
    build: str,
    *,
    templates: Templates,
    unresolved: OnUnresolved,
    limits: Limits,
    spend: Callable[[int], None] = free,
) -> Template:
    """Find the references of a change, and turn the rest of it into bytes.

    Args:
        component: the change as submitted; it is kept, and must not be changed.
        build: id of its build, which becomes ``service``.
        templates: valid forms of references.
        unresolved: treatment of a ``$(path)`` that leads to nothing.
        limits: bounds on its content.
        spend: function that is called with the units of work before they are done; its exception ends it.

    Raises:
        InvalidTemplate: with every problem: invalid syntax, values over a limit, text that cannot be written.
            Each names its place.
    """
    return compile_within(component, Terms.of(build, templates, unresolved, limits), {}, spend)


def compile_within(
    change: Change,
    terms: Terms,
    words: Mapping[str, str],
    spend: Callable[[int], None] = free,
    known: tuple[Standard, int] | None = None,
) -> Template:
    """Do the same as `compile_change` on the terms of a build.

    Args:
        change: the change as submitted.
        terms: terms of its build.
        words: ids that are kept anyway, by themselves.
        spend: as there.
        known: its references, and the units of work for them, where the change is known to be standard.
    """
    if known is None:
        found = find(change, terms, words, spend)
    else:
        found, work = known
        spend(work)
    template = Template.of(change, terms, cut_change(change, terms, spend) if found is None else found)
    limits = terms.limits
    if template.nodes > limits.max_template_nodes:
        message = f"{template.nodes} template nodes; max_template_nodes is {limits.max_template_nodes}"
        raise InvalidTemplate([Problem(change.id, message)])
    return template


def cut_change(change: Change, terms: Terms, spend: Callable[[int], None] = free) -> Cut:
    """Cut a change at its references, whatever they are; raises as `compile_change`."""
    fields = {**change.fields, "_state": "running", "service": terms.build}
    return cut_fields(change.id, fields, terms.syntax, spend)


def _judge(resolver: Resolver, text: Text, place: str) -> None:
    if _quick(text, resolver.scope, resolver.syntax.keep) is None:
        resolver.written(text, place)


def _awaited(cut: Cut, own: str, supplied: Callable[[str], bool]) -> int:
    """Return the number of targets if all that are required are still to come; -1 otherwise."""
    if sum(map(len, cut.runs)) > MAX_RENDERED:
        return -1
    seen = 0
    for _, text in cut.slots:
        named = False
        for target in text.targets():
            seen += 1
            if target.guarded:
                continue
            if target.id is None or target.id == own or not supplied(target.id):
                return -1
            named = True
        if not named:
            return -1
    return seen


def _one_by_one(
    text: Text, resolver: Resolver, known: Callable[[str], bool]
) -> Iterator[Callable[[], object]]:
    """Yield a function for each required value of known components, and of the build."""
    for target in text.targets():
        if target.guarded or target.root == "path" or (target.id is None and target.root == "components"):
            continue
        if target.id is None:
            yield partial(resolver.lookup, Lookup(target.root, target.keys))
        elif known(target.id):
            yield partial(resolver.lookup, Lookup(target.root, (target.id, *target.keys)))


_SHOWN = 200
_SHORT = 4096
"""Characters up to which a resolved text is surely within every limit."""


def _joined(cut: Cut, scope: Scope, *, keep: bool) -> bytes | None:
    """Return the JSON of a component all of whose references are common; None for any other."""
    parts = [cut.runs[0]]
    for (place, text), run in zip(cut.slots, cut.runs[1:], strict=True):
        chunk = None if place in _OF_THE_SUBJECT else _quick(text, scope, keep)
        if chunk is None:
            return None
        parts += chunk, run
    return b"".join(parts)


def _quick(text: Text, scope: Scope, keep: bool) -> bytes | None:
    """Return the JSON of the most common references: fields of components that are plain text.

    None for anything else, or if anything about it needs a closer look.
    """
    if isinstance(text, PathText):
        value = None if text.id is None else plain_text(text.id, text.path, scope)
        if value == "" and keep:
            return encode(text.source)
        return None if value is None else encode(value)
    whole = ""
    for part in text.parts:
        if isinstance(part, str):
            whole += part
            continue
        if part.program is not None or part.lookups[0].root != "components":
            return None
        lookup = part.lookups[0]
        name = lookup.keys[0]
        value = plain_text(name, lookup.keys[1:], scope) if isinstance(name, str) else None
        if value is None:
            return None
        whole += value
    return encode(whole) if len(whole) <= _SHORT else None


def _refuse_over(size: int) -> None:
    if size > MAX_RENDERED:
        raise TemplateError(f"the component would be over {MAX_RENDERED} bytes, the limit")


def _token(chunk: bytes) -> str:
    value = msgspec.json.decode(chunk)
    if not isinstance(value, str):
        raise TemplateError("is a part of the subject, and must be text")
    return value
