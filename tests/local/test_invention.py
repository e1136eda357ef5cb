"""Inventing what the references of a build ask for: the build runs to its end, whatever they are."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import Document, Run, build, change, prepare

from scheduler.local.generate import Shape, generate
from scheduler.local.invention import invent
from scheduler.local.results import Invention, completed, parse_output, supplemented
from scheduler.local.simulator import Behaviour


def run(document: Document, *outputs: str) -> dict[str, Document]:
    """Run a build with invented replies to its end; return the requests."""
    prepared = prepare(document)
    rules = Behaviour(outputs=tuple(map(parse_output, outputs))).outputs_for
    invention = invent(prepared, rules)
    driver = Run(document)
    requests: dict[str, Document] = {}
    for layer in driver.plan.graph.layers():
        for vertex in layer:
            name = driver.plan.graph.ids[vertex]
            subject = driver.plan.requests.subject(vertex)
            if subject.split(".")[1] == "none":
                continue
            requests[name] = driver.send(name)
            driver.answer(name, completed(subject, requests[name], rules(subject), invention))
    assert driver.over()
    assert {state for name, state in driver.states().items() if name in requests} <= {"completed"}
    return requests


def pair(text: Any, *, before: Document | None = None, **fields: Any) -> Document:
    """A build of two, of which the second one refers to the first one."""
    first = change("box::a") if before is None else before
    return build(first, change("box::b", value=text, **fields), edges=[("box::a", "box::b")])


PLACES = [
    '$(components.#[_component_id="box::a"].name_of_it)',
    '$(components.#[_component_id="box::a"].tags.0)',
    '$(components.#[_component_id="box::a"].disks.#[name="root"].size)',
    '$(components.#[_component_id="box::a"].disks.#[size>40]#.name)',
    '$(components.#[_component_id="box::a"].disks.#.name)',
    '$(components.#[_component_id="box::a"].disks.#)',
    '$(components.#[_component_id="box::a"].ip_*.value)',
    '$(components.#[_component="box"].some_id)',
    '$(components.#[role="db"].some_id)',
    "{{ components['box::a'].x.y.z }}",
    "{{ components['box::a'].x[2] }} and {{ components['box::a'].x[0].name }}",
    "{{ components['box::a'].x[-2] }}",
    "{{ components['box::a'].port + 1 }}",
    "{{ components['box::a'].port - 2 > 3 }}",
    "{{ components['box::a'].ips | join(',') }}",
    "{{ components['box::a'].ips | sort | first | upper }}",
    "{{ (components['box::a'].count | abs) + components['box::a'].more }}",
    "{{ components['box::a'].spare if components['box::a'].name else 1 }}",
    "{{ components['box::a'].x | default('y') }}",
    "{{ components['box::a'].x | tojson }}",
    "{{ components['box::a'].x[component.index] }}",
    "{{ components[component.other].endpoint }}",
]


@pytest.mark.parametrize("text", PLACES)
def test_a_reference_finds_something(text: str) -> None:
    """Whatever it asks for, the component that has it can be rendered."""
    requests = run(pair(text, index=1, other="box::a"))
    assert requests["box::b"]["value"] not in (None, "")


def test_values_are_of_the_kind_that_is_used() -> None:
    """A text by default, a number where one is counted with, a list or an object where one is gone into."""
    document = pair("{{ components['box::a'].port + 1 }}")
    document["changes"][1] |= {
        "ip": "{{ components['box::a'].public_ip }}",
        "first": "{{ components['box::a'].names[0] }}",
        "inner": "{{ components['box::a'].server.host }}",
    }
    fields = invent(prepare(document)).fields["box::a"]
    assert isinstance(fields["port"], int)
    assert fields["public_ip"].startswith("203.0.113.")
    assert isinstance(fields["names"], list)
    assert fields["server"]["host"].endswith(".example.com")


def test_the_same_build_gets_the_same_values() -> None:
    """A build that runs again looks as before."""
    document = pair("{{ components['box::a'].x }}{{ components['box::a'].y }}")
    assert invent(prepare(document)) == invent(prepare(document))


def test_what_a_connector_returns_anyway_stays() -> None:
    """Fields of the request, of the cloud, and those that somebody has set."""
    before = change("vpc::a", name="mine", tags={"x": "1"})
    texts = [f"{{{{ components['vpc::a'].{path} }}}}" for path in ("name", "tags.x", "vpc_aws_id", "set")]
    document = build(before, change("box::b", value=texts), edges=[("vpc::a", "box::b")])
    values = run(document, "vpc.create.*:set=7")["box::b"]["value"]
    assert values[:2] == ["mine", "1"]
    assert values[2].startswith("vpc-")
    assert values[3] == 7


def test_a_reference_through_a_definition_is_followed() -> None:
    """What the definition refers to is invented."""
    there = {"_component_id": "box::there", "_component": "box", "x": "{{ components['box::a'].deep.id }}"}
    document = pair("{{ components['box::there'].x }}")
    document["components"] = [there]
    assert run(document)["box::b"]["value"].startswith("id-")


def test_a_search_finds_what_is_referred_to() -> None:
    """A component that only a search can supply."""
    document = build(
        change("box::q", "find"),
        change("box::b", value="{{ components['box::elsewhere'].some_id }}"),
        edges=[("box::q", "box::b")],
    )
    assert run(document)["box::b"]["value"].startswith("some-id-")


def test_nothing_is_invented_where_nobody_asks() -> None:
    """A build without references."""
    assert invent(prepare(build(change("box::a")))) == Invention()


@pytest.mark.parametrize(
    ("value", "invented", "expected"),
    [
        (None, "x", "x"),
        ("", "x", "x"),
        ("mine", "x", "mine"),
        (0, 5, 0),
        (False, "x", False),
        ({"a": 1}, {"a": 2, "b": 3}, {"a": 1, "b": 3}),
        ([1], [2, 3], [1, 3]),
        ([1, 2], [3], [1, 2]),
        ("mine", {"a": 1}, {"a": 1}),
    ],
)
def test_only_what_is_missing_or_empty_is_supplemented(value: Any, invented: Any, expected: Any) -> None:
    """An empty text is a placeholder, as Ernest's definitions have it."""
    assert supplemented(value, invented) == expected


