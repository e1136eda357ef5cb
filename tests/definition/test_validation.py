"""What is asked of a build as a whole before it is taken."""

import random
from itertools import chain, pairwise
from typing import Any

import pytest
from support.builds import Document, build, change, prepare, problems_of

from scheduler.definition.codec import parse_build
from scheduler.definition.limits import Limits
from scheduler.definition.strictjson import encode
from scheduler.definition.template import OnUnresolved, Templates
from scheduler.errors import InvalidBuild

REFERENCE = '$(components.#[_component_id="{}"].x)'


def ring(*names: str) -> list[tuple[str, str]]:
    return list(pairwise([*names, names[0]]))


@pytest.mark.parametrize(
    ("edges", "expected"),
    [
        ([("a", "b"), ("b", "c")], []),
        (ring("a", "b", "c"), ["edges: cycle: a -> b -> c -> a"]),
        (ring("a", "b"), ["edges: cycle: a -> b -> a"]),
        ([*ring("a", "b"), *ring("a", "b")], ["edges: cycle: a -> b -> a"]),
        (
            [*ring("a", "b", "c"), *ring("c", "d", "e")],
            ["edges: cycle: a -> b -> c -> a, and 1 more way round; no edge is on all of them"],
        ),
        (
            [*ring("a", "b"), ("b", "c"), *ring("c", "d", "e")],
            ["edges: cycle: a -> b -> a", "edges: cycle: c -> d -> e -> c"],
        ),
        ([("a", "a")], ["edges[0]: 'a' cannot depend on itself"]),
        (
            [("a", "b"), ("b", "b"), ("b", "a")],
            ["edges: cycle: a -> b -> a", "edges[1]: 'b' cannot depend on itself"],
        ),
        ([("a", "x")], ["edges[0].destination: there is no 'x'"]),
        (
            [("x", "y")],
            ["edges[0].destination: there is no 'y'", "edges[0].source: there is no 'x'"],
        ),
        ([("x", "x")], ["edges[0].destination: ", "edges[0].source: ", "edges[0]: 'x' cannot"]),
        ([("start", "a"), ("a", "end"), ("start", "end"), ("start", "start")], []),
        ([("end", "a"), ("a", "start"), ("start", "end")], []),
        ([("old", "a"), ("a", "old")], []),
    ],
)
def test_edges(edges: list[tuple[str, str]], expected: list[str]) -> None:
    """Edges join two existing ends, and close no cycle; each knot of cycles is reported by a path."""
    changes = [change(name) for name in "abcde"]
    document = build(*changes, components=[change("old")], edges=edges)
    if not expected:
        prepare(document)
        return
    found = sorted(problems_of(document))
    assert len(found) == len(expected)
    assert all(problem.startswith(start) for problem, start in zip(found, sorted(expected), strict=True)), (
        found
    )


def test_a_misspelt_end_is_told_what_was_meant() -> None:
    """An unknown id in an edge is answered with the known one that is like it."""
    found = problems_of(build(change("network::dmz"), edges=[("network::dmzz", "network::dmz")]))
    assert found == ["edges[0].source: there is no 'network::dmzz'; did you mean 'network::dmz'?"]


@pytest.mark.parametrize(
    ("known", "wrong", "difference"),
    [
        ("netz::s\u00fcd", "netz::su\u0308d", "U+00FC where this has U+0075 U+0308"),
        ("netz::su\u0308d", "netz::s\u00fcd", "U+0075 U+0308 where this has U+00FC"),
        ("net::K", "net::\u212a", "U+004B where this has U+212A"),
        ("net::e\u0301\u0323", "net::\u1eb9\u0301", "U+0065 U+0301 U+0323 where this has U+1EB9 U+0301"),
    ],
)
def test_ids_that_differ_in_how_letters_are_composed_are_told_apart(
    known: str, wrong: str, difference: str
) -> None:
    """An id that reads as another does is answered with the difference that cannot be seen."""
    cure = f"there is no '{wrong}'; did you mean '{known}'? It reads the same, but has {difference}"
    by_edge = build(change("a"), change(known, _component="net"), edges=[(wrong, "a")])
    by_path = build(change(known, _component="net"), change("a", x=REFERENCE.format(wrong)))
    by_expression = build(
        change(known, _component="net"), change("a", x=f'{{{{ components["{wrong}"].x }}}}')
    )
    assert problems_of(by_edge) == [f"edges[0].source: {cure}"]
    assert problems_of(by_path) == problems_of(by_expression) == [f"a.x: {cure}"]


