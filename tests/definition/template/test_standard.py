"""Properties of standard references: what is found in the bytes is what the general way finds."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.model import Action, Change, State
from scheduler.definition.template import Found, Scope, Template, Work
from scheduler.definition.template.component import compile_within, cut_change
from scheduler.definition.template.standard import Terms, find
from scheduler.errors import InvalidTemplate, Problem, TemplateError

PATH = '$(components.#[_component_id="{}"].{})'
EXPRESSION = '{{{{ components["{}"]{} }}}}'
ids = st.sampled_from(["a", "b", "vpc::1", "é", "x.y", "a{", "{{a", "a$", 'a"', "a\\", "a b", "a\n", "a@"])
names = st.sampled_from(["v", "w", "v.w", "_x", "1", "v.", "", "V_1", "é", "v.0", "a" * 300])
paths = st.builds(PATH.format, ids, names)
expressions = st.builds(EXPRESSION.format, ids, names.map(lambda name: name and f".{name}"))
tight = st.builds('{{{{components["{}"].{}}}}}'.format, ids, names)
plain = st.sampled_from(
    [
        *'{}"\\$(),:[]',
        "{{",
        "}}",
        "$(",
        '"$(',
        "\n",
        "é",
        "\0",
        "text",
        " - ",
        "{%",
        "{#",
        ":",
        '":',
        "z" * 250,
    ]
)
texts = st.one_of(
    paths,
    expressions,
    tight,
    st.lists(st.one_of(plain, paths, expressions, tight), max_size=5).map("".join),
)
keys = st.one_of(
    st.sampled_from(
        ["x", "y", "name", "service", "_state", "tags", "_raw", "_secret", "adoptable", "k" * 600]
    ),
    texts,
)
values = st.recursive(
    st.one_of(texts, texts, st.integers(), st.booleans(), st.none()),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)
tops = st.tuples(
    st.dictionaries(keys, values, max_size=3),
    st.dictionaries(st.just("service"), st.sampled_from(["b1", "other", "b1}", 1]), max_size=1),
    st.dictionaries(keys, values, max_size=3),
).map(lambda parts: {**parts[0], **parts[1], **parts[2]})
DATA: Sequence[Any] = ("", "text", 'é\n"{{', "$(v)", 7, None, True, ["x"], {"w": "deep"}, "x" * 5_000)


class World(Scope):
    """Components with the same fields under every id, some of them submitted."""

    def __init__(self, value: Any) -> None:
        self.build: Mapping[str, Any] = {"id": "b1"}
        self.document = {"v": value, "w": "w", "_x": "under", "V_1": "é"}

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        return None if id == "b" else Found(self.document, definition=id == "x.y")

    def all(self) -> Sequence[Found]:
        return []

    def ids(self) -> Iterable[str]:
        return ["a", "b"]


def submitted(fields: Mapping[str, Any], *, first: bool = True) -> Change:
    own: dict[str, Any] = {
        "_component_id": "web::1",
        "_component": "web",
        "_action": "create",
        "_provider": "aws",
        "_state": "waiting",
    }
    rest = {key: value for key, value in fields.items() if key != "_state"}
    whole = {**own, **rest} if first else {**rest, **own}
    return Change("web::1", "web", Action.CREATE, "aws", State.WAITING, msgspec.json.encode(whole))


def outcome(template: Template, scope: Scope) -> object:
    """What the template is sent as, or why it is not."""
    try:
        return template.render(scope)
    except TemplateError as error:
        return type(error), str(error)


def terms(templates: Templates = Templates.ALL, unresolved: OnUnresolved = OnUnresolved.ERROR) -> Terms:
    return Terms.of("b1", templates, unresolved, DEFAULT_LIMITS)


class Case(NamedTuple):
    """A component, the settings that it is read with, and a value that its references lead to."""

    fields: Mapping[str, Any]
    first: bool = True
    """Whether the fields of all components come first."""
    templates: Templates = Templates.ALL
    unresolved: OnUnresolved = OnUnresolved.ERROR
    value: Any = "text"


cases = st.builds(
    Case,
    tops,
    st.booleans(),
    st.sampled_from(Templates),
    st.sampled_from(OnUnresolved),
    st.sampled_from(DATA),
)


@given(cases)
@settings(max_examples=300)
@example(Case({"x": {"service": "b1"}}))
@example(Case({"service": "b1", "x": PATH.format("a", "v")}, first=False))
@example(Case({"x": {"y": 1}, "z": {"service": "b1", "y": "{"}}))
@example(Case({"x": ["a", 'b"', PATH.format("a", "v")]}, unresolved=OnUnresolved.KEEP, value=""))
@example(Case({"x": 'b"' + PATH.format("a", "v")}))
@example(Case({PATH.format("a", "v"): 1}))
@example(Case({EXPRESSION.format("a", ".v"): 1}))
@example(Case({"a" * 600: {"b" * 600: PATH.format("a", "v")}}))
@example(Case({"a" * 600: {"b" * 600: "{{ x }}"}}, templates=Templates.ERNEST))
@example(Case({"a" * 600: {"b" * 600: "{{ x }}"}, "x": PATH.format("a", "v")}, templates=Templates.ERNEST))
@example(Case({"_raw": ["x"], "x": PATH.format("a", "v")}))
@example(Case({"adoptable": {"x": PATH.format("a", "v")}}))
def test_the_references_in_the_bytes_are_those_of_the_general_way(case: Case) -> None:
    """A standard template has the same targets, checks and results as one that was cut in the general way."""
    change, common = submitted(case.fields, first=case.first), terms(case.templates, case.unresolved)
    found = find(change, common, {})
    if found is None:
        return
    general = Template.of(change, common, cut_change(change, common))
    standard = Template.of(change, common, found)
    assert (standard.nodes, standard.constant) == (general.nodes, general.constant)
    assert found.names == tuple(target.id for _, target in general.targets())
    assert found.form.keys == tuple(target.keys for _, target in general.targets())
    assert not any(target.guarded for _, target in general.targets())
    assert standard.references == general.references
    world = World(case.value)
    assert outcome(standard, world) == outcome(general, world)
    nothing: frozenset[str] = frozenset()
    for own, known in (("web::1", {"a", "b"}), ("a", {"a"}), ("web::1", nothing)):
        supplied = known.__contains__
        one, other = Work(), Work()
        assert standard.waits_for_all(own, supplied, one) == general.waits_for_all(own, supplied, other)
        assert one.spent == other.spent
        assert standard.names(own) == general.names(own)
        assert standard.check(world, supplied, suggest=False) == general.check(world, supplied, suggest=False)


@given(tops)
def test_a_template_has_the_same_mistakes_either_way(fields: dict[str, Any]) -> None:
    """What the general way refuses is never taken for standard."""
    change, common = submitted(fields), terms()
    assert mistakes(lambda: cut_change(change, common)) == mistakes(
        lambda: compile_within(change, common, {})
    )


def mistakes(read: Callable[[], object]) -> list[Problem]:
    try:
        read()
    except InvalidTemplate as refusal:
        return list(refusal.problems)
    return []


@pytest.mark.parametrize(
    "text",
    [
        PATH.format("vpc::1", "v"),
        PATH.format("a{", "v.w"),
        EXPRESSION.format("é", ".v.w"),
        EXPRESSION.format("a", ""),
        f'join {EXPRESSION.format("a", ".v")} as "{EXPRESSION.format("b", ".w")}" {{ and }} $( so on\n',
        'plain "$(text)',
        "plain } }} text",
    ],
)
def test_common_references_are_standard(text: str) -> None:
    """The forms that nearly all references have are found in the bytes."""
    assert find(submitted({"tags": {"x": [1, text]}}), terms(), {}) is not None


@pytest.mark.parametrize(
    "text",
    [
        "{{ build.id }}",
        "$(options.x)",
        '{{ components["a"].v | upper }}',
        '{{ components["a"].v | default(components["b"].v) }}',
        "{{ components['a'].v }}",
        '{{ components["a"][0] }}',
        '$(components.#[_component_id="a"].v.#)',
        "{{{ components }}",
        "{{",
    ],
)
def test_other_references_are_not_standard(text: str) -> None:
    """Every other form is left to the general way."""
    assert find(submitted({"x": text}), terms(), {}) is None


def test_an_id_that_is_kept_anyway_is_not_kept_twice() -> None:
    """The names of a template are the ids of the build's components themselves."""
    kept = msgspec.json.decode(b'"vpc::1"')
    found = find(submitted({"x": PATH.format("vpc::1", "v")}), terms(), {kept: kept})
    assert found is not None
    assert found.names[0] is kept


def test_reading_is_paid_for() -> None:
    """A text with references costs its units, like in the general way; plain text costs none."""
    spent: list[int] = []
    find(submitted({"x": PATH.format("a", "v"), "y": "text"}), terms(), {}, spent.append)
    assert sum(spent) == 160 + (len(PATH.format("a", "v")) + 4 >> 2)
    spent.clear()
    find(submitted({"y": "text"}), terms(), {}, spent.append)
    assert not sum(spent)
