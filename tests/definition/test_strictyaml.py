"""YAML: what it means as JSON, and what is refused, with its line."""

import json
from typing import Any

import pytest
import yaml
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from support.builds import build, change, prepare

from scheduler.definition import strictyaml
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.notation import read_text
from scheduler.definition.strictyaml import convert
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidYAML

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
MISREAD = ["yes", "no", "012", "1_000", "2026-01-12", "12:30:00", "~", "<<", "=", "0x1f", ".nan"]
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**40), 10**40)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS
    | st.sampled_from(MISREAD)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)


class Quoting(yaml.SafeDumper):
    """Writes what YAML 1.2 would read otherwise in quotes; PyYAML does so by YAML 1.1 only."""


def _as_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style='"')


Quoting.add_representer(str, _as_text)


def read(text: str) -> Any:
    found = convert(text.encode())
    return None if found is None else json.loads(found.json)


def refusal(text: str) -> tuple[int, str]:
    with pytest.raises(InvalidYAML) as caught:
        convert(text.encode())
    return caught.value.line, str(caught.value)


@given(VALUES, st.sampled_from([None, True, False]))
def test_what_was_written_is_read(value: Any, flow: bool | None) -> None:
    """Any JSON value, written as YAML in any style, is the same value again."""
    text = yaml.dump(value, Dumper=Quoting, default_flow_style=flow, allow_unicode=False)
    assert read(text) == value


@given(VALUES)
def test_json_is_yaml(value: Any) -> None:
    """JSON is read by the reader of YAML as what it is, but for escapes of half a character."""
    text = json.dumps(value, ensure_ascii=False)
    if not any(mark in text for mark in "\x7f\x85\u2028\u2029\ufeff") and text.isprintable():
        assert read(text) == value