@pytest.mark.parametrize("shape", list(Shape))
def test_a_generated_build_runs(shape: Shape) -> None:
    """Its references are those of the demo."""
    run(generate(40, shape=shape))


NAMES = st.sampled_from(["id", "ip", "port", "name", "tags", "x1"])
STEPS = st.one_of(NAMES.map(lambda name: f".{name}"), st.integers(0, 3).map(lambda index: f"[{index}]"))
USES = st.sampled_from(
    ["", " | upper", " | length", " | tojson", " | default('d')", " ~ 'x'", " | string | trim"]
)


@st.composite
def builds(draw: st.DrawFn) -> Document:
    """Builds whose components refer to earlier ones, by paths and in expressions."""
    size = draw(st.integers(2, 6))
    actions = [draw(st.sampled_from(["create", "update", "get", "create"])) for _ in range(size)]
    changes = [change(f"box::{number}", action) for number, action in enumerate(actions)]
    edges = set()
    for number in range(1, size):
        for place in range(draw(st.integers(0, 3))):
            target = draw(st.integers(0, number - 1))
            edges.add((f"box::{target}", f"box::{number}"))
            root, field = f"components['box::{target}']", f"f{draw(st.integers(0, 9))}_{number}_{place}"
            steps = "".join(draw(st.lists(STEPS, max_size=3)))
            if draw(st.booleans()):
                text = f"{{{{ {root}.{field}{steps}{draw(USES)} }}}}"
            else:
                path = (field + steps).replace("[", ".").replace("]", "")
                text = f'$(components.#[_component_id="box::{target}"].{path})'
            changes[number][f"v{place}"] = draw(st.sampled_from([text, [text], {"deep": text}]))
    return build(*changes, edges=sorted(edges))


@given(builds())
def test_any_build_with_references_runs_to_its_end(document: Document) -> None:
    """Every component is rendered and completed."""
    run(document)


def test_a_subject_that_a_reference_supplies_is_one() -> None:
    """An invented text may stand in a subject."""
    document = build(
        change("box::a"),
        change("box::b", _component="{{ components['box::a'].kind }}"),
        edges=[("box::a", "box::b")],
    )
    fields = invent(prepare(document)).fields["box::a"]
    assert fields["kind"].startswith("kind-")


def test_what_references_lead_through_is_known_without_a_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths need none, as they say what they go into."""
    monkeypatch.setattr("scheduler.local.invention._MOST_TRIALS_OF_ALL", 0)
    run(pair("{{ components['box::a'].x[2].y }}"))


def test_what_cannot_be_guessed_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build whose references nothing satisfies is given up, after a bounded number of trials."""
    monkeypatch.setattr("scheduler.local.invention._MOST_TRIALS_OF_ALL", 50)
    texts = ["{{ components['box::a'].x + components['box::a'].x | upper + 1 }}"] * 20
    invention = invent(prepare(pair(texts)))
    assert set(invention.fields["box::a"]) == {"x"}