def test_very_long_unknown_ids_are_cut() -> None:
    """An unknown id of 5,000 characters does not fill the answer."""
    (found,) = problems_of(build(change("a"), edges=[("a", "x" * 5_000)]))
    assert found.startswith("edges[0].destination: there is no 'xxx")
    assert len(found) < 700


@pytest.mark.timeout(20)
def test_a_ring_of_ten_thousand_is_told_shortly() -> None:
    """A cycle through 10,000 changes is found in no time, and told by its beginning and end."""
    names = [f"n{number}" for number in range(10_000)]
    (found,) = problems_of(build(*map(change, names), edges=ring(*names)))
    assert found.startswith("edges: cycle: n0 -> n1 -> ")
    assert "... 9977 more ..." in found
    assert found.endswith("-> n9998 -> n9999 -> n0")


@pytest.mark.timeout(20)
def test_ten_thousand_mistakes_are_told_in_bounded_time() -> None:
    """A build in which everything is misspelt is refused with all of it, soon."""
    names = [f"network::net-{number:05}" for number in range(5_000)]
    changes = [change(name, x=REFERENCE.format(f"{name}x")) for name in names]
    edges = [(f"{name}y", name) for name in names]
    found = problems_of(build(*changes, edges=edges))
    assert len(found) == 10_000
    assert 0 < sum("did you mean" in problem for problem in found) <= 40


def test_a_reference_implies_its_edge() -> None:
    """A change is after what it refers to, where only this build can supply that."""
    prepared = prepare(
        build(
            change("a", x='{{ components["b"].x }}'),
            change("b", x=REFERENCE.format("c")),
            change("c"),
            change("d", deep=[{"x": REFERENCE.format("b")}]),
        )
    )
    assert prepared.graph.dependencies == ((1,), (2,), (), (1,))
    assert prepared.build.edges == ()


def test_a_reference_implies_no_edge_to_what_is_known_already() -> None:
    """What exists, is deleted or is completed already is waited for only where an edge says so."""
    refers = [REFERENCE.format(name) for name in ("old", "gone", "done")]
    prepared = prepare(
        build(
            change("old", "update", x="1"),
            change("gone", "delete", x="1"),
            change("done", x="1", _state="completed"),
            change("a", x=refers),
            change("b", x=refers),
            components=[change("old", x="1")],
            edges=[("old", "b"), ("gone", "b")],
        )
    )
    assert prepared.graph.dependencies[3] == ()
    assert sorted(prepared.graph.dependencies[4]) == [0, 1]


def test_implied_edges_are_the_same_every_time() -> None:
    """The order of implied edges is that of the references."""
    names = [f"n{number}" for number in random.Random(1).sample(range(1_000), 40)]
    one = change("all", x=[REFERENCE.format(name) for name in names])
    prepared = prepare(build(*map(change, names), one))
    found = [names[vertex] for vertex in prepared.graph.dependencies[40]]
    assert sorted(found) == sorted(names)
    again = prepare(build(*map(change, names), one))
    assert again.graph == prepared.graph


@pytest.mark.parametrize(
    ("changes", "edges", "expected"),
    [
        (
            [change("a", x=REFERENCE.format("b")), change("b")],
            [("a", "b")],
            ["edges: cycle: a -> b -> a (a refers to b, which therefore has to complete first)"],
        ),
        (
            [change("a", x='{{ components["b"].x }}'), change("b", x=REFERENCE.format("a"))],
            [],
            ["edges: cycle: a -> b -> a (b refers to a, which therefore has to complete first)"],
        ),
        (
            [change("a", x=REFERENCE.format("c")), change("b"), change("c")],
            [("a", "b"), ("b", "a"), ("b", "c")],
            ["edges: cycle: a -> b -> a, and 1 more way round; all go over a -> b"],
        ),
        (
            [change("a", x=REFERENCE.format("f")), *map(change, "bcdef")],
            [*(("a", name) for name in "bcde"), *((name, "f") for name in "bcde")],
            [
                (
                    "edges: cycle: a -> b -> f -> a, and 3 more ways round; all go over f -> a"
                    " (a refers to f, which therefore has to complete first)"
                ),
            ],
        ),
        (
            [change("a", x=REFERENCE.format("b")), *map(change, "bcde")],
            [("a", "c"), ("c", "b"), ("a", "d"), ("d", "a"), ("e", "b"), ("b", "e")],
            ["edges: cycle: b -> e -> b, and 2 more ways round; no edge is on all of them"],
        ),
    ],
)
def test_cycles_closed_by_references(changes: list[Document], edges: Any, expected: list[str]) -> None:
    """A reference that closes cycles is named with them."""
    assert sorted(problems_of(build(*changes, edges=edges))) == expected


