"""A property of reading builds: what is read in the short way is what the general way reads."""

from typing import Any
from unittest.mock import patch

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from scheduler.definition.choices import OnUnresolved, Templates
from scheduler.definition.limits import Limits
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild

PATH = '$(components.#[_component_id="{}"].{})'
EXPRESSION = 'as {{{{ components["{}"].{} }}}} is'
GENERAL = (
    patch("scheduler.definition.template.component.find", lambda *_: None),
    patch("scheduler.definition.converter._plain_change", lambda _: None),
    patch("scheduler.definition.codec._EDGES", 1),
    patch("scheduler.definition.shapes.Shapes.read", lambda *_: None),
)
"""Turns each short way off."""


def element(name: str, **fields: Any) -> dict[str, Any]:
    """A component that is valid if its fields are."""
    return {"_component_id": name, "_component": "vpc", "_provider": "aws", "_action": "create", **fields}


ids = st.sampled_from(["a", "b", "c", "d", "é", "old", "gone", "a{{"])
names = st.sampled_from(["x", "v.w", "tags.x", "missing"])
texts = st.one_of(
    st.builds(PATH.format, ids, names),
    st.builds(EXPRESSION.format, ids, names),
    st.sampled_from(
        [
            "text",
            "{{ build.id }}",
            "$(options.x)",
            '{{ components["a"].x | upper }}',
            '{{ components["gone"].x | default("") }}',
            "{{ component.x }}",
            "{{ broken",
            "$(",
            "${a}",
            'q"\n\\',
            "user:secret@host",
            "\u2028é",
        ]
    ),
)
own = st.fixed_dictionaries(
    {
        "_component_id": st.one_of(ids, ids, ids, st.sampled_from(["", "start", 5, None])),
        "_component": st.sampled_from(
            ["vpc", "vpc", "vpc", "credentials", "build", PATH.format("a", "x"), 7]
        ),
        "_provider": st.sampled_from(["aws", "aws", "aws", "done", "{{ build.id }}"]),
        "_action": st.sampled_from(
            ["create", "create", "update", "delete", "find", "none", "make", ["create"]]
        ),
    },
    optional={
        "_state": st.sampled_from(
            ["waiting", "waiting", "waiting", "", None, "running", "errored", "completed", "other", {}]
        ),
        "service": st.sampled_from(["b1", "b2"]),
        "_State": st.just("waiting"),
        "_raw": st.sampled_from([["x"], [], 5]),
        "_secret": st.sampled_from([["x"], "x"]),
        "_timeout": st.sampled_from([5, "10m"]),
        "_retry": st.sampled_from([{"attempts": 2}, 3]),
        "_attempts": st.sampled_from([1, "x"]),
        "adoptable": texts,
        "password": texts,
    },
)
free = st.dictionaries(
    st.sampled_from(["x", "v", "tags", "name", "_tiemout"]),
    st.one_of(
        texts, texts, st.lists(texts, max_size=2), st.dictionaries(names, texts, max_size=2), st.just(1.50)
    ),
    max_size=4,
)
elements = st.builds(lambda first, rest: {**first, **rest}, own, free)
FEW = ("a", "b", "c", "d")
valid = st.builds(
    lambda name, action, fields: element(name, _state="waiting", **fields, _action=action),
    st.sampled_from(FEW),
    st.sampled_from(["create", "create", "create", "update", "find", "none", "delete"]),
    st.dictionaries(
        st.sampled_from(["x", "v", "tags"]),
        st.one_of(
            st.builds(PATH.format, st.sampled_from(FEW), names),
            st.builds(EXPRESSION.format, st.sampled_from(FEW), names),
            st.sampled_from(["text", "{{ build.id }}", '{{ components["b"].x | default("") }}', "${a}"]),
        ),
    ),
)


def identity(one: dict[str, Any]) -> str:
    return str(one["_component_id"])


valid_edges = st.builds(
    lambda source, destination: {"source": source, "destination": destination, "length": 1},
    st.sampled_from([*FEW, "start"]),
    st.sampled_from(["end", *FEW[::-1]]),
)
changes = st.one_of(elements, elements, elements, st.sampled_from([None, [], "a"]))
ends = st.one_of(ids, ids, st.sampled_from(["start", "end", "nobody", ""]))
edges = st.one_of(
    st.fixed_dictionaries({"source": ends, "destination": ends, "length": st.just(1)}),
    st.fixed_dictionaries({"source": ends, "destination": ends}),
    st.fixed_dictionaries(
        {"source": ends, "destination": ends, "length": st.sampled_from([2**60, 1.5]), "x": ends}
    ),
)
builds = st.fixed_dictionaries(
    {
        "id": st.just("b1"),
        "options": st.just({"x": "option"}),
        "components": st.lists(elements, max_size=2),
        "changes": st.lists(changes, max_size=5),
        "edges": st.lists(edges, max_size=6),
    }
)
different = st.lists(valid, min_size=2, max_size=4, unique_by=identity)
likely = st.fixed_dictionaries(
    {
        "id": st.just("b1"),
        "components": st.lists(valid, max_size=1),
        "changes": different,
        "edges": st.lists(valid_edges, max_size=3),
    }
)
limits = st.sampled_from([Limits(), Limits(max_template_nodes=6), Limits(max_id_bytes=16, max_depth=4)])


def read(document: dict[str, Any], **settings: Any) -> object:
    """What comes of a build: all of it that later work sees; or its problems."""
    try:
        prepared = read_build(msgspec.json.encode(document), **settings)
    except InvalidBuild as refusal:
        return refusal.code, refusal.problems
    return (
        prepared.build,
        prepared.graph,
        prepared.digest,
        prepared.policy,
        prepared.hints,
        [(one.constant, one.nodes, one.references) for one in prepared.templates],
        [change.sensitive for change in prepared.build.changes],
    )


@given(
    st.one_of(builds, likely),
    limits,
    st.sampled_from(Templates),
    st.sampled_from(OnUnresolved),
    st.booleans(),
)
@settings(max_examples=200)
@example(
    {
        "id": "b1",
        "changes": [
            element("a"),
            element("b", x=PATH.format("a", "x")),
            element("c", x=PATH.format("b", "x")),
        ],
        "edges": [{"source": "c", "destination": "a", "length": 1}],
    },
    Limits(),
    Templates.ALL,
    OnUnresolved.ERROR,
    False,
)
def test_both_ways_of_reading_agree(
    document: dict[str, Any], limits: Limits, templates: Templates, unresolved: OnUnresolved, resumed: bool
) -> None:
    """Builds, graphs, templates, digests, hints and problems are the same, whichever way a part is read."""
    settings: dict[str, Any] = {
        "limits": limits,
        "templates": templates,
        "unresolved": unresolved,
        "resumed": resumed,
    }
    with patch("scheduler.definition.shapes._EVERY", 1):
        read(document, **settings)
    short = read(document, **settings)
    with GENERAL[0], GENERAL[1], GENERAL[2], GENERAL[3]:
        general = read(document, **settings)
    assert short == general
