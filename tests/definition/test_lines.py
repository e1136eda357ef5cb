"""Places of a build by line, in JSON and in YAML."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.lines import Lines
from scheduler.definition.notation import read_text

KEYS = st.text("abcxyz", min_size=1, max_size=4)
VALUES = st.recursive(
    st.integers(0, 9) | st.text("äb\u20ac", max_size=3),
    lambda inner: (
        st.lists(inner, min_size=1, max_size=3) | st.dictionaries(KEYS, inner, min_size=1, max_size=3)
    ),
    max_leaves=10,
)


def places(value: Any, place: str) -> list[tuple[str, str | None]]:
    """Every place below, with the key that stands in its line; None for an element of a list."""
    found: list[tuple[str, str | None]] = []
    if isinstance(value, dict):
        for key, inner in value.items():
            found += [(f"{place}.{key}", key), *places(inner, f"{place}.{key}")]
    elif isinstance(value, list):
        for at, inner in enumerate(value):
            found += [(f"{place}[{at}]", None), *places(inner, f"{place}[{at}]")]
    return found


@given(st.lists(st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), min_size=1, max_size=3), st.data())
def test_a_place_is_found_in_both_notations(fields: list[dict[str, Any]], data: Any) -> None:
    """The line of a member holds its key; by the component's id the place is the same as by its number."""
    changes = [{"_component_id": f"vpc::{at}.x", **one} for at, one in enumerate(fields)]
    document = {"id": "b", "changes": changes}
    at = data.draw(st.integers(0, len(changes) - 1))
    place, key = data.draw(st.sampled_from(places(changes[at], "")))
    texts = {
        "b.json": json.dumps(document, indent=1, ensure_ascii=False),
        "b.yaml": yaml.dump(document, allow_unicode=True, default_flow_style=False, sort_keys=False),
    }
    for name, written in texts.items():
        text = read_text(name, written.encode())
        assert text is not None
        line = text.lines.of(f"changes[{at}]{place}")
        assert line == text.lines.of(f"vpc::{at}.x{place}")
        assert line is not None
        assert key is None or f"{key}" in written.splitlines()[line - 1].split(":")[0]


YAML = b"""\
id: b
options:
  retry: {attempts: 3}
changes:
  - _component_id: "vpc::a.b"
    tags:
      x.y: 1
      z: [1,
        2]
  - &net
    _component_id: n
  - <<: *net
    _component_id: m
    size: 1
edges:
  - source: a
"""


@pytest.mark.parametrize(
    ("place", "line"),
    [
        ("id", 1),
        ("options.retry.attempts", 3),
        ("options.nothing.there", 2),
        ("changes", 4),
        ("changes[0]", 5),
        ("vpc::a.b", 5),
        ("vpc::a.b.tags.x.y", 7),
        ("vpc::a.b.tags.z[1]", 9),
        ("vpc::a.b.tags.gone", 6),
        ("changes[1]._provider", 10),
        ("m.size", 14),
        ("changes[9]", 4),
        ("edges[0].source", 16),
        ("nobody::here", None),
        ("", None),
    ],
)
def test_of_what_is_missing_the_nearest_is_named(place: str, line: int | None) -> None:
    """Where there is nothing, the line is that of what it would stand in."""
    text = read_text("b.yaml", YAML)
    assert text is not None
    assert text.lines.of(place) == line


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b"\xff", b'{"changes": [[1], {"_component_id": 3}]}', b"[" * 100_000]
)
def test_what_is_no_build_has_no_lines(text: bytes) -> None:
    """It is refused for something else, and that has a place of its own."""
    assert Lines(text).of("changes[0].x") in {None, 1}


def test_numbers_may_have_any_length() -> None:
    """What is too long for Python is passed over."""
    text = b'{"a": ' + b"9" * 5_000 + b',\n"b": 1e999}'
    assert Lines(text).of("b") == 2