@given(st.dictionaries(st.text("abcxyz", min_size=1), VALUES, max_size=4), VALUES)
def test_a_build_is_the_same_in_both_notations(options: dict[str, Any], field: Any) -> None:
    """Written as YAML and as JSON it has one digest: to the scheduler it is the same build."""
    document = build(change("vpc::a", field=field, _raw=["field"]), change("net::a"), own=options)
    text = read_text("build.yaml", yaml.dump(document, Dumper=Quoting).encode())
    assert text is not None
    assert read_build(text.json).digest == prepare(document).digest


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("True", True),
        ("~", None),
        ("", None),
        ("2026-01-12", "2026-01-12"),
        ("2026-01-12T10:00:00Z", "2026-01-12T10:00:00Z"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("0o17", 15),
        ("0x1F", 31),
        ("+3", 3),
        ("-7", -7),
        ("1.", 1.0),
        (".5", 0.5),
        ("-.5e1", -5.0),
        ("1e3", 1000.0),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        ("1.2.3", "1.2.3"),
        ("10.0.0.0/16", "10.0.0.0/16"),
        ("vpc::main", "vpc::main"),
        ("'012'", "012"),
        ("!!str 012", "012"),
        ("! 12", "12"),
        ("!!int '12'", 12),
        ("!!float 12", 12),
        ("|\n  a\n  b\n", "a\nb\n"),
        (">-\n  a\n  b\n", "a b"),
        ('$(components.#[_component_id="vpc::main"].x)', '$(components.#[_component_id="vpc::main"].x)'),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    """A plain word is true, false, null or a number by the core schema, and otherwise a text."""
    assert read(f"x: {text}") == {"x": value}
    assert type(read(f"x: {text}")["x"]) is type(value)


@pytest.mark.parametrize(
    ("text", "line", "message"),
    [
        ("a: 1\nb: 012\n", 2, "a number begins with a zero: quote it if it is a text"),
        ("a: .nan", 1, ".nan is no number that JSON has"),
        ("a: -.inf", 1, "-.inf is no number that JSON has"),
        ("a: 1\nb: 2\na: 3\n", 3, "the key 'a' stands in line 1 already"),
        ("1: x", 1, "a key is a text, and '1' is a number: write it in quotes"),
        ("true: x", 1, "'true' is true or false"),
        ("~: x", 1, "'~' is empty or null"),
        ("? [a]\n: b", 1, "a key is a text, and no list or object"),
        ("a:\n  b: !ref x", 2, "the tag !ref: a build holds texts"),
        ("a: !!binary aGk=", 1, "the tag !!binary"),
        ("a: !!timestamp 2026-01-12", 1, "the tag !!timestamp"),
        ("a: !!set {x}", 1, "the tag !!set"),
        ("a: !!int x", 1, "a value cannot be read as !!int"),
        ("a: 1\nb: *c\n", 2, "an alias (*) has no anchor above it: quote it if it is a text"),
        ("a: &a [*a]", 1, "*a stands within what it refers to"),
        ("<<: 3", 1, "<< takes an object, or a list of them"),
        ("a: 1\n---\nb: 2\n", 2, "a second document begins here"),
        ("%YAML 1.1\n---\na: 1", 1, "remove the directive %YAML 1.1"),
        ("a: {{ x }}", 1, "an expression in {{ }} has to stand in quotes here: '{{ ... }}'"),
        ("a: 1\nb: {{ x }}-y", 2, "an expression in {{ }} has to stand in quotes here"),
        ("b:\n - {{ x }}", 2, "an expression in {{ }} has to stand in quotes here"),
        ("a: @x", 1, "quote a text that begins with such a character"),
        ("a:\n\t- x", 2, "a tab: YAML is indented with spaces"),
        ("a: b: c", 1, "mapping values are not allowed"),
        ("a: 1\nb: 'x\nc: 2\n", 4, "while scanning a quoted scalar from line 2"),
        ("a: 1\nb: \x01", 2, "the character U+0001, which YAML does not allow"),
        ("a: 1\nb: \u2028", 2, "the character U+2028, a line break in some versions"),
        (f"a: 0x{'f' * 400}", 1, "max_digits 300"),
        (f"a: {'[' * 70}{']' * 70}", 1, "nested deeper than max_depth 64"),
        ("[" * 5_000, 1, "exceeded maximum nesting depth"),
    ],
)
def test_what_json_cannot_say_is_refused(text: str, line: int, message: str) -> None:
    """The message has a cure where there is one; the line is that of the mistake."""
    found, said = refusal(text)
    assert message in said
    assert found == line


def test_bytes_that_are_no_text_are_refused() -> None:
    """YAML is UTF-8 here; a byte order mark does no harm."""
    with pytest.raises(InvalidYAML, match="not UTF-8: byte 0xff") as caught:
        convert(b"a: 1\nb: \xff")
    assert caught.value.line == 2
    found = convert(b"\xef\xbb\xbfa: 1")
    assert found is not None
    assert json.loads(found.json) == {"a": 1}


@pytest.mark.parametrize("text", ["", "# only this\n", "\n\n"])
def test_nothing_is_no_document(text: str) -> None:
    """Comments are not a value."""
    assert convert(text.encode()) is None


def test_aliases_and_merge_keys_are_resolved() -> None:
    """What an object has itself goes before what it merges, whatever the order; the first of a list wins."""
    text = """
base: &base {size: 1, zone: a}
more: &more {zone: b, colour: red}
key: &key name
one: {<<: *base, size: 2}
two: {size: 3, <<: [*more, *base]}
"<<": plain
*key : x
again: [*base, *key]
"""
    assert read(text) == {
        "base": {"size": 1, "zone": "a"},
        "more": {"zone": "b", "colour": "red"},
        "key": "name",
        "one": {"size": 2, "zone": "a"},
        "two": {"size": 3, "zone": "b", "colour": "red"},
        "<<": "plain",
        "name": "x",
        "again": [{"size": 1, "zone": "a"}, "name"],
    }


def test_few_lines_cannot_stand_for_billions_of_values() -> None:
    """Aliases of aliases are counted before they are written, and refused."""
    lines = ["a: &a [x, x, x, x, x, x, x, x, x]"]
    lines += [
        f"{b}: &{b} [{', '.join(f'*{a}' for _ in range(9))}]"
        for a, b in zip("abcdefgh", "bcdefghi", strict=True)
    ]
    line, message = refusal("\n".join(lines))
    assert message == "aliases such as *f add more than 1,000,000 values, the limit"
    assert line == 7


def test_a_long_text_cannot_be_multiplied() -> None:
    """The bytes that aliases add are bounded as well."""
    limits = evolve(DEFAULT_LIMITS, max_definition_bytes=10_000)
    text = f"a: &a {'x' * 1_000}\nb: [{', '.join(['*a'] * 20)}]"
    with pytest.raises(InvalidYAML, match="make it too large: max_definition_bytes is 10000"):
        convert(text.encode(), limits)


def test_aliases_cannot_nest_deeper_than_json_may() -> None:
    """Each line adds a level, and none of them looks deep."""
    lines = ["a0: &a0 [1]", *(f"a{at}: &a{at} [*a{at - 1}]" for at in range(1, 100))]
    assert refusal("\n".join(lines)) == (64, "nested deeper than max_depth 64")


def test_it_is_read_without_the_parser_in_c(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where PyYAML was built without libyaml, the result is the same."""
    text = "a: &a {b: [1, '2', 3.5]}\nc: {<<: *a}\nd: |\n  x\n  y\n"
    expected = read(text)
    monkeypatch.setattr(strictyaml, "_LOADER", yaml.SafeLoader)
    assert read(text) == expected
    assert refusal("a: 1\na: 2")[0] == 2
    assert refusal("a: [1,\nb: 2\n")[0] == 3
    assert refusal("a: \x01")[1] == "the character U+0001, which YAML does not allow"
