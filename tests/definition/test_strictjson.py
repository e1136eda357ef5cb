"""JSON as it is taken and written."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler.definition import strictjson
from scheduler.definition.limits import Limits
from scheduler.definition.strictjson import (
    decode,
    decode_in_pieces,
    encode,
    encode_sorted,
    kind,
    list_chunks,
    packed,
    packed_size,
    split_list,
    split_object,
    unpacked,
)
from scheduler.errors import InvalidJSON

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**299), 10**299)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "truncated"),
        (b'{"a": 1', "truncated"),
        (b"{a: 1}", "malformed"),
        (b"[1, ]", "malformed"),
        (b"{} {}", "trailing characters"),
        (b"01", "malformed"),
        (b"'a'", "malformed"),
        (b"NaN", "malformed"),
        (b"[NaN]", "malformed"),
        (b"Infinity", "malformed"),
        (b"-Infinity", "malformed"),
        (b"1e400", "beyond what a double holds"),
        (b"[-1e400]", "beyond what a double holds"),
        (b'"a\nb"', "malformed"),
        (b'"\0"', "malformed"),
        (b"\xef\xbb\xbf{}", "malformed"),
        (b'"\xff"', "not UTF-8: byte 0xff"),
        (b'{"\xc3": 1}', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        (b'"\\ud800"', "truncated|malformed"),
        (b'["\\udc00", 1]', "truncated|malformed"),
    ],
)
def test_what_is_no_strict_json_is_refused(data: bytes, says: str) -> None:
    """Bytes outside the grammar are refused with what is wrong."""
    with pytest.raises(InvalidJSON, match=says):
        decode(data)


@pytest.mark.parametrize("sign", [b"", b"-"])
@pytest.mark.parametrize("digits", [301, 1_000, 4_300, 5_000, 100_000])
def test_longer_integers_are_refused_by_name(digits: int, sign: bytes) -> None:
    """An integer of more than 300 digits is refused, with the limit's name and value."""
    for data in (sign + b"7" * digits, b'{"a": [' + sign + b"7" * digits + b"]}"):
        with pytest.raises(InvalidJSON, match="an integer of more digits than max_digits 300"):
            decode(data)


@pytest.mark.parametrize("sign", [b"", b"-"])
@pytest.mark.parametrize("digits", [1, 19, 20, 40, 300])
def test_integers_keep_all_their_digits(digits: int, sign: bytes) -> None:
    """An integer of up to 300 digits is decoded and written digit by digit."""
    data = b'{"n":' + sign + b"7" * digits + b"}"
    assert encode(decode(data)) == data


@pytest.mark.parametrize("sign", [b"", b"-"])
def test_the_first_integer_that_is_too_long(sign: bytes) -> None:
    """Of the integers of 301 digits the smallest is refused as well."""
    with pytest.raises(InvalidJSON, match="max_digits 300"):
        decode(sign + b"1" + b"0" * 300)


@pytest.mark.parametrize("spaces", range(13))
def test_a_long_integer_is_found_wherever_it_begins(spaces: int) -> None:
    """Of an integer with one digit too many no place in a document escapes."""
    limits = Limits(max_digits=5)
    with pytest.raises(InvalidJSON, match="max_digits 5"):
        decode(b"[" + spaces * b" " + b"123456" + 20 * b" " + b"]", limits)
    assert decode(b"[" + spaces * b" " + b"12345,12345]", limits) == [12_345, 12_345]


def test_long_runs_of_digits_are_fine_elsewhere() -> None:
    """Text, names and fractions may hold any number of digits."""
    text = "1" * 400
    assert decode(encode({text: [text]})) == {text: [text]}
    assert decode(b"0." + b"1" * 400) == pytest.approx(1 / 9)


@pytest.mark.parametrize("levels", [65, 100, 5_000, 200_000])
def test_deeper_nesting_is_refused_by_name(levels: int) -> None:
    """Nesting beyond 64 is refused, with the limit's name and value, however deep it goes."""
    for data in (nested(levels), b'{"a":' * levels + b"1" + b"}" * levels):
        with pytest.raises(InvalidJSON, match="nested deeper than max_depth 64"):
            decode(data)


def test_the_deepest_nesting_is_accepted() -> None:
    """64 levels are accepted, and brackets in text are no levels."""
    assert encode(decode(nested(64))) == nested(64)
    assert decode(encode(["[" * 500])) == ["[" * 500]
    beside = b"[[]," + nested(63) + b"]"
    assert encode(decode(beside)) == beside
    with pytest.raises(InvalidJSON, match="max_depth 64"):
        decode(b"[[]," + nested(64) + b"]")
    assert len(decode(b"[" + b",".join([b"[]"] * 500) + b"]")) == 500


def test_levels_above_count() -> None:
    """A part is as deep as the levels that it already stands in make it."""
    assert decode(nested(62), level=2)
    with pytest.raises(InvalidJSON, match="max_depth 64"):
        decode(nested(63), level=2)


