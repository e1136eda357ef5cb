"""Values beside a build's file: how they are read, merged, and traced back."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import build, change, prepare

from scheduler.definition.lines import Lines
from scheduler.definition.strictjson import decode
from scheduler.definition.values import (
    Assignment,
    Overlay,
    ValuesFile,
    assigned,
    build_id,
    merged,
    parse_assignment,
    unused,
)
from scheduler.definition.warnings import options_read
from scheduler.errors import InvalidSettings

KEYS = st.sampled_from("abc")
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 3) | st.none() | st.lists(st.integers(0, 3), max_size=2),
    lambda inner: st.dictionaries(KEYS, inner, min_size=1, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(KEYS, VALUES, max_size=3)


def leaves(value: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """What is no object, by its path."""
    if not isinstance(value, dict):
        return {path: value}
    found: dict[tuple[str, ...], Any] = {}
    for key, inner in value.items():
        found |= leaves(inner, (*path, key))
    return found


@given(OBJECTS, OBJECTS)
def test_what_is_put_over_wins_and_the_rest_stays(under: Any, over: Any) -> None:
    """Every value of the upper one is there; of the lower one what is in nobody's way."""
    found = leaves(merged(under, over))
    above = leaves(over)
    assert not over or all(found[path] == value for path, value in above.items())
    for path, value in leaves(under).items():
        if not over or not any(path[: len(one)] == one or one[: len(path)] == path for one in above):
            assert found[path] == value


@given(OBJECTS, OBJECTS, OBJECTS)
def test_merging_has_no_brackets(one: Any, two: Any, three: Any) -> None:
    """Files can be merged two at a time, from either end; an empty one and the same again change nothing."""
    assert merged(one, {}) == one == merged({}, one)
    assert merged(one, one) == one
    # An object in place of a value cuts off what was below it, whenever that is done.
    if not clash(one, two, three):
        assert merged(merged(one, two), three) == merged(one, merged(two, three))


def clash(*values: Any) -> bool:
    """Whether something is an object in one of them and not in another."""
    kinds = {isinstance(value, dict) for value in values}
    if kinds != {True}:
        return len(kinds) > 1
    keys = {key for value in values for key in value}
    return any(clash(*(value[key] for value in values if key in value)) for key in keys)


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("size=3", ("size",), 3),
        ("size=3.50", ("size",), 3.5),
        ("on=true", ("on",), True),
        ("none=null", ("none",), None),
        ("zone=eu-1", ("zone",), "eu-1"),
        ("zone=", ("zone",), ""),
        ('zone="3"', ("zone",), "3"),
        ("a.b.c=[1, 2]", ("a", "b", "c"), [1, 2]),
        (r"a\.b.c\\d=x=y", ("a.b", r"c\d"), "x=y"),
        ('tags={"a": 1}', ("tags",), {"a": 1}),
        ("account=012", ("account",), "012"),
        ("x=NaN", ("x",), "NaN"),
        ("n=123456789012345678901234567890", ("n",), 123456789012345678901234567890),
    ],
)
def test_an_assignment_is_json_where_it_can_be(text: str, path: tuple[str, ...], value: Any) -> None:
    """Otherwise it is a text; as a string it is one in any case."""
    found = parse_assignment(text, "--set")
    assert (found.path, found.value, found.doubtful) == (path, value, False)
    written = text.partition("=")[2]
    assert parse_assignment(text, "--set-string", as_string=True).value == written


def test_broken_json_is_a_text_and_doubtful() -> None:
    """A bracket was probably forgotten: there is a warning."""
    assert parse_assignment('tags={"a": 1', "--set").doubtful
    assert not parse_assignment("tags={", "--set-string", as_string=True).doubtful


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size", "--set: 'size' has no value: write PATH=VALUE, as in size=3"),
        ("=3", "--set: '' is no path of keys"),
        ("a..b=3", "--set: 'a..b' is no path of keys"),
        (".a=3", "no path of keys"),
        ("a.=3", "no path of keys"),
        ("a" + ".a" * 60 + "=hunter2", "a path has at most 60 keys; this one has 61"),
        ("n=" + "9" * 400, "--set n: an integer of more digits than max_digits 300"),
    ],
)
def test_an_assignment_without_a_place_is_refused(text: str, message: str) -> None:
    """The message says what is wrong, and never shows a value."""
    with pytest.raises(InvalidSettings) as caught:
        parse_assignment(text, "--set")
    assert message in str(caught.value)
    assert "hunter2" not in str(caught.value)


def assign(options: Any, text: str) -> Any:
    return assigned(options, parse_assignment(text, "--set"))