def test_one_wrong_reference_is_one_problem() -> None:
    """However many cycles it closes: with the shortest of them, and the reference as what opens them all."""
    layers = [[f"l{layer}-{number}" for number in range(5)] for layer in range(4)]
    edges = [(a, b) for before, after in pairwise(layers) for a in before for b in after]
    edges += [("first", name) for name in layers[0]] + [(name, "last") for name in layers[-1]]
    changes = [change("first", x=REFERENCE.format("last")), change("last"), *map(change, chain(*layers))]
    (found,) = problems_of(build(*changes, edges=edges))
    assert found == (
        "edges: cycle: first -> l0-0 -> l1-0 -> l2-0 -> l3-0 -> last -> first, and 624 more ways round;"
        " all go over last -> first (first refers to last, which therefore has to complete first)"
    )


def test_cycles_beyond_counting_are_said_to_be_more() -> None:
    """Exponentially many ways round are counted so far; several edges that are on all are named in part."""
    names = [f"n{number}" for number in range(30)]
    edges = list(pairwise([*names, names[0]]))
    edges += zip(names[4:], names[6:], strict=False)
    (found,) = problems_of(build(*map(change, names), edges=edges))
    assert found.endswith(
        "-> n0, and at least 1,000 more ways round; all go over n0 -> n1, n1 -> n2, n2 -> n3 and 2 others:"
        " without any one of these there is no cycle"
    )


def test_a_component_may_refer_to_itself() -> None:
    """A reference to a field of the component itself is no cycle."""
    prepared = prepare(build(change("a", y="1", x='{{ components["a"].y }}', z="{{ component.y }}")))
    assert prepared.graph.dependencies == ((),)


@pytest.mark.parametrize(
    "text",
    [
        '{{ components["network::dmzz"].x }}',
        REFERENCE.format("network::dmzz"),
        "a {{ components['network::dmzz'].x }}",
    ],
)
def test_a_reference_to_nothing_is_refused(text: str) -> None:
    """A reference to an id that nothing has is refused at intake, with the one that was meant."""
    document = build(change("instance::web-1", network_id=text), change("network::dmz"))
    text = "there is no 'network::dmzz'; did you mean 'network::dmz'?"
    assert problems_of(document) == [f"instance::web-1.network_id: {text}"]


def test_a_field_that_is_nowhere_is_refused_where_it_can_be_known() -> None:
    """Of what exists and is not changed the fields are known; of what is to come they are not."""
    document = build(
        change("a", x=REFERENCE.format("old")),
        change("b", x=REFERENCE.format("new")),
        change("new"),
        components=[change("old")],
    )
    (found,) = problems_of(document)
    assert found.startswith("a.x: ")
    assert "'old' has no 'x'" in found


@pytest.mark.parametrize(
    "text",
    ["{{ components['gone'].x | default('y') }}", "{{ 'y' if components['gone'] is defined else 'n' }}"],
)
def test_guarded_references_are_judged_when_due(text: str) -> None:
    """A reference under default or is defined may lead to nothing."""
    prepare(build(change("a", x=text)))


def test_what_a_find_may_supply_is_judged_when_due() -> None:
    """Behind a find, however far, an unknown id is no mistake yet; before it, it is."""
    refers = REFERENCE.format("unknown")
    prepare(build(change("f", "find"), change("m"), change("a", x=refers), edges=[("f", "m"), ("m", "a")]))
    document = build(change("f", "find"), change("a", x=refers), edges=[("a", "f")])
    assert problems_of(document) == ["a.x: there is no 'unknown'"]


def test_ernest_mode_keeps_what_is_unresolved() -> None:
    """With unresolved=keep a path to nothing is taken; an expression to nothing is not."""
    prepare(build(change("a", x=REFERENCE.format("gone"))), unresolved=OnUnresolved.KEEP)
    with pytest.raises(InvalidBuild, match="there is no 'gone'"):
        prepare(build(change("a", x="{{ components['gone'].x }}")), unresolved=OnUnresolved.KEEP)


def test_expressions_can_be_left_off() -> None:
    """With templates=ernest double braces are plain text."""
    prepare(build(change("a", x="{{ not an expression")), templates=Templates.ERNEST)
    assert len(problems_of(build(change("a", x="{{ not an expression")))) == 1


