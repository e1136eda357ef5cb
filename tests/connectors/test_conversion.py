"""Components as objects with a type, and back."""

import dataclasses
from collections.abc import Mapping
from datetime import date
from enum import Enum
from typing import Annotated, Any
from uuid import UUID

import attrs
import msgspec
import pytest
from cattrs import override
from hypothesis import given
from hypothesis import strategies as st

from scheduler.connectors.conversion import is_typed, is_untyped, merged, names_of, structure
from scheduler.connectors.outcomes import Rejected


class Size(Enum):
    SMALL = "small"


@attrs.define
class Subnet:
    cidr: str
    _zone: str = ""


@attrs.define
class Vpc:
    name: str
    subnet: Subnet
    _component_id: str = ""
    number: int = 0
    share: float = 0.0
    made: date | None = None
    size: Size | None = None
    others: list[Subnet] = attrs.field(factory=list)
    names: frozenset[str] = frozenset()
    token: UUID | None = None
    tags: dict[str, str] = attrs.field(factory=dict)
    region_id: Annotated[str, override(rename="region-id")] = ""
    ident: str = attrs.field(default="", alias="identity")


@dataclasses.dataclass
class Data:
    name: str
    region_id: Annotated[str, override(rename="region-id")] = ""


class Struct(msgspec.Struct, rename="kebab"):
    name: str
    region_id: str = ""
    inner: Data | None = None
    count: int = 0


@attrs.define
class Outer:
    struct: Struct


FULL: dict[str, Any] = {
    "_component_id": "vpc::a",
    "name": "a",
    "subnet": {"cidr": "10.0.0.0/8", "_zone": "b", "unknown": 1},
    "number": 2**70,
    "share": 0.5,
    "made": "2024-02-03",
    "size": "small",
    "others": [{"cidr": "x", "_zone": ""}],
    "names": ["n"],
    "token": "12345678-1234-5678-1234-567812345678",
    "tags": {"a": "b"},
    "region-id": "eu",
    "identity": "i",
    "more": {"kept": [1, 2]},
}


def test_a_component_becomes_an_object_and_comes_back() -> None:
    """Every field arrives under its name, big integers with all digits, and unknown ones come back."""
    vpc = structure(FULL, Vpc)
    assert vpc == Vpc(
        "a", Subnet("10.0.0.0/8", "b"), "vpc::a", 2**70, 0.5, date(2024, 2, 3), Size.SMALL,
        [Subnet("x")], frozenset({"n"}), UUID(int=0x12345678123456781234567812345678), {"a": "b"}, "eu", "i",
    )  # fmt: skip
    assert merged(vpc, FULL) == FULL


def test_fields_of_a_dataclass_and_of_a_struct_have_the_names_that_their_types_give_them() -> None:
    """Hyphens are the type's own affair."""
    assert structure({"name": "a", "region-id": "eu"}, Data) == Data("a", "eu")
    struct = structure({"name": "a", "region-id": "eu", "count": 2**70}, Struct)
    assert struct == Struct("a", "eu", None, 2**70)
    assert merged(struct, {"x": 1})["region-id"] == "eu"
    assert names_of(Struct)["region_id"] == names_of(Data)["region_id"] == "region-id"


