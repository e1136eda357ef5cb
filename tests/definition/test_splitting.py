"""Splitting of large builds: what is cut out is what the decoder finds, and no cut takes long."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition import splitting
from scheduler.definition.converter import LISTS
from scheduler.definition.splitting import SplitBuild, split_build
from scheduler.definition.strictjson import encode
from scheduler.errors import InvalidJSON

JSON = dict[str, Any]
# What looks like the end of an element, of a list, or the beginning of one.
TEXTS = st.sampled_from(
    ["", "}", "},{", '"},{"', '],"changes":[', '"components":[', "\\", '\\"', "é", "{[", "]}"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXTS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(TEXTS | st.sampled_from(LISTS), inner, max_size=3)
        | st.fixed_dictionaries({"components": st.lists(st.fixed_dictionaries({"a": inner}), max_size=3)})
    ),
    max_leaves=6,
)
ELEMENTS = st.dictionaries(TEXTS | st.sampled_from(LISTS), VALUES, max_size=3)
BUILDS = st.dictionaries(TEXTS, VALUES, max_size=3).flatmap(
    lambda fields: st.fixed_dictionaries(
        {key: st.just(value) for key, value in fields.items()},
        optional={name: st.none() | st.lists(ELEMENTS, max_size=8) for name in LISTS},
    )
)


def decoded(split: SplitBuild) -> JSON:
    """The build of which these are the parts."""
    fields = {key: msgspec.json.decode(raw) for key, raw in split.fields.items()}
    return fields | {name: [msgspec.json.decode(one) for one in raws] for name, raws in split.lists.items()}


@given(BUILDS, st.sampled_from([1, 2, 7, 30]), st.permutations(range(6)))
def test_parts_are_those_of_the_build(build: JSON, piece: int, order: list[int]) -> None:
    """Wherever it is cut, and whatever its texts look like."""
    keys = sorted(build, key=lambda key: order[sum(key.encode()) % 6])
    build = {key: build[key] for key in keys}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PIECE", piece)
        split = split_build(encode(build), small=0)
    assert decoded(split) == build
    assert list(split.lists) == [name for name in LISTS if build.get(name) is not None]


@given(BUILDS, st.integers(1, 200))
def test_what_is_cut_off_is_no_build(build: JSON, less: int) -> None:
    """A text that is not JSON is refused, and not split as far as it goes."""
    data = encode(build)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(splitting, "PIECE", 5)
        with pytest.raises(InvalidJSON):
            split_build(data[: max(0, len(data) - less)], small=0)


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "1", "x{}", "{}x"),
        *('{"components":{}}', '{"changes":"x"}', '{"edges":[{},]}', '{"components":[{}]"changes":[]}'),
        *('{"components":[{}],,"changes":[]}', '{"components":[{}],"changes":[{}]]}'),
    ],
)
def test_what_is_no_build_is_refused(text: str) -> None:
    """In pieces as at once."""
    for small in (0, 1_000):
        with pytest.raises(InvalidJSON):
            split_build(text.encode(), small=small)


def test_spaces_do_not_matter() -> None:
    """A build that somebody else wrote is split in one go."""
    build = {"id": "b", "components": [{"a": 1}, {"a": 2}], "changes": [], "x": {"edges": [1]}}
    assert decoded(split_build(json.dumps(build, indent=1).encode(), small=0)) == build


@pytest.mark.parametrize("text", ["x", "},{", '"},{"components":[{'])
def test_no_call_of_the_decoder_is_long(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Of megabytes, each call is given pieces, however much in them looks like an end."""
    build = {
        "id": "b",
        "components": [{"_component_id": str(number), "data": text * 20} for number in range(40_000)],
        "changes": [{f"{number % 9}": [{"x": item} for item in range(20)]} for number in range(9_000)],
        "edges": [{"source": "start", "destination": str(number)} for number in range(40_000)],
    }
    data = encode(build)
    calls: list[int] = []
    original = splitting._decode_list

    def counted(piece: bytes) -> Any:
        calls.append(len(piece))
        return original(piece)

    monkeypatch.setattr(splitting, "_decode_list", counted)
    assert decoded(split_build(data)) == build
    assert max(calls) < 4 * splitting.PIECE
    assert sum(calls) < 4 * len(data)
