"""Properties of templates, held against random input."""

import contextlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.model import Action, Change, State
from scheduler.definition.template import Found, OnUnresolved, Scope, Templates, compile_change, references
from scheduler.definition.template.needs import Needs
from scheduler.definition.template.paths import MISSING, Walker, parse
from scheduler.definition.template.patterns import Pattern
from scheduler.definition.template.work import free
from scheduler.errors import TemplateError

keys = st.sampled_from(["a", "b", "ab", "0", "1", "x.y", "*", "#", ""])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**40), 10**40),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
)
documents = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(keys, inner, max_size=4)),
    max_leaves=20,
)
objects = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5), documents, max_size=6
)


class World(Scope):
    def __init__(self, document: Mapping[str, Any], *, definition: bool = False) -> None:
        self.build: Mapping[str, Any] = {"id": "b1", "options": {"x": 1}}
        self.found = {"d": Found(document, definition=definition)}

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        return self.found.get(id)

    def all(self) -> Sequence[Found]:
        return list(self.found.values())

    def ids(self) -> Iterable[str]:
        return self.found


def render(
    fields: Mapping[str, Any], world: World, unresolved: OnUnresolved = OnUnresolved.ERROR
) -> dict[str, Any]:
    change = Change(
        id="a",
        type="t",
        action=Action.CREATE,
        provider="p",
        state=State.WAITING,
        raw=msgspec.json.encode({**fields, "_component_id": "a"}),
    )
    template = compile_change(
        change, "b1", templates=Templates.ALL, unresolved=unresolved, limits=DEFAULT_LIMITS
    )
    template.check(world, lambda _: False)
    template.needs(Needs(world, template.syntax, lambda _: True))
    found: dict[str, Any] = msgspec.json.decode(template.render(world).body)
    return found


def refers(value: Any) -> bool:
    if isinstance(value, dict):
        return any(refers(item) for item in value.values())
    if isinstance(value, list):
        return any(refers(item) for item in value)
    return isinstance(value, str) and ("{{" in value or value.startswith("$("))


@given(objects.filter(lambda fields: not refers(fields) and "_raw" not in fields))
def test_what_holds_no_reference_is_unchanged(fields: dict[str, Any]) -> None:
    """A component without references is rendered to itself, with its digits, its order and its types."""
    found = render(fields, World({}))
    expected = {**fields, "_component_id": "a", "_state": "running", "service": "b1"}
    assert found == expected
    assert list(found) == list(expected)


@given(objects.filter(lambda fields: "_raw" not in fields), st.text("{}$()'\" a.", max_size=12))
def test_references_leave_everything_else_as_it_is(fields: dict[str, Any], text: str) -> None:
    """A slot anywhere takes exactly the text found, and its neighbours keep their values."""
    if refers(fields):
        return
    found = render({**fields, "slot": ["{{ components['d'].t }}", fields]}, World({"t": text}))
    assert found["slot"] == [text, fields]
    assert render({"slot": "<{{ components['d'].t }}>"}, World({"t": text}))["slot"] == f"<{text}>"


@given(objects)
def test_data_is_never_rendered(document: dict[str, Any]) -> None:
    """Whatever a connector returned is put in as it is."""
    data = {"v": [document, "{{ build.id }}", "$(options.x)"]}
    assert render({"x": "{{ components['d'].v }}"}, World(data))["x"] == data["v"]


WORDS = """
    {{ }} { } $( ) ( ' " \\ . [ ] #[ # * ? = | ~ + - build component components components['d'] id options x v
    default join sort upper is defined if else not 1 1.5 none true , : in < _component_id d __class__ %} {%
    é first round tojson
"""
pieces = st.sampled_from([*WORDS.split(), " ", "\n", "\0"])
WRITABLE = st.characters(exclude_categories=["Cs"])
texts = st.one_of(st.lists(pieces, max_size=20).map("".join), st.text(WRITABLE, max_size=30))


@given(
    st.one_of(
        texts,
        texts.map(lambda text: "{{" + text + "}}"),
        texts.map(lambda text: "{{ components['d'].v | " + text + " }}"),
        texts.map(lambda text: "$(" + text + ")"),
        texts.map(lambda text: "$(components." + text + ")"),
    ),
    documents,
    st.booleans(),
    st.sampled_from(OnUnresolved),
)
@settings(max_examples=400)
@example("{{ components['d'].v | round }}", 10**40, False, OnUnresolved.ERROR)
@example("{{ components['d'].v }}", {"a": "{{"}, True, OnUnresolved.ERROR)
def test_no_string_raises_anything_else(
    text: str, document: Any, definition: bool, unresolved: OnUnresolved
) -> None:
    """Whatever is written, it is rendered or it is a TemplateError with a place."""
    try:
        render({"x": text}, World({"v": document, "w": text}, definition=definition), unresolved)
    except TemplateError as error:
        assert str(error).startswith("a")  # noqa: PT017 - no error is as good