@pytest.mark.parametrize(
    ("fields", "type_", "text"),
    [
        ({"name": "a"}, Vpc, "subnet: required field missing"),
        ({"name": "a", "subnet": {}}, Vpc, "subnet.cidr: required field missing"),
        ({"name": "a", "subnet": {"cidr": 5}}, Vpc, "subnet.cidr: expected a text, got a number"),
        (FULL | {"number": True}, Vpc, "number: expected an integer, got true"),
        (FULL | {"number": "1"}, Vpc, "number: expected an integer, got a string"),
        (FULL | {"others": [{}]}, Vpc, "others[0].cidr: required field missing"),
        (FULL | {"tags": {"k": 1}}, Vpc, "tags['k']: expected a text, got a number"),
        (FULL | {"others": "abc"}, Vpc, "others: expected a list, got a string"),
        (FULL | {"names": "abc"}, Vpc, "names: expected a list, got a string"),
        (FULL | {"token": "no"}, Vpc, "token: expected the text of a UUID"),
        ({}, Struct, "object missing required field 'name'"),
        ({"struct": {"name": 1}}, Outer, "struct.name: expected 'str', got 'int'"),
    ],
)
def test_a_mistake_is_named_with_its_place(fields: dict[str, Any], type_: type, text: str) -> None:
    """A request that does not fit fails with the path of the field, and never with its value."""
    with pytest.raises(Rejected) as caught:
        structure(fields, type_)
    assert str(caught.value) == text


def test_all_mistakes_are_named_up_to_ten() -> None:
    """Whoever corrects one sees the others."""
    with pytest.raises(Rejected, match=r"^name: .*; subnet: required field missing$"):
        structure({"name": 1}, Vpc)
    many = [{"cidr": number} for number in range(20)]
    with pytest.raises(Rejected, match=r"\(and 10 more\)$"):
        structure({"name": "a", "subnet": {"cidr": "x"}, "others": many}, Vpc)


def test_a_validator_of_the_type_is_heard() -> None:
    """What the class says of a value is the error."""

    @attrs.define
    class Even:
        number: int = attrs.field()

        @number.validator
        def _check(self, _: Any, value: int) -> None:
            if value % 2:
                raise ValueError("the number is odd")

    with pytest.raises(Rejected, match="the number is odd"):
        structure({"number": 3}, Even)


def test_unknown_fields_are_kept_at_any_depth_of_members() -> None:
    """A member of a member is an object with a type, too."""
    fields = {"outer": {"struct": {"name": "a", "more": 1}, "other": 2}}

    @attrs.define
    class Outermost:
        outer: Outer

    structured = structure(fields, Outermost)
    kept = merged(structured, fields)
    assert (kept["outer"]["other"], kept["outer"]["struct"]["more"]) == (2, 1)


def test_unknown_fields_of_a_member_are_kept_and_those_of_lists_are_not() -> None:
    """A list is what the handler returned: its elements may be others."""
    vpc = structure(FULL, Vpc)
    changed = merged(attrs.evolve(vpc, subnet=Subnet("new"), others=[Subnet("y")], tags={}), FULL)
    assert changed["subnet"] == {"cidr": "new", "_zone": "", "unknown": 1}
    assert changed["others"] == [{"cidr": "y", "_zone": ""}]
    assert changed["tags"] == {}


@pytest.mark.parametrize("result", [5, "text", [], object(), {1: "a"}])
def test_what_is_no_component_is_refused(result: Any) -> None:
    """A handler that returns nonsense fails its component with words that say so."""
    with pytest.raises(Rejected, match="the handler returned"):
        merged(result, {})


def test_types_are_told_apart() -> None:
    """Dicts are handed over as they are, classes are converted."""
    assert all(map(is_untyped, (dict, dict[str, Any], Mapping, Mapping[str, Any], Any)))
    assert all(map(is_typed, (Vpc, Data, Struct)))
    assert not any(map(is_typed, (int, str, list[int], dict)))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=3), inner, max_size=3)
    ),
    max_leaves=10,
)


@given(st.dictionaries(st.text("abcxyz", max_size=3), JSON, max_size=5))
def test_nothing_that_a_type_does_not_know_is_lost(more: dict[str, Any]) -> None:
    """A component that is converted and back has every field that it had."""
    fields = {**more, "name": "a", "subnet": {**more, "cidr": "b"}}
    back = merged(structure(fields, Vpc), fields)
    assert {key: back[key] for key in fields if key != "subnet"} == {**more, "name": "a"}
    assert back["subnet"] == {**more, "cidr": "b", "_zone": ""}
