"""The JSON Schema of a build: never stricter than the scheduler, and as strict as it can be."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import Document, build, change
from support.cases import Case, cases
from support.schemas import Checker

from scheduler.commands.schema import schema_file
from scheduler.definition.model import SETTINGS
from scheduler.definition.rules import OPTIONS
from scheduler.definition.schema import build_schema
from scheduler.definition.strictjson import decode, encode
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild
from scheduler.local.generate import generate

ROOT = Path(__file__).parents[2]
CHECKER = Checker(json.loads(schema_file("build").read_text()))


def accepts(document: object) -> bool:
    """Whether the scheduler takes it."""
    try:
        read_build(encode(document))
    except InvalidBuild:
        return False
    return True


def documents() -> Iterator[Document]:
    """Builds that the project has: examples, those in the documentation, and in recorded logs."""
    for path in sorted((ROOT / "scheduler" / "examples").glob("*.json")):
        yield json.loads(path.read_text())
    for block in re.findall(r"(?ms)^```json\n(.*?)^```$", (ROOT / "scheduler/docs/builds.md").read_text()):
        if "_component_id" in block:
            yield json.loads(block)
    for path in sorted((ROOT / "tests" / "golden").glob("*.jsonl")):
        for line in filter(None, path.read_text().split("\n")):
            for event in json.loads(line)["events"]:
                if isinstance(event.get("document"), dict):
                    yield event["document"]
    yield decode(encode(generate(200)))


@pytest.mark.parametrize("document", [*documents()])
def test_every_build_of_the_project_fits(document: Document) -> None:
    """What the scheduler ships, explains and has run is fine."""
    assert CHECKER.fits(document), CHECKER.place(document)


@given(cases())
def test_random_builds_that_run_fit(case: Case) -> None:
    """Whatever the shape of the graph, and whatever states its changes have."""
    assert CHECKER.fits(case.document)


def test_every_field_that_speaks_to_the_scheduler_is_in_the_schema() -> None:
    """Those of a change, and those of the options of a build."""
    definitions = build_schema()["$defs"]
    assert set(definitions["ChangeDocument"]["properties"]) >= set(SETTINGS)
    assert set(definitions["OptionsDocument"]["properties"]) == set(OPTIONS)


@pytest.mark.parametrize(
    ("document", "place"),
    [
        ([], ""),
        ({}, ""),
        (build(id="b 1"), "id"),
        (build(changes_=1, edges={}), "edges"),
        (build(change("a", _component_id="")), "changes[0]._component_id"),
        (build(change("start")), "changes[0]._component_id"),
        (build(change("a", _component=None)), "changes[0]"),
        (build(change("a", _component="a.b")), "changes[0]._component"),
        (build(change("a", _component="service")), "changes[0]._component"),
        (build(change("a", _component="_vpc")), "changes[0]._component"),
        (build(change("a", _provider="done")), "changes[0]._provider"),
        (build(change("a", "make")), "changes[0]._action"),
        (build(change("a"), change("b", _state="done")), "changes[1]._state"),
        (build(change("a", _timeout="10m")), "changes[0]._timeout"),
        (build(change("a", _timeout=0)), "changes[0]._timeout"),
        (build(change("a", _heartbeat="30s")), "changes[0]._heartbeat"),
        (build(change("a", _heartbeat=0)), "changes[0]._heartbeat"),
        (build(change("a", _retry={"attempts": 0})), "changes[0]._retry.attempts"),
        (build(change("a", _retry={"attempt": 2})), "changes[0]._retry"),
        (build(change("a", _raw="user_data")), "changes[0]._raw"),
        (build(change("a", _secret=["a", ""])), "changes[0]._secret[1]"),
        (build(components=({"name": "a"},)), "components[0]"),
        (build(edges=[{"source": "a"}]), "edges[0]"),
        (build(edges=[{"source": "a", "destination": "b", "length": "1"}]), "edges[0].length"),
        (build(options={"on_error": "stop"}), "options.on_error"),
        (build(options={"max_failures": "5"}), "options.max_failures"),
        (build(options={"limits": {"vpc.create": 5}}), "options.limits"),
        (build(options={"limits": {"vpc.create.*": "5/d"}}), "options.limits.vpc.create.*"),
    ],
)
def test_a_typical_mistake_is_named_with_its_place(document: object, place: str) -> None:
    """The scheduler refuses it as well."""
    assert not accepts(document)
    assert CHECKER.place(document) == place


@pytest.mark.parametrize(
    "document",
    [
        build(**{"$schema": "./build.schema.json"}),
        {"id": "b"},
        build(components=None, edges=None, action=7, name=7, options=None),
        build(options="mine"),
        build(change("a", _state=None, _raw=None, _secret=None, _timeout=None, _retry=None)),
        build(change("a", _state="")),
        build(change("a", _state="completed", _component="a.b", _provider="done", _raw=5)),
        build(change("a", "none", _component="a.b", _provider="error")),
        build(change("a", _component="$(name)", _provider="{{ build.name }}")),
        build(options={"limits": "vpc.create.*=5, *=20/s", "max_failures": "5.5 %", "mine": 1}),
        build(options={"limits": {"*": " 5 / s ", "vpc.*.*": 5}, "retry": {"attempts": 2}}),
        build(edges=[("start", "end")]),
    ],
)
def test_what_the_scheduler_takes_fits(document: Document) -> None:
    """Also what nobody would write."""
    assert accepts(document)
    assert CHECKER.fits(document)


def test_the_key_by_which_editors_find_the_schema_has_no_effect() -> None:
    """It is kept like any other field that is none of ours."""
    prepared = read_build(encode(build(change("a"), **{"$schema": "./build.schema.json"})))
    assert prepared.hints == ()
    assert prepared.build.fields["$schema"] == "./build.schema.json"


NUMBERS = st.sampled_from([-1, 0, 0.5, 1, 2, 99.5, 1_000, 1_001, 1_000_000, 2_592_000, 1e9])
TEXTS = st.sampled_from(
    (
        *("", "a", "vpc", "a.b", "*", "a.*.b", "5", "20/s", "5%", "101 %", "x" * 65, "_a", "a b"),
        *("done", "build", "start", "drain", "continue", "completed", "waiting", "create", "none"),
        *("$(name)", "{{ build.id }}"),
    )
)
NAMES = st.sampled_from(
    ["name", "_raw", "_retry", "_secret", "_state", "_timeout", "_heartbeat", "_action", "_component"]
)
ANY = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXTS | NAMES, inner, max_size=2),
    max_leaves=4,
)
KEYS = {
    "build": ["id", "action", "name", "components", "changes", "edges", "options", "$schema"],
    "options": ["retry", "limits", "on_error", "max_failures", "mine"],
    "retry": ["attempts", "backoff", "max_backoff", "total_timeout", "attempt"],
    "limits": ["*", "vpc.create.*", "vpc.create", "*.*.*.*"],
    "component": ["_component_id", "_component", "_provider", "_secret", "_raw", "name"],
    "change": [
        *("_component_id", "_component", "_provider", "_action", "_state", "_timeout", "_retry", "_raw"),
        *("_secret", "name", "service"),
    ],
    "edge": ["source", "destination", "length", "name"],
}
"""The keys that may be set to anything, by what they stand in."""


@st.composite
def builds(draw: st.DrawFn) -> Document:
    """A build in which up to three fields may say anything; without them there is nothing wrong."""
    retry: Document = {"attempts": 2}
    limits: Document = {"net.*.*": "20/s"}
    options: Document = {"retry": {}, "limits": limits}
    state, action = draw(st.sampled_from(["waiting", "completed"])), draw(st.sampled_from(["create", "none"]))
    one = change("a", action, _state=state, _retry=retry)
    component: Document = {"_component_id": "e", "_component": "vpc"}
    edge: Document = {"source": "e", "destination": "a"}
    document: Document = {
        "id": "b",
        "components": [component],
        "changes": [change("b"), one],
        "edges": [edge],
        "options": options,
    }
    places = {"build": document, "options": options, "retry": retry, "limits": limits}
    places |= {"component": component, "change": one, "edge": edge}
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from([*places]))
        places[place][draw(st.sampled_from(KEYS[place]))] = draw(ANY)
    return document


@given(builds())
def test_the_schema_is_never_stricter_than_the_scheduler(document: Document) -> None:
    """A build that the scheduler takes fits."""
    if accepts(document):
        assert CHECKER.fits(document), CHECKER.place(document)


BEYOND = re.compile(r"is the id of|there is no|percentage|cannot go with|cannot depend on itself|has no")
"""What only the scheduler knows: the ids of a build, what references lead to, the text of limits."""


@given(builds())
def test_what_fits_has_only_mistakes_that_no_schema_can_see(document: Document) -> None:
    """Types, words, bounds and names are the same for both."""
    if CHECKER.fits(document):
        try:
            read_build(encode(document))
        except InvalidBuild as error:
            for problem in error.problems:
                assert BEYOND.search(problem.message), str(problem)
