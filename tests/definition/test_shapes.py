"""Tests of shapes: a change of a known shape is read to the same effect as in the general way."""

from collections.abc import Mapping
from typing import Any
from unittest.mock import patch

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.converter import converter
from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.model import Change
from scheduler.definition.shapes import Known, Shapes
from scheduler.definition.strictjson import encode, encode_sorted
from scheduler.definition.template.component import Template, cut_change
from scheduler.definition.template.standard import Terms, find

BUILD = "b1"
PATH = '$(components.#[_component_id="{}"].{})'
EXPRESSION = 'as {{{{ components["{}"].{} }}}} is'
TERMS = Terms.of(BUILD, Templates.ALL, OnUnresolved.ERROR, DEFAULT_LIMITS)

ids = st.sampled_from(
    ["vpc::1", "a.b", "a b", "a[0]", "é", 'a"', "a\\", "a{{", "a}", "$(", "start", "", "%b"]
)
own_ids = st.one_of(ids, st.builds(PATH.format, ids, st.just("x")))
plain = st.sampled_from(
    ["", "text", "10.0.0.0/8", "a@b", "100%", "%b", "[x]", "}}", "user:pw@host", '"_raw":', "é", "a\nb", "\\"]
)
numbers = st.sampled_from([0, 1, -5, 8080, 10**15, 10**14, -(10**14), 1.5, 1e300, True, False, None])
references = st.one_of(
    st.builds(PATH.format, ids, st.sampled_from(["x", "v.w", "a_1.b", "x-y", "0", "a." * 70 + "a"])),
    st.builds(EXPRESSION.format, ids, st.sampled_from(["x", "v.w", "a_1.b", "_x", "x | upper"])),
    st.builds(lambda a, b: EXPRESSION.format(a, "x") + EXPRESSION.format(b, "y.z"), ids, ids),
    st.sampled_from(
        ["{{ build.id }}", "$(options.x)", "{{ broken", "$(", "$()", "a $(x)", '{{components["a"]}}']
    ),
)
values = st.recursive(
    st.one_of(plain, plain, numbers, references),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["x", "y.z", "Name", "value", "service", "_raw", "é", "a@b"]), inner),
    ),
    max_leaves=6,
)
components = st.builds(
    lambda first, rest: {**first, **rest},
    st.fixed_dictionaries(
        {
            "_action": st.sampled_from(["create", "update", "find", "delete"]),
            "_component": st.sampled_from(["vpc", "vpc", "vpc", "credentials", "a%b"]),
            "_component_id": own_ids,
            "_provider": st.sampled_from(["aws", "aws", PATH.format("a", "x")]),
            "_state": st.sampled_from(["waiting", "waiting", "waiting", "completed"]),
        },
        optional={"service": st.sampled_from([BUILD, BUILD, "other", PATH.format(BUILD, "x")])},
    ),
    st.dictionaries(
        st.sampled_from(
            ["name", "range", "tags", "size", "password", "_timeout", "_Action", "adoptable", "a@b"]
        ),
        values,
        max_size=4,
    ),
)


def learnt(*examples: Mapping[str, Any]) -> Shapes:
    """Shapes of these components."""
    shapes = Shapes()
    with patch("scheduler.definition.shapes._EVERY", 1):
        for one in examples:
            shapes.learn(encode(one), one)
    return shapes


def known(shapes: Shapes, component: Mapping[str, Any]) -> Known | None:
    words: dict[str, str] = {}
    return shapes.read(encode(component), BUILD.encode(), words.setdefault)


def varied(value: Any, texts: st.SearchStrategy[str], draw: st.DrawFn) -> Any:
    """The same component with other texts and numbers."""
    if isinstance(value, dict):
        return {key: varied(item, texts, draw) for key, item in value.items()}
    if isinstance(value, list):
        return [varied(item, texts, draw) for item in value]
    if isinstance(value, str):
        return draw(st.one_of(st.just(value), texts))
    if type(value) is int:
        return draw(numbers)
    return value


