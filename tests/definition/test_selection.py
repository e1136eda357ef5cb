"""Parts of a build: what comes along, what is left out, and what is refused."""

import re
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import Document, build, change

from scheduler.definition.graph import Graph
from scheduler.definition.selection import narrowed, select
from scheduler.definition.strictjson import decode, encode
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidSelection

GRAPH = Graph.of(
    ["vpc::a", "net::a", "vm::a", "vpc::b", "net::b", "vm::x[1]"],
    [("vpc::a", "net::a"), ("net::a", "vm::a"), ("vpc::b", "net::b")],
)


def kept(targets: Sequence[str] = (), excluded: Sequence[str] = ()) -> list[str]:
    return [GRAPH.ids[one] for one in sorted(select(GRAPH, targets, excluded).kept)]


def test_what_a_target_needs_comes_along() -> None:
    """Its dependencies, and theirs; not what depends on it."""
    assert kept(["net::a"]) == ["vpc::a", "net::a"]
    assert kept(["vm::a", "vpc::b"]) == ["vpc::a", "net::a", "vm::a", "vpc::b"]


def test_patterns_name_several() -> None:
    """As in a shell; an id with brackets of its own is taken as it stands."""
    assert kept(["net::*"]) == ["vpc::a", "net::a", "vpc::b", "net::b"]
    assert kept(["v??::b"]) == ["vpc::b"]
    assert kept(["vm::x[1]"]) == ["vm::x[1]"]


def test_what_is_excluded_is_left_out() -> None:
    """With all that is named, the others stay; the order is that of the build."""
    selection = select(GRAPH, (), ["vm::*", "*::b"])
    assert selection.left_out == ("vm::a", "vpc::b", "net::b", "vm::x[1]")
    assert kept((), ["vm::*", "*::b"]) == ["vpc::a", "net::a"]


def test_a_part_of_a_part() -> None:
    """What is excluded and comes along with no target makes no difference."""
    assert kept(["net::a"], ["*::b", "vm::a"]) == ["vpc::a", "net::a"]


@pytest.mark.parametrize(
    ("targets", "excluded", "reason"),
    [
        (["vpc::c"], [], "target 'vpc::c': the build has no such component"),
        (["VPC::A"], [], "target 'VPC::A': the build has no such component; did you mean 'vpc::a'?"),
        (["disk::*"], [], "target 'disk::*': the build has no such component"),
        ([], ["nett::a"], "exclude 'nett::a': the build has no such component; did you mean 'net::a'?"),
        ([], ["vpc::a"], "'net::a' needs 'vpc::a', which is excluded: keep that one, or exclude both"),
        (["vm::a"], ["net::a"], "'vm::a' needs 'net::a', which is excluded"),
        (["net::a"], ["vpc::a"], "'net::a' needs 'vpc::a', which is excluded"),
        (["net::a"], ["net::*"], "'net::a' is both a target and excluded"),
        ([], ["*"], "every component is excluded"),
    ],
)
def test_what_cannot_be_had_is_refused(targets: list[str], excluded: list[str], reason: str) -> None:
    """With the name that is wrong, and what is needed."""
    with pytest.raises(InvalidSelection, match=re.escape(reason)):
        select(GRAPH, targets, excluded)


def test_many_problems_are_counted() -> None:
    """The first few are named."""
    names = [f"n{number}" for number in range(20)]
    graph = Graph.of(["a", *names], [("a", name) for name in names])
    with pytest.raises(InvalidSelection) as error:
        select(graph, (), ["a"])
    assert len(error.value.problems) == 6
    assert error.value.problems[-1] == "and 15 more of this kind"


def test_a_part_is_a_build_of_its_own() -> None:
    """It has no edge to what is left out; every other member, and every number, is as it was."""
    document = build(
        change("a", size=12345678901234567890),
        change("b", a_id="{{ components['a'].a_id }}"),
        change("c"),
        edges=[("a", "c"), ("b", "c"), ("start", "a"), ("c", "end")],
        options={"x": 1.50},
    )
    data = encode(document)
    prepared = read_build(data)
    part = narrowed(data, select(prepared.graph, ["b"]))
    found = decode(part)
    assert [one["_component_id"] for one in found["changes"]] == ["a", "b"]
    assert [(one["source"], one["destination"]) for one in found["edges"]] == [("start", "a")]
    assert found["options"] == document["options"]
    assert found["changes"] == document["changes"][:2]
    assert read_build(part).graph.dependencies == ((), (0,))


def test_a_build_without_edges_has_parts_too() -> None:
    """The list may be absent or null."""
    cases: list[Document] = [{}, {"edges": None}, {"edges": []}]
    for edges in cases:
        document = {**build(change("a"), change("b")), **edges}
        if not edges:
            document.pop("edges", None)
        data = encode(document)
        part = narrowed(data, select(read_build(data).graph, ["a"]))
        assert len(read_build(part).build.changes) == 1


@given(st.data())
def test_every_part_can_be_run(data: st.DataObject) -> None:
    """Whatever is a target: no dependency of what is kept is left out, and nothing is kept for nothing."""
    size = data.draw(st.integers(1, 8))
    ids = [f"c{number}" for number in range(size)]
    pairs = data.draw(
        st.lists(st.tuples(st.integers(0, size - 1), st.integers(0, size - 1)).filter(lambda p: p[0] < p[1]))
    )
    graph = Graph.of(ids, [(ids[one], ids[two]) for one, two in pairs])
    targets = data.draw(st.lists(st.sampled_from(ids), min_size=1, unique=True))
    selection = select(graph, targets)
    chosen = {graph.index[name] for name in targets}
    for vertex in selection.kept:
        assert selection.kept.issuperset(graph.dependencies[vertex])
        assert vertex in chosen or chosen & graph.descendants(vertex)
    assert {graph.index[name] for name in selection.left_out} == set(range(size)) - selection.kept