def naive(path: list[str], value: Any) -> Any:
    """What gjson 1.0 finds for keys, indices, ``#`` and wildcards, said as plainly as can be."""
    if not path:
        return value
    first, *rest = path
    if isinstance(value, dict):
        plain = re.sub(r"\\(.)", r"\1", first)
        if "*" in re.sub(r"\\.", "", first):
            for key, item in value.items():
                found = naive(rest, item) if fits(first, key) else MISSING
                if found is not MISSING:
                    return found
            return MISSING
        return naive(rest, value[plain]) if plain in value else MISSING
    if isinstance(value, list):
        if first == "#":
            if not rest:
                return len(value)
            return [found for item in value if (found := naive(rest, item)) is not MISSING]
        return naive(rest, value[int(first)]) if first.isdigit() and int(first) < len(value) else MISSING
    return MISSING


def fits(pattern: str, text: str) -> bool:
    """Matching by trying everything."""
    if not pattern:
        return not text
    if pattern[0] == "*":
        return any(fits(pattern[1:], text[at:]) for at in range(len(text) + 1))
    if pattern[0] == "\\" and len(pattern) > 1:
        return text[:1] == pattern[1] and fits(pattern[2:], text[1:])
    return bool(text) and pattern[0] in {"?", text[0]} and fits(pattern[1:], text[1:])


@given(
    documents,
    st.lists(
        st.sampled_from(["a", "b", "0", "1", "#", "*", "a*", r"x\.y", r"\*", ""]), min_size=1, max_size=5
    ),
)
def test_paths_lead_where_a_naive_reading_leads(document: Any, path: list[str]) -> None:
    """Walking a path finds what trying it step by step finds."""
    assert Walker().walk(parse(".".join(path)), document)[0] == naive(path, document)


@given(st.text("ab*?\\", max_size=8), st.text("ab*?\\", max_size=10))
def test_patterns_match_as_trying_everything_does(pattern: str, text: str) -> None:
    """The linear matcher agrees with the exponential one."""
    assert Pattern(pattern).matches(text) is fits(pattern, text)


@given(
    documents, st.sampled_from(["=", "==", "!=", "<", "<=", ">", ">=", "%"]), st.text("ab01.*", max_size=3)
)
def test_queries_choose_what_filtering_chooses(document: Any, operator: str, value: str) -> None:
    """All matches are those elements for which the first match of the element alone is found."""
    rows = [{"k": document}, {"k": "a"}, {"k": 1}, {"k": True}, {}, [], "x", {"k": "b"}]
    every = Walker().walk(parse(f'#[k{operator}"{value}"]#'), rows)[0]
    single = parse(f'#[k{operator}"{value}"]')
    chosen = [row for row in rows if Walker().walk(single, [row])[0] is not MISSING]
    assert every == (chosen or MISSING)


@given(st.text(max_size=40))
def test_any_text_is_a_path_or_is_refused(text: str) -> None:
    """Reading a path raises nothing but TemplateError."""
    with contextlib.suppress(TemplateError):
        Walker().walk(parse(text), {"a": [1, {"b": "c"}]})


_pieces = st.sampled_from(
    [
        *(
            "{{",
            "}}",
            "{",
            "}",
            " ",
            "components",
            '["a::b"]',
            '["',
            '"]',
            ".",
            ".x",
            ".y_1",
            ".2",
            "._z",
            "-",
        ),
        *("$(", ")", "components.#", '[_component_id="a"]', '[_component_id="a.b"]', "#", "$", "\\", "\n"),
        *(
            '{{ components["a::b"].x }}',
            '$(components.#[_component_id="a"].x',
            ".é",
            "é",
            "*",
            "'a'",
            "(",
            '""',
        ),
        *('{{components["a"]}}', '{{ components["a"].b.c\t}}', ".k" * 70, '["a"]', "if", "|"),
    ]
)


@given(st.lists(_pieces, max_size=8).map("".join), st.booleans(), st.booleans())
@example('$(components.#[_component_id="a"]' + ".k" * 62 + ")", True, False)
@example('$(components.#[_component_id="a"]' + ".k" * 63 + ")", True, False)
@example("{{ components['a']" + ".k" * 39 + "}}", True, False)
@example('{{ components["a"]' + ".k" * 40 + "}}", True, False)
@example('{{{ components["a"].x }}', True, False)
@example('{{ components["a"].x }}}', True, False)
@example('x {{ components["a"].x }} y {{ components["b"] }}', True, False)
@example('$(components.#[_component_id="{{ components["a"].x }}"].a)', True, False)
@example('$(components.#[_component_id="a"].a)\n', True, True)
def test_common_forms_are_read_as_all_others_are(text: str, expressions: bool, keep: bool) -> None:
    """What has a short way of its own is exactly what it is without that, whatever stands around it."""
    syntax = references.Syntax(expressions, keep)

    def parts(found: references.Text | None) -> object:
        if isinstance(found, references.PathText):
            return found.source, found.id, found.path, found.nodes
        return found and (found.source, found.parts, found.nodes)

    try:
        expected = parts(references._read(text, syntax, free))
    except TemplateError as error:
        with pytest.raises(TemplateError, match=re.escape(str(error))):
            references.read(text, syntax)
    else:
        assert parts(references.read(text, syntax)) == expected


def test_what_nearly_all_references_are_like_has_the_short_way() -> None:
    """A field of a component by its id, in both forms, alone and within text."""
    for text in (
        '$(components.#[_component_id="vpc::a-1.x"].vpc_aws_id)',
        '{{ components["vpc::a"].id }}',
        'join {{components["vpc::a"].tags.x }} as {{ components["b"] }}',
    ):
        assert references._read_common(text) is not None