@st.composite
def pairs(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """A component, and one much like it."""
    first = draw(components)
    texts = st.one_of(plain, references)
    other = {key: varied(item, texts, draw) for key, item in first.items() if not key.startswith("_")}
    own = {key: item for key, item in first.items() if key.startswith("_")}
    return first, {**own, "_component_id": draw(own_ids), **other}


@given(pairs())
def test_a_change_of_a_known_shape_is_what_the_general_way_reads(
    both: tuple[dict[str, Any], dict[str, Any]],
) -> None:
    """All that comes of it is the same: the change, the digested text, and the references."""
    shapes = learnt(both[0])
    for component in both:
        read = known(shapes, component)
        if read is None:
            continue
        names, change, digested, found = read
        general = converter.structure(msgspec.json.decode(encode(component)), Change)
        assert change == general
        assert names == tuple(component)
        assert digested == encode_sorted(component) + b","
        if found is None:
            continue
        cut = cut_change(change, TERMS)
        short, long = Template.of(change, TERMS, found[0]), Template.of(change, TERMS, cut)
        assert (short.nodes, short.constant, list(short.targets())) == (
            long.nodes,
            long.constant,
            list(long.targets()),
        )
        searched = find(change, TERMS, {})
        assert searched is None or searched == found[0]


USUAL = {
    "_action": "create",
    "_component": "vpc",
    "_component_id": "vpc::1",
    "_provider": "aws",
    "_state": "waiting",
    "service": BUILD,
    "name": "one",
    "size": 5,
    "tags": {"Name": "one", "list": ["a", 1]},
    "parent": PATH.format("vpc::0", "aws_id"),
    "user_data": EXPRESSION.format("vpc::0", "aws_id") + EXPRESSION.format("vpc::2", "x.y"),
}


def test_a_component_that_differs_in_texts_and_numbers_has_the_same_shape() -> None:
    """Nearly all components of a build are read in the short way."""
    other = {
        **USUAL,
        "_component_id": "vpc::17",
        "name": "100% me@here [x]",
        "size": -12,
        "tags": {"Name": "", "list": ["b", 0]},
        "parent": PATH.format("network::3", "tags.x"),
        "user_data": EXPRESSION.format("a", "x") + "; " + EXPRESSION.format("b", "y"),
    }
    read = known(learnt(USUAL), other)
    assert read is not None
    _, change, _, found = read
    assert (change.id, change.fields, change.sensitive) == ("vpc::17", other, True)
    assert found is not None
    assert found[0].names == ("network::3", "a", "b")
    assert found[0] == find(change, TERMS, {})


@pytest.mark.parametrize(
    "different",
    [
        {"_component_id": "start"},
        {"_component_id": ""},
        {"_component_id": "é"},
        {"_component": "web"},
        {"_action": "update"},
        {"_state": "running"},
        {"name": 'a"b'},
        {"name": "{{ build.id }}"},
        {"name": "$(options.x)"},
        {"name": None},
        {"name": "x" * 3_000},
        {"size": 1.5},
        {"size": 10**15},
        {"size": "5"},
        {"tags": {"Name": "one", "list": ["a"]}},
        {"parent": PATH.format("a", "tags.0")},
        {"user_data": '{{ components["a"].x | upper }}'},
        {"more": 1},
        {"_timeout": 5},
    ],
    ids=str,
)
def test_other_components_have_another_shape(different: dict[str, Any]) -> None:
    """What is special about a component is never overlooked."""
    assert known(learnt(USUAL), {**USUAL, **different}) is None


@pytest.mark.parametrize(
    "special",
    [
        {"_timeout": 5},
        {"_retry": {"attempts": 2}},
        {"_secret": ["name"]},
        {"_raw": ["name"]},
        {"_attempts": 1},
        {"adoptable": "x"},
        {"tags": {"adoptable": "x"}},
        {"tags": {"service": "x"}},
        {"tags": {"_state": "waiting"}},
        {"tags": {"password": "x"}},
        {"tags": {"name": "x", "value": "y"}},
        {"tags": {"a@b": "y"}},
        {"_component": "credentials"},
        {"_provider": PATH.format("a", "x")},
        {"_State": "waiting"},
        {"_state": "completed"},
        {"service": 5},
        {"service": PATH.format(BUILD, "x")},
        {"_component_id": PATH.format("a", "x")},
        {"size": 1.5},
        {"tags": {"size": [0.25]}},
    ],
    ids=str,
)
def test_a_special_component_has_no_shape(special: dict[str, Any]) -> None:
    """Nothing is learnt from a component that others of its shape may differ from in effect."""
    component = {**USUAL, **special}
    assert known(learnt(component), component) is None


@pytest.mark.parametrize(
    "part",
    [1, "", PATH.format("a", "x"), EXPRESSION.format("a", "x")],
    ids=["number", "text", "path", "expression"],
)
def test_a_component_of_many_parts_has_no_shape(part: Any) -> None:
    """A pattern of hundreds of groups takes a tenth of a second to learn, and 150 KB to keep."""
    few, many = {**USUAL, "parts": [part] * 4}, {**USUAL, "parts": [part] * 26}
    assert len(encode(many)) < 2_048
    assert known(learnt(few), few) is not None
    assert known(learnt(many), many) is None


@pytest.mark.parametrize("change", [lambda data: b" " + data, lambda data: data.replace(b":", b": ", 1)])
def test_json_that_is_not_compact_has_no_shape(change: Any) -> None:
    """What is kept of a change is compact."""
    shapes = Shapes()
    with patch("scheduler.definition.shapes._EVERY", 1):
        shapes.learn(change(encode(USUAL)), USUAL)
    assert known(shapes, USUAL) is None


def test_of_a_service_of_another_name_the_references_are_looked_for() -> None:
    """Its ``service`` is replaced, which takes the general way."""
    read = known(learnt(USUAL), {**USUAL, "service": "other"})
    assert read is not None
    assert read[3] is None
    assert find(read[1], TERMS, {}) is None


def test_few_shapes_of_a_type_are_kept() -> None:
    """Those that matched last."""
    several = [{**USUAL, f"x{number}": 1} for number in range(5)]
    shapes = learnt(*several[:4])
    assert known(shapes, several[0]) is not None
    with patch("scheduler.definition.shapes._EVERY", 1):
        shapes.learn(encode(several[4]), several[4])
    assert [known(shapes, one) is not None for one in several] == [True, False, True, True, True]


def test_the_types_with_shapes_are_bounded() -> None:
    """Whatever comes in, little is kept."""
    with patch("scheduler.definition.shapes._TYPES", 2):
        several = [{**USUAL, "_component": f"type{number}"} for number in range(3)]
        shapes = learnt(*several)
    assert [known(shapes, one) is not None for one in several] == [False, False, True]


def test_a_shape_is_learnt_from_one_in_many() -> None:
    """To learn one takes a while."""
    shapes = Shapes()
    for number in range(32):
        assert known(shapes, USUAL) is None, number
        shapes.learn(encode(USUAL), USUAL)
    assert known(shapes, USUAL) is not None
