"""Paths in the grammar of gjson 1.0."""

import pytest

from scheduler.definition.template.jsonparts import gjson_text
from scheduler.definition.template.paths import MAX_PATH, MAX_SEGMENTS, MISSING, Walker, parse
from scheduler.definition.template.patterns import Pattern
from scheduler.errors import TemplateError

DOCUMENT = {
    "name": {"first": "Tom", "last": "Anderson", "full.name": "Tom Anderson", "st*r": "literal"},
    "age": 37,
    "empty": "",
    "nothing": None,
    "children": ["Sara", "Alex", "Jack"],
    "friends": [
        {"first": "Dale", "last": "Murphy", "age": 44, "nets": ["ig", "fb"], "ok": True},
        {"first": "Roger", "last": "Craig", "age": 68, "nets": [], "ok": False},
        {"first": "Jane", "last": 'Mur"phy]', "age": 47.5, "deep": {"x": "v::1.2"}},
        "not an object",
        {"first": None},
    ],
    "0": "zero",
    "#": "hash",
    "": {"": "blank"},
}


def get(path: str, document: object = DOCUMENT) -> object:
    return Walker().walk(parse(path), document)[0]


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("name.first", "Tom"),
        ("age", 37),
        ("empty", ""),
        ("nothing", None),
        (r"name.full\.name", "Tom Anderson"),
        (r"name.st\*r", "literal"),
        ("children.1", "Alex"),
        ("children.01", "Alex"),
        ("children.#", 3),
        ("0", "zero"),
        ("#", "hash"),
        (".", "blank"),
        ("friends.#.first", ["Dale", "Roger", "Jane", None]),
        ("friends.#.nets.#", [2, 0]),
        ("friends.#.nets.0", ["ig"]),
        ("friends.#.absent", []),
        # Something matches, and nothing of it has that field.
        ("friends.#[first!=x]#.absent", []),
        ("friends.#[first!=x]#.nets.9", []),
        ("friends.#[first!=x]#.#[a=1]#.b", []),
        ('friends.#[last="Murphy"].first', "Dale"),
        ('friends.#[last=="Murphy"].first', "Dale"),
        ("friends.#[last=Murphy].first", "Dale"),
        ("friends.#[ last = Murphy ].first", "Dale"),
        ('friends.#[last="Mur\\"phy]"].first', "Jane"),
        ('friends.#[deep.x="v::1.2"].age', 47.5),
        ("friends.#[deep.x=v::1.2].age", 47.5),
        ('friends.#[last!="Murphy"].first', "Roger"),
        ("friends.#[age>44].first", "Roger"),
        ("friends.#[age>=44].first", "Dale"),
        ("friends.#[age<47.6]#.first", ["Dale", "Jane"]),
        ('friends.#[age<="44"]#.first', ["Dale"]),
        ("friends.#[age=47.5].first", "Jane"),
        ("friends.#[ok=true].first", "Dale"),
        ("friends.#[ok!=true].first", "Roger"),
        ("friends.#[ok=false].first", "Roger"),
        ('friends.#[first%"?a*e"]#.first', ["Dale", "Jane"]),
        ("friends.#[first%R*].age", 68),
        ("child*.2", "Jack"),
        ("c?ildren.0", "Sara"),
        ("na*.la*", "Anderson"),
        # The first key that matches and leads to something, not merely the first that matches.
        ("*.last", "Anderson"),
    ],
)
def test_path_leads_to_value(path: str, value: object) -> None:
    """A path leads to what gjson 1.0 finds."""
    assert get(path) == value


@pytest.mark.parametrize(
    "path",
    [
        "nope",
        "name.nope",
        "name.first.x",
        "age.x",
        "children.3",
        "children.-1",
        "children.x",
        "children.²",
        "children.*",
        "children.#.x.y.#[a=1]",
        "friends.#[last=nobody].first",
        "friends.#[last=nobody]#.first",
        "friends.#[first=null].first",
        "friends.#[age=abc].first",
        "friends.#[nets=ig].first",
        "friends.#[ok<x].first",
        "name.#[first=Tom]",
        "nothing.x",
        "z*",
        "*.*.*.*.*",
    ],
)
def test_path_leads_nowhere(path: str) -> None:
    """What gjson 1.0 does not find is missing, and is never an error."""
    assert get(path) in (MISSING, [])