def test_an_assignment_makes_its_way() -> None:
    """Objects are made where there is nothing; numbers lead into lists; an object is merged into another."""
    before = {"a": {"b": 1}, "list": [{"x": 1}, 2]}
    assert assign({}, "a.b.c=1") == {"a": {"b": {"c": 1}}}
    assert assign({"a": None}, "a.b=1") == {"a": {"b": 1}}
    assert assign({"a": {"b": 1}}, 'a={"c": 2}') == {"a": {"b": 1, "c": 2}}
    assert assign(before, "list.0.x=5") == {"a": {"b": 1}, "list": [{"x": 5}, 2]}
    assert before == {"a": {"b": 1}, "list": [{"x": 1}, 2]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("size.x=1", "--set: options.size is a number, and has no 'x'"),
        (
            "list.2=1",
            "--set: options.list is a list of 2, counted from 0, and has no '2'; give the whole list",
        ),
        ("list.x=1", "has no 'x'"),
    ],
)
def test_what_is_in_the_way_is_named(text: str, message: str) -> None:
    """A value is not replaced by an object unasked."""
    with pytest.raises(InvalidSettings) as caught:
        assign({"size": 3, "list": [1, 2]}, text)
    assert message in str(caught.value)


def overlay() -> Overlay:
    first, second = b'{"size": 1,\n"zone": "a"}', b'{\n"zone": "b", "retry": {\n"attempts": 2}}'
    files = tuple(
        ValuesFile(name, decode(data), Lines(data))
        for name, data in {"a.json": first, "b.json": second}.items()
    )
    return Overlay("b-2", files, (Assignment("--set", ("tags", "env"), "prod"),))


def test_layers_are_applied_in_order() -> None:
    """The file, the values, the assignments; everything else stays as it was written, digits and order."""
    data = b'{"big": 123456789012345678901234567890.10, "options": {"size": 0, "own": 1}, "id": "b-1"}'
    found = overlay().apply(data)
    assert found.startswith(b'{"big":123456789012345678901234567890.10,"options":')
    assert decode(found)["id"] == "b-2"
    assert decode(found)["options"] == {
        "size": 1, "own": 1, "zone": "b", "retry": {"attempts": 2}, "tags": {"env": "prod"},
    }  # fmt: skip
    assert Overlay().apply(data) == data


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"options": 1e999}'])
def test_what_is_no_build_is_left_to_its_checks(data: bytes) -> None:
    """They know best what is wrong."""
    assert overlay().apply(data) == data


def test_options_that_are_no_object_take_no_values() -> None:
    """It is said; they are not replaced."""
    with pytest.raises(InvalidSettings, match="the build's options are a list, and values need an object"):
        overlay().apply(b'{"options": []}')


@pytest.mark.parametrize(
    ("place", "origin"),
    [
        ("id", "--id"),
        ("options.tags", "--set tags.env"),
        ("options.tags.env.x", "--set tags.env"),
        ("options.zone", "b.json:2"),
        ("options.retry", "b.json:2"),
        ("options.size", "a.json:1"),
        ("options.own", None),
        ("changes[0].options", None),
    ],
)
def test_a_place_is_traced_to_the_last_that_touched_it(place: str, origin: str | None) -> None:
    """A flag, or a file and its line; None is the build's own file."""
    assert overlay().origin(place) == origin


def test_values_never_show_in_a_representation() -> None:
    """They may be secret."""
    shown = repr(Overlay(None, (), (parse_assignment("password=hunter2", "--set"),)))
    assert "hunter2" not in shown


@pytest.mark.parametrize("text", ["", "a b", "ä", "x" * 129])
def test_an_id_is_checked(text: str) -> None:
    """By the rule of the wire."""
    with pytest.raises(InvalidSettings, match="--id: "):
        build_id(text)
    assert build_id("prod/eu-1:a@b_c.d") == "prod/eu-1:a@b_c.d"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ build.options.size }}", ["colour", "tags.env"]),
        ("$(options.tags.env)", ["colour", "size"]),
        ("$(options.tags)", ["colour", "size"]),
        ("{{ build.options.tags.env.deep | default(1) }}", ["colour", "size"]),
        ("{{ build['options']['colour'] if build.options.size is defined else 1 }}", ["tags.env"]),
        ("{{ build.options }}", []),
        ("$(options)", []),
        ("{{ component.options.size }}", ["colour", "size", "tags.env"]),
        ("plain", ["colour", "size", "tags.env"]),
    ],
)
def test_what_nothing_reads_is_found(text: str, expected: list[str]) -> None:
    """A path is read where a reference names it, a part of it, or what it is part of."""
    options = {"size": 1, "colour": "red", "tags": {"env": {"deep": "x"}}}
    prepared = prepare(build(change("vpc::a", text=text, options={"size": 1}), options=options))
    paths = [("colour",), ("size",), ("tags", "env")]
    assert [".".join(path) for path in unused(paths, [*options_read(prepared.templates)])] == expected
