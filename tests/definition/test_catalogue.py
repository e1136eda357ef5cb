"""Queries over all components: by an index they find what looking at each would find."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.builds import Document, Run, build, change

from scheduler.definition.scope import Due
from scheduler.definition.template import Found, Laborious, Scope, Work
from scheduler.errors import InvalidBuild, TemplateError, Unresolved

NAMES = ["a", "b", "c", "d", "e", "f"]
VALUES = st.sampled_from(
    [
        "x", "y", "1", "true", "null", 1, 1.0, 0, True, False, None, [], ["x"], {"k": "x"},
        "{{ build.name }}", "{{ build.nope }}", "{{ build.count }}", "$(name)",
        "{{ components['a'].tag }}", "{{ components['b'].tag }}", "{{ components['c'].tag }}",
        '$(components.#[tag="x"].id)',
    ]
)  # fmt: skip
FIELDS = st.fixed_dictionaries(
    {"id": st.sampled_from(["i1", "i2", "{{ build.name }}"])},
    optional={"tag": VALUES, "deep": st.lists(st.fixed_dictionaries({"tag": VALUES}), max_size=2)},
)
REPLIES = st.fixed_dictionaries(
    {"id": st.sampled_from(["r1", "r2"])},
    optional={
        "tag": VALUES,
        "components": st.lists(
            st.fixed_dictionaries(
                {"_component_id": st.sampled_from([*NAMES, "new1", "new2"])}, optional={"tag": VALUES}
            ),
            max_size=3,
        ),
    },
)
ACTIONS = st.sampled_from(["create", "update", "delete", "none", "find"])
QUERIES = [
    '$(components.#[tag="x"].id)',
    '$(components.#[tag="x"]#.id)',
    '$(components.#[tag=1]#.id)',
    '$(components.#[tag="true"]#._component_id)',
    '$(components.#[tag=="y"].tag)',
    '$(components.#[deep.1.tag="x"].id)',
    '$(components.#[deep.0.tag="x"]#.id)',
    '$(comp*.#[id="r1"]#.tag)',
]  # fmt: skip


class Plain(Scope):
    """What a component sees, without anything that makes looking quick."""

    def __init__(self, due: Due) -> None:
        self.build = due.build
        self._due = due

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        return self._due.find(id)

    def all(self) -> Sequence[Found]:
        return list(self._due.all())

    def ids(self) -> Iterable[str]:
        return self._due.ids()


def outcome(run: Run, name: str, scope: Scope) -> tuple[bytes, str]:
    template = run.plan.requests._templates[run.vertex(name)]
    try:
        return template.render(scope).body, ""
    except TemplateError as error:
        return b"", str(error)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_the_index_finds_what_is_found_by_looking_at_each(data: st.DataObject) -> None:
    """What a component is rendered to does not depend on how its queries are answered."""
    existing = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=5))
    changes: list[Document] = []
    edges: list[tuple[str, str]] = []
    names = data.draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=6))
    for number, name in enumerate(names):
        changes.append(change(name, data.draw(ACTIONS), **data.draw(FIELDS)))
        edges += [(other, name) for other in names[:number] if data.draw(st.booleans())]
    for number, text in enumerate(QUERIES):
        changes.append(change(f"q{number}", x=text))
        edges += [(other, f"q{number}") for other in names if data.draw(st.booleans())]
    document = build(
        *changes,
        components=[change(name, **data.draw(FIELDS)) for name in existing],
        edges=edges,
        name="x",
        count=1,
    )
    try:
        run = Run(document, resumed=True)
    except InvalidBuild as error:
        assert "cycle" in str(error)  # noqa: PT017 - of what refers to one another
        return
    # In any order that the edges allow.
    rank = {name: data.draw(st.integers(0, 9)) for name in names}
    ledger = run.plan.state.ledger
    for layer in run.plan.graph.layers():
        for vertex in sorted(layer, key=lambda one: rank.get(run.plan.graph.ids[one], 10)):
            name = run.plan.graph.ids[vertex]
            if name in rank:
                reply: Mapping[str, Any] = {"_component_id": name, **data.draw(REPLIES)}
                ledger.complete(vertex, ledger.completion(vertex, reply))
                continue
            due = ledger.scope(vertex)
            assert outcome(run, name, due) == outcome(run, name, Plain(ledger.scope(vertex)))


def many(count: int, query: str, tag: str = "t{}") -> Run:
    changes = [change(f"q{number}", x=query) for number in range(40)]
    components = [change(f"e{number}", tag=tag.format(number), id=f"i{number}") for number in range(count)]
    return Run(build(*changes, components=components))


def spent(run: Run, name: str, work: Work) -> int:
    before = work.left
    scope = run.plan.state.ledger.scope(run.vertex(name))
    with suppress(Unresolved):
        run.plan.requests._templates[run.vertex(name)].render(scope, work=work)
    return before - work.left


@pytest.mark.parametrize("tag", ["t{}", "{{{{ build.id }}}}{}"])
@pytest.mark.parametrize("query", ['$(components.#[tag="t9"].id)', '$(components.#[tag="none"]#.id)'])
def test_a_query_costs_a_look_up(query: str, tag: str) -> None:
    """After the first few over a key, a query costs the same however many components there are."""
    work = Work(10**9)
    costs = []
    for count in (100, 1_000):
        run = many(count, query, tag)
        costs.append([spent(run, f"q{number}", work) for number in range(6)])
    assert costs[0][-1] == costs[1][-1] < 2_000
    assert costs[1][0] > 5 * costs[0][0]


def test_an_index_that_takes_long_is_made_elsewhere() -> None:
    """Where others wait, a large index is not made, and nothing is charged; once it is there, it is used."""
    run = many(4_000, '$(components.#[tag="t9"].id)')
    work = Work.of_build(40)
    first, second = (run.plan.requests._templates[run.vertex(name)] for name in ("q0", "q1"))
    before = work.left
    with pytest.raises(Laborious):
        first.render(run.plan.state.ledger.scope(run.vertex("q0")), work=work, inline=True)
    assert work.left == before
    body = first.render(run.plan.state.ledger.scope(run.vertex("q0")), work=work).body
    assert b'"x":"i9"' in body
    assert (
        b'"x":"i9"'
        in second.render(run.plan.state.ledger.scope(run.vertex("q1")), work=work, inline=True).body
    )