def test_all_matches_of_nothing_is_missing() -> None:
    """A query for all that fits nothing leads nowhere, while all of no elements is an empty array."""
    assert get("friends.#[last=nobody]#") is MISSING
    assert get("friends.#[last=nobody]#.first") is MISSING
    assert get("friends.#[first!=x]#.absent") == []
    assert get("friends.#.absent") == []


def test_large_integers_compare_exactly() -> None:
    """Integers beyond 53 bits are told apart."""
    document = {"a": [{"n": 2**70, "x": 1}, {"n": 2**70 + 1, "x": 2}]}
    assert get(f"a.#[n={2**70 + 1}].x", document) == 2


@pytest.mark.parametrize(
    "path",
    [
        "a.#[b",
        "a.#[b]",
        "a.#[b=1]x",
        'a.#[b="1]',
        'a.#[b="1"x]',
        "a.#[=1]",
        "a.#[b=1]##",
        "a.#[b!1]",
        "a\\",
        "x" * (MAX_PATH + 1),
        ".".join("a" * (MAX_SEGMENTS + 1)),
    ],
)
def test_unreadable_path_is_refused(path: str) -> None:
    """What cannot be read, or is over a bound, is refused rather than guessed at."""
    with pytest.raises(TemplateError):
        parse(path)


def test_closing_bracket_within_quotes_does_not_end_a_query() -> None:
    """A quoted value may hold what would end the query or the key."""
    assert get('a.#[k="x].y"].v', {"a": [{"k": "x].y", "v": 1}]}) == 1


class Counting(Walker):
    def __init__(self) -> None:
        self.work = 0

    def spend(self, work: int) -> None:
        self.work += work


def test_first_match_that_leads_somewhere() -> None:
    """A key that matches and leads nowhere is passed by."""
    assert get("*.x", {"a": {}, "b": 1, "c": {"x": 2}, "d": {"x": 3}}) == 2


def test_work_is_accounted_for() -> None:
    """Every element that a path looks at is paid for."""
    for path in ("a.#.k", "a.#.*"):
        walker = Counting()
        walker.walk(parse(path), {"a": [{"k": 1}] * 100})
        assert walker.work >= 100 * 32
    walker = Counting()
    walker.walk(parse("a.#[k=x]"), {"a": [{"k": "y" * 10}] * 100})
    assert walker.work >= 100 * 42


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [
        ("*", "", True),
        ("", "", True),
        ("", "a", False),
        ("?", "", False),
        ("?", "é", True),
        ("a*b*c", "aXXbYYc", True),
        ("a*b*c", "aXXbYY", False),
        ("**a**", "bab", True),
        (r"\*", "*", True),
        (r"\*", "x", False),
        ("*\\", "x\\", True),
        ("a?c", "abc", True),
    ],
)
def test_pattern(pattern: str, text: str, fits: bool) -> None:
    """A pattern fits the whole of a text or not at all."""
    assert Pattern(pattern).matches(text) is fits


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (5, "5"),
        (1.5, "1.5"),
        (1.0, "1"),
        (-0.25, "-0.25"),
        (1e21, "1000000000000000000000"),
        (1e-7, "0.0000001"),
        (12345678901234567890123, "12345678901234567890123"),
        (True, "true"),
        (False, "false"),
        ("text", "text"),
        ([1, "a", None], '[1,"a",null]'),
        ({"a": {"b": "ü"}}, '{"a":{"b":"ü"}}'),
    ],
)
def test_text_of_value(value: object, text: str) -> None:
    """A value becomes text as with gjson's String(), except that integers keep all their digits."""
    assert gjson_text(value) == text
