"""What references can see, before and while a build runs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import Run, build, change, prepare

from scheduler.definition.graph import Graph
from scheduler.definition.scope import Returned, Submitted, elements_of, is_supplied


@pytest.mark.parametrize(
    ("action", "state", "supplied"),
    [
        ("create", "waiting", True),
        ("update", "running", True),
        ("get", "errored", True),
        ("find", "waiting", True),
        ("none", "waiting", True),
        ("delete", "waiting", False),
        ("create", "completed", False),
        ("find", "completed", False),
    ],
)
def test_what_the_build_supplies(action: str, state: str, supplied: bool) -> None:
    """A change supplies what stands under its id, unless it deletes it or is completed already."""
    one = prepare(build(change("a", action, _state=state))).build.changes[0]
    assert is_supplied(one) is supplied


def test_what_was_submitted() -> None:
    """Before any work is done, existing components answer, and changes that need not be awaited."""
    submitted = Submitted(
        prepare(
            build(
                change("both", "update", x="new"),
                change("gone", "delete", x="submitted"),
                change("done", x="data", _state="completed"),
                change("new", x="to come"),
                change("found", "find", _state="completed", components=[{"_component_id": "element"}]),
                components=[change("both", x="old"), change("element", x="e")],
                edges=[],
            )
        ).build
    )

    def seen(name: str) -> tuple[object, bool] | None:
        found = submitted.find(name)
        return None if found is None else (found.document["x"], found.definition)

    assert seen("both") == ("old", True)
    assert seen("gone") == ("submitted", True)
    assert seen("done") == ("data", False)
    assert seen("element") == ("e", False)
    assert seen("new") is None
    assert seen("nothing") is None
    assert [found.document["x"] for found in submitted.all()] == ["old", "e"]
    assert list(submitted.ids()) == ["both", "element", "gone", "done", "new", "found"]


def test_what_is_seen_when_due() -> None:
    """A dependency, direct or not, answers with what it returned; another change with what was submitted."""
    run = Run(
        build(
            change("first", "update", x=1),
            change("between"),
            change("beside", "update", x=1),
            change("last"),
            components=[change("first", x=0), change("beside", x=0)],
            edges=[("first", "between"), ("between", "last")],
        )
    )
    run.do("first", "between", "beside", x=2)
    scope = run.plan.state.ledger.scope(run.vertex("last"))
    seen = {name: scope.find(name) for name in ("first", "between", "beside")}
    assert {name: found and (found.document["x"], found.definition) for name, found in seen.items()} == {
        "first": (2, False),
        "between": (2, False),
        "beside": (0, True),
    }
    assert [found.document["x"] for found in scope.all()] == [2, 0, 2]
    assert scope.find("nothing") is None


def test_everything_that_is_seen_when_due() -> None:
    """All that can be seen is what was submitted, then what the dependencies returned: that is data."""
    run = Run(
        build(
            change("f", "find"),
            change("n", "none", x="none"),
            change("made"),
            change("gone", "delete"),
            change("beside"),
            change("last"),
            components=[change("old", x="old"), change("gone", x="gone")],
            edges=[(name, "last") for name in ("f", "n", "made", "gone")],
        )
    )
    run.do("f", components=[{"_component_id": "e", "x": "found"}, {"_component_id": "old", "x": "newer"}])
    run.begin("n")
    run.do("made", "gone", "beside", x="returned")
    every = run.plan.state.ledger.scope(run.vertex("last")).all()
    assert [(found.document["x"], found.definition) for found in every] == [
        ("newer", False),
        ("gone", True),
        ("found", False),
        ("none", True),
        ("returned", False),
    ]
    assert every[2].document["service"] == "b-1"


def test_a_component_sees_itself_as_submitted() -> None:
    """A component's own id answers with the component; another one that is not done answers nothing."""
    run = Run(build(change("a", x=1), change("b", x=2)))
    scope = run.plan.state.ledger.scope(run.vertex("a"))
    found = scope.find("a")
    assert found is not None
    assert found.document["x"] == 1
    assert scope.find("b") is None


@pytest.mark.parametrize(
    ("reply", "ids"),
    [
        ({}, []),
        ({"components": None}, []),
        ({"components": "x"}, []),
        ({"components": {"_component_id": "a"}}, []),
        ({"components": [None, 5, {}, {"_component_id": 5}, {"_component_id": "a"}]}, ["a"]),
        ({"components": [{"_component_id": "a"}, {"_component_id": "b"}]}, ["a", "b"]),
    ],
)
def test_the_elements_of_a_find(reply: dict[str, object], ids: list[str]) -> None:
    """What a find returned is its elements that have an id."""
    assert [identity for identity, _ in elements_of(reply)] == ids


@given(st.integers(1, 9), st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=25))
def test_who_depends_on_whom(size: int, pairs: list[tuple[int, int]]) -> None:
    """A vertex depends on exactly its ancestors."""
    edges = [(f"v{a}", f"v{b}") for a, b in pairs if a < b < size]
    graph = Graph.of([f"v{vertex}" for vertex in range(size)], edges)
    returned = Returned(Submitted(prepare(build()).build), graph)
    for vertex in range(size):
        depends = {other for other in range(size) if returned.depends(vertex, other)}
        assert depends == graph.ancestors(vertex)
