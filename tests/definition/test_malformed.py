"""What is said of files that are no JSON: what they are, with line and column."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import problems_of

from scheduler.definition.malformed import explain

TEXT = """{
 "id": "b-1", "action": "build.create",
 "name": "x",
 "changes": [
  {"_component_id": "a::1", "_component": "a", "_action": "create", "_provider": "p",
   "note": "y"}
 ]
}"""
PREFIX = "a build is a JSON object: "


@pytest.mark.parametrize("text", ["", " ", "\n\t\r\n"])
def test_an_empty_file_is_called_empty(text: str) -> None:
    """A file with nothing in it, or nothing but white space, is said to be empty."""
    assert problems_of(text.encode()) == [f"{PREFIX}this is empty"]


@pytest.mark.parametrize(
    ("text", "line", "column"),
    [
        ("id: b\naction: build.create\n", 1, 1),
        ("---\nid: b\n", 1, 1),
        ("# a build\n\n  # of ours\r\n  id: b\n", 4, 3),
        ('"id": b', 1, 1),
        ("- id: b\n", 1, 1),
        ("_secret key:\n", 1, 1),
        ("%YAML 1.2\n---\n", 1, 1),
    ],
)
def test_yaml_is_called_yaml(text: str, line: int, column: int) -> None:
    """YAML is recognised, and the place where it begins is named."""
    expected = f"{PREFIX}line {line}, column {column}: this is YAML; convert it to JSON first"
    assert problems_of(text.encode()) == [expected]


@pytest.mark.parametrize("text", ["<html>", 'resource "a" "b" {', "// a build\n{}", "id = 'b'"])
def test_not_everything_is_yaml(text: str) -> None:
    """Of what is neither JSON nor YAML the character is shown that cannot stand there."""
    assert problems_of(text.encode()) == [f"{PREFIX}line 1, column 1: invalid character {text[0]!r}"]


@pytest.mark.parametrize(
    ("encoding", "name"), [("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("utf-32", "UTF-32")]
)
def test_a_byte_order_mark_is_called_one(encoding: str, name: str) -> None:
    """A byte order mark is named with its encoding, and what to do."""
    expected = f"line 1, column 1: a byte order mark of {name}; save it as UTF-8 without one"
    assert problems_of(TEXT.encode(encoding)) == [PREFIX + expected]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_text_in_wide_characters_is_known_without_a_mark(encoding: str) -> None:
    """UTF-16 and UTF-32 are known by the zeros in them."""
    (found,) = problems_of(TEXT.encode(encoding))
    assert found.startswith(f"{PREFIX}line 1, column 1: a zero byte, as in UTF-16")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        (rb"\ud800", r"\ud800"),
        (rb"\udc00", r"\udc00"),
        (rb"\uDBFF\u0041", r"\uDBFF"),
        (rb"\\\ud83d", r"\ud83d"),
        (rb"\ud83d\ude00\ud83d", r"\ud83d"),
        (b"\xed\xa0\x80", "U+D800"),
        (b"\xed\xbf\xbf", "U+DFFF"),
    ],
)
@pytest.mark.parametrize("at", [b'"x"', b'"note"', b'"y"'])
def test_a_lone_surrogate_is_called_one(written: bytes, name: str, at: bytes) -> None:
    """Half of a character, in a value or a key, escaped or as bytes, is named with line and column."""
    before, _, after = TEXT.encode().partition(at)
    (found,) = problems_of(before + at[:-1] + written + b'"' + after)
    whole = f"the lone surrogate {name}, which is half of a character"
    assert found.endswith(whole)
    begun = (before + at[:-1]).decode().splitlines()
    column = (
        len(begun[-1]) + 1 + (written.rfind(b"\\u") if b"ude00" in written or written[1:2] == b"\\" else 0)
    )
    assert found.removesuffix(whole).endswith(f"line {len(begun)}, column {column}: ")


@pytest.mark.parametrize("escaped", [r"\\ud800", r"\ud83d\ude00", r"\"\u0041"])
def test_whole_characters_are_no_surrogates(escaped: str) -> None:
    """A backslash before a `u` and a pair of escapes are fine, also beside another mistake."""
    (found,) = problems_of(TEXT.replace('"x"', f'"{escaped}",,').encode())
    assert found == f"{PREFIX}line 3, column {13 + len(escaped)}: object keys must be strings"


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ('"x"', '"ü",,', "line 3, column 14: object keys must be strings"),
        ('"x"', "'x'", 'line 3, column 10: invalid character "\'"'),
        ('"x"', "NaN", "line 3, column 10: invalid character 'N'"),
        ('"x"', '"a\nb"', r"line 3, column 12: invalid character '\n'"),
        ('"y"}', '"y",}', "line 6, column 16: trailing comma in object"),
    ],
)
def test_the_place_is_told_in_lines_and_characters(old: str, new: str, expected: str) -> None:
    """A grammar mistake is reported by line and column, from 1, in characters."""
    assert problems_of(TEXT.replace(old, new).encode()) == [PREFIX + expected]


def test_other_encodings_are_told_by_their_byte() -> None:
    """Bytes that are no UTF-8 are shown, each with the line and the component that it is in."""
    text = TEXT.replace('"y"}', '"ü"},\n  {"_component_id": "é"}')
    assert problems_of(text.encode("latin-1")) == [
        "changes[0]: line 6, column 13: byte 0xfc, which is not UTF-8",
        "changes[1]: line 7, column 22: byte 0xe9, which is not UTF-8",
    ]


def test_a_file_that_is_cut_off_is_told_by_its_end() -> None:
    """Of a file that ends too early the end is the place."""
    text = TEXT[: TEXT.index('"note"')].rstrip() + "\n\n"
    assert problems_of(text.encode()) == [f"{PREFIX}line 5, column 86: it ends here, in the middle"]


@given(st.binary(max_size=40), st.sampled_from([b"", b'{"id": "', b'{"a": "\\ud8']), st.integers(0, 50))
def test_any_bytes_are_explained(data: bytes, prefix: bytes, at: int) -> None:
    """Whatever the bytes are and whatever the parser says, one line comes out."""
    for where in (None, min(at, len(prefix + data))):
        found: Any = explain(prefix + data, "invalid character", where)
        assert found
        assert "\n" not in found