def test_the_budget_of_template_nodes() -> None:
    """References up to max_template_nodes are taken; beyond it, its name and value are told."""
    document = build(*(change(f"n{number}", x="{{ build.id }}") for number in range(10)))
    prepare(document, limits=Limits(max_template_nodes=20))
    with pytest.raises(InvalidBuild, match=r"^changes: 20 template nodes in all; max_template_nodes is 19$"):
        prepare(document, limits=Limits(max_template_nodes=19))
    with pytest.raises(InvalidBuild, match=r"^n0: 2 template nodes; max_template_nodes is 1 \(and 9 more\)$"):
        prepare(document, limits=Limits(max_template_nodes=1))


TOKENS = [
    "a b", " a", "a\r\nPUB x 1", "a\0", "a*", "*", ">", "a.b", ".", "$JS", "é", "x" * 65, "a\n", "a/b",
]  # fmt: skip


@pytest.mark.parametrize("field", ["_component", "_provider"])
@pytest.mark.parametrize("token", TOKENS)
def test_tokens_that_can_never_be_valid(field: str, token: str) -> None:
    """A type or provider that cannot be part of a subject is refused with its place."""
    found = problems_of(build(change("x"), change("a", **{field: token})))
    assert found == [f"changes[1].{field}: {token!r} does not match [A-Za-z0-9_-]{{1,64}}"]


@pytest.mark.parametrize(
    ("field", "token"),
    [
        *(
            ("_component", token)
            for token in ("build", "service", "environment", "scheduler", "_x", "_INBOX")
        ),
        *(("_provider", token) for token in ("done", "error", "mapping", "definition", "validation")),
    ],
)
def test_tokens_that_would_forge_a_message(field: str, token: str) -> None:
    """A type or provider that makes a message of the system is refused with its place."""
    found = problems_of(build(change("a", **{field: token})))
    assert found == [
        f"changes[0].{field}: {token!r} is reserved: its subject would be a message of the system"
    ]


def test_tokens_that_are_fine() -> None:
    """64 characters are fine, and so are reserved words in the other place and what is never sent."""
    prepare(
        build(
            change("a", _component="x" * 64, _provider="x" * 64),
            change("b", _component="done", _provider="build"),
            change("c", _provider="_x"),
            change("d", "none", _provider="a b"),
            change("h", "approve", _component="a.b", _provider="done"),
            change("e", _provider="a b", _state="completed"),
            change("f", _provider='{{ build.options.provider | default("x") }}'),
            change("g", _provider="$(id)"),
        )
    )


def test_a_gate_is_not_tried_again() -> None:
    """What would be a rule for attempts is refused, with what asks again instead."""
    [problem] = problems_of(build(change("g", "approve", _retry={"attempts": 2})))
    assert problem.startswith("changes[0]._retry: a gate is not tried again: leave it out")
    prepare(build(change("g", "approve", _timeout=60, _retry=None)))


def test_a_reference_to_an_approval_waits_for_it() -> None:
    """It implies the edge, since nothing but this build supplies it."""
    prepared = prepare(build(change("z", by="{{ components['g'].approved_by }}"), change("g", "approve")))
    assert prepared.graph.dependencies[0] == (1,)


def test_references_in_tokens_need_their_form_to_be_on() -> None:
    """With templates=ernest braces in a provider are as invalid as any."""
    document = build(change("a", _provider="{{ build.id }}"))
    with pytest.raises(InvalidBuild, match=r"^changes\[0\]._provider: "):
        prepare(document, templates=Templates.ERNEST)


def test_what_is_completed_is_data() -> None:
    """Braces in a change that is completed are a connector's, not ours."""
    prepare(build(change("a", x="{{ broken", y="$(components.#[", _raw=5, _state="completed")))


def test_an_error_of_an_earlier_run_is_forgotten() -> None:
    """A change that is to be done again starts without its old error text, whatever that holds."""
    prepared = prepare(build(change("a", _state="errored", error="bad {{ thing", x=1)))
    assert "error" not in prepared.build.changes[0].fields
    assert prepared.build.changes[0].fields["x"] == 1


def test_one_mistake_is_told_once() -> None:
    """References and edges to an element that is wrong otherwise are no further problems."""
    document = build(
        change("bad", _provider=5),
        change("a", x=REFERENCE.format("bad"), y="{{ components['bad'].y }}"),
        components=[None],
        edges=[("bad", "a")],
    )
    found = problems_of(document)
    assert [problem.partition(":")[0] for problem in found] == ["components[0]", "changes[0]._provider"]


