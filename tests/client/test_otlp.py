"""A build that has ended, written as spans."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.json import encode

from scheduler.client.otlp import lines_of, spans_of, trace_of

ANSWER: dict[str, Any] = {
    "id": "b1",
    "name": "prod",
    "action": "build.create",
    "status": "errored",
    "run": 1,
    "accepted": 10.0,
    "ended": 30.0,
    "error": "b: no",
    "counts": {"completed": 1, "errored": 1, "skipped": 1},
    "components": [
        {"id": "a", "subject": "a.create.x", "state": "completed", "attempt": 1, "due": 10.0, "sent": 11.0,
         "ended": 15.0},
        {"id": "b", "subject": "b.create.x", "state": "errored", "attempt": 2, "due": 15.0, "sent": 25.0,
         "ended": 30.0, "error": "no", "needs": ["a"],
         "failed": [{"sent": 16.0, "failed": 20.0, "again": 24.0}]},
        {"id": "c", "subject": "c.create.x", "state": "skipped", "attempt": 1, "needs": ["b"]},
    ],
}  # fmt: skip
TRACE = {"id": "a" * 32, "span": "b" * 16, "parent": "c" * 16, "state": "v=1", "sampled": True}

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)


def test_a_build_is_a_run_and_the_attempts_of_its_components() -> None:
    run, a, b1, b2 = spans_of(ANSWER, "b1")
    assert (run.name, run.start, run.end, run.error) == ("build.create", 10.0, 30.0, "b: no")
    assert [(one.name, one.start, one.end) for one in (a, b1, b2)] == [
        ("request a.create.x", 10.0, 15.0),
        ("request b.create.x", 15.0, 20.0),
        ("request b.create.x", 24.0, 30.0),
    ]
    assert [one.attributes["scheduler.component.attempt"] for one in (a, b1, b2)] == [1, 1, 2]
    assert [[event.name for event in one.events] for one in (a, b1, b2)] == [
        ["due", "sent", "answered"],
        ["due", "sent"],
        ["due", "sent"],
    ]
    assert b1.links == b2.links == (a.id,)
    assert {one.parent for one in (a, b1, b2)} == {run.id}
    assert (a.error, b2.error) == (None, "no")


def test_the_trace_is_that_of_the_submitter_where_there_was_one() -> None:
    run = spans_of({**ANSWER, "trace": TRACE}, "b1")[0]
    assert (run.trace, run.id, run.parent, run.state) == ("a" * 32, "b" * 16, "c" * 16, "v=1")
    root = spans_of({**ANSWER, "trace": {**TRACE, "parent": 5}}, "b1")[0]
    assert root.parent == ""


def test_without_a_trace_the_same_one_is_made_up_each_time() -> None:
    first, again = trace_of(ANSWER, "b1"), trace_of(ANSWER, "b1")
    assert first == again
    assert first.trace != trace_of({**ANSWER, "accepted": 11.0}, "b1").trace
    assert (len(first.trace), first.parent) == (32, "")


def test_no_line_is_longer_than_readers_take() -> None:
    """A mebibyte, where all fail with long errors in scripts of three bytes a character."""
    ids = [f"{n:05}" + "x" * 500 for n in range(150)]
    errored = {**ANSWER["components"][1], "error": "\u0915" * 5_000, "attempt": 1, "failed": [], "needs": ids}
    many = [{**errored, "id": one} for one in ids]
    lines = list(lines_of(spans_of({**ANSWER, "components": many}, "b1")))
    assert sum(len(line["resourceSpans"][0]["scopeSpans"][0]["spans"]) for line in lines) == 151
    assert max(len(encode(line)) for line in lines) < 1024 * 1024


@given(st.dictionaries(st.sampled_from([*ANSWER, "trace", "now"]), anything), anything)
def test_no_answer_makes_it_fail(answer: dict[str, Any], component: Any) -> None:
    odd = {**ANSWER["components"][0], "needs": component, "failed": [component], "attempt": component}
    for components in ([component], [odd, component]):
        for span in spans_of({**ANSWER, **answer, "components": components}, "b1"):
            assert span.start <= span.end or span.start != span.start or span.end != span.end
