"""Expressions: where they end, what they may say, and what they come to."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.template.expressions import Expression, compile_expression, pure_path, split
from scheduler.definition.template.grammar import FILTERS, Lookup
from scheduler.definition.template.sandbox import element
from scheduler.errors import TemplateError, Unresolved

BUILD = {
    "id": "b1",
    "n": 5,
    "f": 2.5,
    "yes": True,
    "nil": None,
    "text": "Hello world",
    "items": ["b", "a", "b"],
    "keys": {"items": "mine", "get": "too", "x-y": 1},
    "rows": [{"n": "x", "v": 2}, {"n": "y", "v": 1}],
}


class Values:
    """Answers look-ups from a dict, and counts work."""

    max_digits = 300

    def __init__(self) -> None:
        self.work = 0

    def lookup(self, lookup: Lookup, computed: Sequence[object] = ()) -> object:
        following = iter(computed)
        value: Any = {"build": BUILD, "components": {"vpc::a": BUILD}, "component": BUILD}[lookup.root]
        for key in lookup.keys:
            value = element(value, next(following) if key is None else key)
            if value is None:
                raise Unresolved(f"no {lookup.keys}")
        return value

    def spend(self, work: int) -> None:
        self.work += work


def value(source: str) -> Any:
    return compile_expression(source).evaluate(Values())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("build.id", "b1"),
        (" build . id ", "b1"),
        ('components["vpc::a"].n', 5),
        ("components['vpc::a']['n']", 5),
        ("build.items[0]", "b"),
        ("build.items[-1]", "b"),
        ("build.items.1", "a"),
        ('build["x" ~ "y"] | default("none")', "none"),
        ("build.keys.items", "mine"),
        ("build.keys.get", "too"),
        ('build.keys["x-y"]', 1),
        ("build.items | length", 3),
        ("build.items | join('-')", "b-a-b"),
        ("build.rows | join(',', attribute='n')", "x,y"),
        ("build.items | sort | unique | join", "ab"),
        ("build.rows | sort(attribute='v') | first", {"n": "y", "v": 1}),
        ("(build.rows | last).v", 1),
        ("build.items[0:2]", ["b", "a"]),
        ("build.text[0:5] | upper", "HELLO"),
        ("build.n + 1 - 3", 3),
        ("-build.n", -5),
        ("build.items + ['c']", ["b", "a", "b", "c"]),
        ("'a' + 'b'", "ab"),
        ("build.n ~ build.yes ~ build.f ~ build.items", '5true2.5["b","a","b"]'),
        ("build.yes | string", "true"),
        ("'17' | int + 1", 18),
        ("'x' | int(3)", 3),
        ("'1.5' | float", 1.5),
        ("build.f | round", 2.0),
        ("build.f | round(0, 'ceil') | int", 3),
        ("-3 | abs", 3),
        ("' x ' | trim ~ 'y' | title ~ 'z' | capitalize", "xYZ"),
        ("{'a': [1, none]} | tojson", '{"a":[1,null]}'),
        ("build.missing | default('d')", "d"),
        ("build.missing.deeper | default('d')", "d"),
        ("build.nil | default('d')", "d"),
        ("build.nil.deeper | default('d')", "d"),
        ("components['nobody'].x | default('d')", "d"),
        ("components['nobody'] is defined", False),
        ("build.nil is defined", False),
        ("build.n is defined and build.n > 3", True),
        ("build.missing is undefined", True),
        ("[build.missing] | default('d')", "d"),
        ("{'a': {'b': (1, build.missing)}} | default('d')", "d"),
        ("[1, build.missing][0] | default('d')", "d"),
        ("[build.missing] is defined", False),
        ("build.items[build.missing] | default('d')", "d"),
        ("[1, 2][build.missing] is undefined", True),
        ("['a', build.missing] if build.missing is defined else 'd'", "d"),
        ("[1, build.n, 'x' ~ build.id]", [1, 5, "xb1"]),
        ("{'a': build.n, 'b': (build.id,)}", {"a": 5, "b": ("b1",)}),
        ("'' | default('d')", ""),
        ("'' | default('d', true)", "d"),
        ("'big' if build.n > 3 else 'small'", "big"),
        ("'x' if build.n is even else build.id", "b1"),
        ("not build.yes", False),
        ("'wor' in build.text", True),
        ("build.n in [1, 5]", True),
        ("1 < build.n <= 5", True),
        ("build[build.items[1] ~ 'bsent'] | default(build['i' ~ 'd'])", "b1"),
        ("components['vpc::' ~ 'a'].n", 5),
        ("{'a': {'b': 1}}", {"a": {"b": 1}}),
        ("{'items': 1}.items", 1),
        ("(1, 2)", (1, 2)),
        ("true", True),
        ("12345678901234567890123", 12345678901234567890123),
    ],
)
def test_value(source: str, expected: object) -> None:
    """An expression comes to a value, with its type."""
    found = value(source)
    assert found == expected
    assert type(found) is type(expected)


MISSING = [
    "[build.missing, 'x']",
    "[build.missing] | length",
    "('x', build.missing) | last",
    "['x', [build.missing]] | first",
    "{'a': build.missing}",
    "{'a': build.missing} | length",
    "{'b': 1, 'a': build.missing}['b']",
    "{'a': [1, {'b': build.missing}]} | tojson",
    "{build.missing: 1}",
    "[build.missing if build.yes else 1] | length",
    "[1 if build.missing else 2] | length",
    "(['x', build.missing] if build.yes else []) | join",
    "[build.missing] + [1]",
    "[1] + [build.missing]",
    "build.missing + [1]",
    "[1] + build.missing",
    "-build.missing",
    "1 - build.missing",
    "'a' ~ build.missing",
    "'a' ~ [build.missing]",
    "build.missing in []",
    "build.missing not in []",
    "build.missing in 'abc'",
    "build.missing in [1]",
    "'a' in build.missing",
    "1 in [build.missing]",
    "build.missing == 1",
    "1 < build.missing",
    "build.missing and true",
    "true and build.missing",
    "build.missing or true",
    "not build.missing",
    "build.text[build.missing:]",
    "build.text[:build.missing]",
    "build.text[::build.missing]",
    "build.missing[0:1]",
    "build.items[build.missing]",
    "[1, 2][build.missing]",
    "build[build.missing]",
    "build.items | join(build.missing)",
    "build.rows | join(',', attribute=build.missing)",
    "build.rows | sort(attribute=build.missing)",
    "build.items | sort(build.missing)",
    "'5' | int(build.missing)",
    "build.f | round(build.missing)",
    "'a' | default(build.missing) | length + build.missing",
    *(f"build.missing | {name}" for name in sorted(FILTERS - {"default"})),
    *(f"[build.missing] | {name}" for name in sorted(FILTERS - {"default"})),
    *(f"build.missing is {name}" for name in ("string", "number", "integer", "float", "boolean", "true")),
    *(f"build.missing is {name}" for name in ("false", "mapping", "sequence", "even", "odd")),
    *(f"[build.missing] is {name}" for name in ("sequence", "mapping", "string")),
    *(f"build.missing is {name}(1)" for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    *(f"1 is {name}(build.missing)" for name in ("eq", "ne", "lt", "le", "gt", "ge")),
    "1 is in([build.missing])",
    "build.missing is in([])",
]


@pytest.mark.parametrize("source", MISSING)
@pytest.mark.parametrize("around", ["{}", "[{}]", "({}) | string | length", "[1 if ({}) else 2] | length"])
def test_nothing_swallows_what_is_missing(source: str, around: str) -> None:
    """What needs a field that is missing, in lists, filters, tests and comparisons, fails for that field."""
    with pytest.raises(Unresolved, match=r"^no \('missing',\)$"):
        value(around.format(source))


NESTED = st.recursive(
    st.sampled_from(["build.n", "'x'", "build.items", "build.missing"]),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"[{', '.join(parts)}]"),
        st.tuples(inner, inner).map(lambda parts: f"({parts[0]}, {parts[1]})"),
        inner.map(lambda part: f"{{'k': {part}}}"),
        inner.map(lambda part: f"(({part}) | tojson)"),
        inner.map(lambda part: f"([{part}] | length)"),
        inner.map(lambda part: f"((({part}), 'x') | last)"),
        inner.map(lambda part: f"({part} ~ 'x')"),
        inner.map(lambda part: f"(({part}) if build.yes else 0)"),
        inner.map(lambda part: f"(1 if ({part}) is string else 2)"),
        inner.map(lambda part: f"[({part}) in []]"),
    ),
    max_leaves=6,
)


@given(NESTED)
def test_what_is_missing_is_missing_however_deep(source: str) -> None:
    """An expression has a value if and only if nothing that it needs is missing."""
    if "missing" in source:
        with pytest.raises(Unresolved, match=r"^no \('missing',\)$"):
            value(source)
    else:
        assert value(source) is not None


@pytest.mark.parametrize(
    "source",
    [
        "build.rows | sort(attribute='missing')",
        "[build.rows[0]] | sort(attribute='missing')",
        "[build.rows[0]] | sort(attribute='v,missing')",
        "[build.rows[0]] | unique(attribute='missing')",
        "[build.rows[0]] | join(attribute='missing')",
        "build.rows[0:0] | first",
        "[] | last",
        "[[] | first] | length",
        "[1 if false] | length",
    ],
)
def test_nothing_swallows_what_filters_find_missing(source: str) -> None:
    """An attribute that elements lack, the first of nothing and a branch that is not there are refused."""
    with pytest.raises(Unresolved):
        value(source)


@pytest.mark.parametrize(
    "source",
    [
        "build.missing",
        "build.nil",
        "none",
        "build.missing ~ 'x'",
        "build.nil ~ 'x'",
        "build.missing | upper",
        "build.missing.deeper",
        "[] | first",
        "'x' if build.n > 10",
        "build.items.append",
        "build.text.upper",
        "{'a': 1}.keys",
        "components['nobody'].x",
        "[build.nil] | join",
        "build[build.missing]",
    ],
)
def test_unresolved(source: str) -> None:
    """What is absent or null is unresolved, and so is whatever needs it."""
    with pytest.raises(Unresolved):
        value(source)


@pytest.mark.parametrize(
    "source",
    [
        "build.n + 'x'",
        "build.items - 1",
        "build.n | length",
        "[1, 'a'] | sort",
        "build.n | round(1000000000)",
        "build.n | round(-1000000000)",
        "build.n | round(0, '__class__')",
        "{[1]: 2}",
        "{1: 2}",
        "'nan' | float",
        "'1e999' | float",
    ],
)
def test_refused_when_evaluated(source: str) -> None:
    """What cannot be computed, or cannot be said in JSON, is an error with a text never another exception."""
    with pytest.raises(TemplateError) as caught:
        value(source)
    assert not isinstance(caught.value, Unresolved)
    assert 0 < len(str(caught.value)) < 300


@pytest.mark.parametrize(
    "source",
    [
        "",
        " ",
        "build.",
        "build id",
        "build..id",
        "nobody",
        "components",
        "components | length",
        "components[0].x",
        "self",
        "range(3)",
        "build.id.upper()",
        "build.id | nope",
        "build.id | map('upper')",
        "build.id is nope",
        "build.id is callable",
        "build.id | default(*build.items)",
        "build.n * 2",
        "build.n / 2",
        "build.n // 2",
        "build.n % 2",
        "build.n ** 2",
        "+build.n",
        "build._id",
        "build.__class__",
        "(build.keys).__class__",
        "build[0:1]._x",
        "lambda: 1",
        "[x for x in y]",
        "build.id }}{{ build.id",
        "{# c #}",
        "build.id -",
        "1" * 5000,
        "'unclosed",
        "(" * 2000,
        "not " * 3000 + "x",
        "[" * 41 + "]" * 41,
        " ~ ".join(["build.id"] * 300),
        "build" + ".a" * 41,
        "build.id" + " " * 16 * 1024,
    ],
)
def test_refused_when_compiled(source: str) -> None:
    """Everything outside the allow-list or over a bound is refused before anything runs."""
    with pytest.raises(TemplateError) as caught:
        compile_expression(source)
    assert 0 < len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ('components["a.b::c"].x.y', ("a.b::c", "x", "y")),
        ("components['a']['b'][0][-1].c", ("a", "b", 0, -1, "c")),
        ('components["ü{}}}"].x', ("ü{}}}", "x")),
        ("  components [ 'a' ] . x  ", ("a", "x")),
    ],
)
def test_pure_path_needs_no_jinja(source: str, keys: tuple[object, ...]) -> None:
    """An expression that is only a path is read without Jinja2, and Jinja2 would read it the same."""
    assert pure_path(source) == Lookup("components", keys)  # type: ignore[arg-type]
    expression = compile_expression(source)
    assert expression.program is None
    # In parentheses it is not recognized, and goes through the parser of Jinja2.
    assert compile_expression(f"({source})").lookups == expression.lookups
    assert compile_expression(f"({source})").program is None


@pytest.mark.parametrize(
    "source", ["componentsx.y", "build.é", "build.é1", "build.x.0", "build['a\\'b']", "build.x y"]
)
def test_what_only_looks_like_a_pure_path_is_left_to_jinja(source: str) -> None:
    """When in doubt the parser of Jinja2 decides."""
    assert pure_path(source) is None


def test_expressions_of_one_shape_share_a_program() -> None:
    """Ten thousand components with the same expression but for the id compile it once."""
    first = compile_expression("components['a'].name | upper")
    second = compile_expression("components[ 'b' ].title | upper")
    third = compile_expression("components['a'].name | lower")
    assert first.program is second.program
    assert first.program is not third.program
    assert first.lookups != second.lookups


@pytest.mark.parametrize(
    ("source", "guarded"),
    [
        ("build.x | default('')", (True,)),
        ("build.x is defined", (True,)),
        ("build.x | upper", (False,)),
        ("build.x if build.y else build.z", (True, False, True)),
        ("build.x and build.y", (False, True)),
        ("(build.x | upper) | default('')", (True,)),
        ("build.x ~ (build.y | default(build.z))", (False, True, True)),
    ],
)
def test_guarded(source: str, guarded: tuple[bool, ...]) -> None:
    """A look-up that the expression can do without is marked."""
    expression = compile_expression(source)
    by_name = dict(zip([lookup.keys[0] for lookup in expression.lookups], expression.guarded, strict=True))
    assert tuple(by_name[name] for name in "xyz"[: len(by_name)]) == guarded


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("{{ build.id }}", 1),
        ("a{{ build.id }}b{{ build.n }}c", 5),
        ("{{ '}}' }}x", 2),
        ('{{ "}}" ~ "{{" }}', 1),
        ("{{ {'a': {'b': 1}} }}", 1),
        ("{{ {'a': {'b': 1}}}}", 1),
        ("{{'\\'}}'}}", 1),
        ("{{{'a': 1}}}", 1),
        ("}} { }} {", 1),
        ("{% if %}{# #}", 1),
    ],
)
def test_split(text: str, count: int) -> None:
    """An expression ends at its own braces, not at those of a literal within it."""
    assert len(split(text)) == count


@pytest.mark.parametrize(
    "text", ["{{", "{{ build.id", "{{ build.id }", "{{ 'a }}", '{{ "}}', "{{ { }}", "x {{ '}}'"]
)
def test_unclosed(text: str) -> None:
    """An expression without an end is refused, with the way out."""
    with pytest.raises(TemplateError, match=r"without '}}'.*_raw"):
        split(text)


@pytest.mark.parametrize("text", ["{{-1}}", "{{- build.n }}", "{{ build.n -}}", "{{+1 }}"])
def test_marks_for_white_space_are_refused(text: str) -> None:
    """Jinja2 would take these for marks and not for signs; the error says which it was."""
    with pytest.raises(TemplateError, match="space"):
        split(text)


def test_single_expression_is_not_text() -> None:
    """Splitting keeps an expression that is alone alone."""
    (only,) = split("{{ build.n }}")
    assert isinstance(only, Expression)
    assert only.evaluate(Values()) == 5