def test_a_bad_template_hides_no_other_problem() -> None:
    """Where one component cannot be compiled, the references of the others are still judged."""
    document = build(
        change("a", x="{{ 1 +"),
        change("b", x=REFERENCE.format("gone")),
        change("c", x=REFERENCE.format("d")),
        change("d", x=REFERENCE.format("c")),
        change("d"),
    )
    places = sorted(problem.partition(":")[0] for problem in problems_of(document))
    assert places == ["a.x", "b.x", "changes[4]._component_id", "edges"]


def test_stored_builds_may_hold_what_connectors_returned() -> None:
    """A build that comes back from the store may be larger and deeper, and its errored changes are data."""
    deep: Any = 1
    for _ in range(63):
        deep = [deep]
    large = "x" * 300_000
    document = build(
        change("a", "find", _state="completed", components=[], x=deep, y=large),
        change("b", _state="errored", error="{{ broken", x="{{ broken"),
        components=[change("c", x=large)],
    )
    prepared = prepare(document, resumed=True)
    assert prepared.build.changes[1].fields["error"] == "{{ broken"
    places = [problem.partition(":")[0] for problem in problems_of(document)]
    assert places == ["components[0]", "changes[0]", "b.x"]


def test_what_was_accepted_once_is_judged_when_due() -> None:
    """A stored build is not refused for a token or a reference, which its component fails for when due."""
    document = build(change("a", _provider="a b"), change("b", x=REFERENCE.format("gone")))
    assert len(problems_of(document)) == 2
    prepare(document, resumed=True)
    with pytest.raises(InvalidBuild, match="cycle"):
        prepare(build(change("a"), change("b"), edges=ring("a", "b")), resumed=True)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1, "b": {"x": 1, "y": [2]}}, {"b": {"y": [2], "x": 1}, "a": 1}),
        ({}, {}),
    ],
)
def test_equal_content_has_one_digest(one: Document, other: Document) -> None:
    """The order of keys is no content."""
    assert parse_build(encode(one)).digest == parse_build(encode(other)).digest


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, {"a": "1"}),
        ({"a": [1]}, {"a": 1}),
        ({"a": []}, {"a": None}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": [1], "b": []}, {"a": [], "b": [1]}),
        ({"a": 2**53}, {"a": 2**53 + 1}),
        ({"a": [[1], [2]]}, {"a": [[1, 2]]}),
    ],
)
def test_other_content_has_another_digest(one: Document, other: Document) -> None:
    """Any difference in content makes another digest."""
    assert parse_build(encode(one)).digest != parse_build(encode(other)).digest


def test_the_digest_is_that_of_earlier_versions() -> None:
    """Stored digests stay comparable: an unusual edge has no effect on those of the plain ones beside it."""
    few = [
        {"source": "a", "destination": "b", "length": 1},
        {"source": "b", "destination": "c", "length": 1, "x": 1},
        {"source": "start", "destination": "a", "length": 2},
    ]
    many = [{"source": "a", "destination": "c", "length": length} for length in range(70)]
    fields = {
        "_component_id": "a",
        "_component": "t",
        "_provider": "p",
        "_action": "create",
        "z": "é",
        "y": None,
    }
    document = {
        "id": "b1",
        "components": [{"_component_id": "old", "x": 1.5}],
        "changes": [fields],
        "edges": [*few, *many, *few],
    }
    assert parse_build(encode(document)).digest.hex() == "3b35d88985cbe5db092f3021ce01e891"


def test_the_digest_is_of_what_was_submitted() -> None:
    """Layout makes no difference to a build's digest; a changed field does, also one that is not sent."""
    document = build(change("a", x=1, _state="errored", error="one"))
    same = encode(document).replace(b",", b", ")
    assert parse_build(same).digest == prepare(document).digest
    document["changes"][0]["error"] = "two"
    assert parse_build(same).digest != prepare(document).digest


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('{{ components["a"].x }}', "a.x: refers to itself"),
        ('$(components.#[_component_id="a"].x)', "a.x: refers to itself"),
        ("v {{ components['a'].x }}", "a.x: refers to itself"),
        ("{{ component.x }}", "a.x: refers to itself"),
        ('{{ components["a"].z }}', "a.x: 'a' has no 'z'"),
    ],
)
def test_a_change_that_refers_to_what_it_lacks_itself_is_refused(text: str, problem: str) -> None:
    """Of its own id a change can use what was submitted, and nothing else."""
    assert [one.startswith(problem) for one in problems_of(build(change("a", x=text)))] == [True]
    prepare(build(change("a", y="{{ components['a'].z | default('none') }}")))
    if text.startswith("$"):
        prepare(build(change("a", x=text)), unresolved=OnUnresolved.KEEP)