def test_limits_are_settings() -> None:
    """Other limits are kept, and named with their values."""
    limits = Limits(max_depth=3, max_digits=5)
    assert decode(b"[[[12345]]]", limits) == [[[12345]]]
    with pytest.raises(InvalidJSON, match="max_depth 3"):
        decode(b"[[[[]]]]", limits)
    with pytest.raises(InvalidJSON, match="max_digits 5"):
        decode(b"[123456]", limits)


@given(JSON)
def test_values_survive(value: object) -> None:
    """What is written is read back as it was, and once more the same bytes."""
    assert decode(encode(value)) == value
    assert encode(decode(encode(value))) == encode(value)


@given(st.binary(max_size=200))
def test_bytes_never_break_it(data: bytes) -> None:
    """Any bytes are decoded, or refused as InvalidJSON."""
    for read in (decode, split_object):
        try:
            read(data)
        except InvalidJSON:
            continue


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_a_split_object_holds_the_same(value: dict[str, object]) -> None:
    """Splitting and then decoding the members gives what decoding gives."""
    assert {key: decode(raw) for key, raw in split_object(encode(value)).items()} == value


def test_only_objects_and_lists_are_split() -> None:
    """Something else than an object or a list is named as what it is."""
    for data in (b"[]", b"1", b'"x"', b"null", b"true", b"1.5"):
        with pytest.raises(InvalidJSON, match="expected"):
            split_object(data)
    parts = split_object(b'{"list": [1, [2]], "text": "x"}')
    assert [bytes(part) for part in split_list(parts["list"])] == [b"1", b"[2]"]
    with pytest.raises(InvalidJSON, match="expected list, got str"):
        split_list(parts["text"])


def test_equal_content_has_equal_sorted_bytes() -> None:
    """The order of keys does not matter to sorted bytes, at any depth."""
    assert encode_sorted({"b": {"y": 1, "x": 2}, "a": 0}) == encode_sorted({"a": 0, "b": {"x": 2, "y": 1}})


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (True, "true"),
        (False, "false"),
        (0, "a number"),
        (0.5, "a number"),
        ("", "a string"),
        ([], "a list"),
        ({}, "an object"),
    ],
)
def test_kinds_have_their_names(value: object, name: str) -> None:
    """Values are called what JSON calls them."""
    assert kind(value) == name


@given(
    st.lists(st.integers(0, 400_000), max_size=60),
    st.booleans(),
)
def test_the_pieces_of_a_list_are_its_json_and_none_is_large(sizes: list[int], converted: bool) -> None:
    """Each is at most about what is written in a millisecond, or a single element."""
    items = ["x" * (size if size % 3 else size % 100) for size in sizes]
    pieces = list(list_chunks(items, str.upper if converted else None))
    whole = encode([item.upper() for item in items] if converted else items)
    assert b"[" + b"".join(pieces) + b"]" == whole
    # Of what was small so far eight times as much as thought at the very most: then it is one element.
    assert all(len(piece) <= 8 * 400_010 for piece in pieces)


@given(
    st.recursive(
        st.none() | st.integers() | st.text(max_size=5) | st.just("y" * 200_000),
        lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=5),
        max_leaves=20,
    )
)
@settings(max_examples=20)
def test_what_is_read_in_pieces_is_what_is_read_at_once(value: object) -> None:
    data = encode({"value": value, "many": [[number] for number in range(20_000)]})
    assert decode_in_pieces(data) == decode(data)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100 + '"' + "x" * 200_000 + '"' + "]" * 100,
        '{"a": [' + "1," * 100_000 + "NaN]}",
        '{"a": [' + "1," * 100_000 + "9" * 500 + "]}",
        "[" + "[1]," * 100_000 + "[1]",
    ],
    ids=["deep", "no number", "long number", "unfinished"],
)
def test_what_is_refused_at_once_is_refused_in_pieces(text: str) -> None:
    with pytest.raises(InvalidJSON) as at_once:
        decode(text.encode())
    with pytest.raises(InvalidJSON) as in_pieces:
        decode_in_pieces(text.encode())
    assert type(in_pieces.value) is type(at_once.value)


@given(st.dictionaries(st.text(), JSON), st.sampled_from([0, 20]))
def test_what_is_packed_is_written_and_read_like_the_rest(document: dict[str, Any], most: int) -> None:
    """A packed document gives the same JSON, and the same values again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strictjson, "_PACKED", most)
        short = packed(document)
    assert encode(short) == encode(document)
    assert unpacked(short) == document
    large = [
        value for value in document.values() if isinstance(value, list | dict) and len(encode(value)) > most
    ]
    assert packed_size(short) == sum(map(len, map(encode, large)))


def test_what_is_packed_takes_as_much_memory_as_it_has_bytes() -> None:
    """Of small lists there may be many in few bytes."""
    document = decode(b'{"x":[' + b",".join([b"[[]]"] * 50_000) + b"]}")
    tracemalloc.start()
    kept = packed(document)
    size, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 300_000
    assert most < 1_500_000
    assert unpacked(kept) == document
