"""Ids of a build's spans."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.tracing.build import BuildTrace, derive
from scheduler.tracing.context import TraceContext

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = TraceContext(TRACE, SPAN, 1, "a=1")

words = st.text(max_size=20)
builds = st.from_regex(r"[A-Za-z0-9._:@/-]{1,20}", fullmatch=True)


def test_ids_are_as_they_were_in_earlier_versions() -> None:
    """Another instance of the fleet may be of another version, and tell of the other half of the build."""
    trace = BuildTrace.of(CONTEXT, "b1", "0123456789abcdef")
    assert (trace.run(1), trace.run(2)) == ("6127c555dc6c1a9d", "0c768fca498d3d56")
    assert trace.attempt("vpc::a", 1) == "9cd804429552e78e"


def test_the_build_hangs_below_the_span_that_it_was_submitted_in() -> None:
    trace = BuildTrace.of(CONTEXT, "b1", "m")
    assert (trace.trace, trace.parent, trace.flags, trace.state) == (TRACE, SPAN, 1, "a=1")
    assert trace.context == CONTEXT


def test_a_build_that_begins_a_trace_is_its_root_in_later_processes_too() -> None:
    trace = BuildTrace.begun(TRACE, "b1", "m")
    assert trace.parent == ""
    assert trace.context.span == trace.run(1)
    assert BuildTrace.of(trace.context, "b1", "m") == trace


def test_the_request_of_an_attempt_names_its_span() -> None:
    trace = BuildTrace.of(CONTEXT, "b1", "m")
    assert trace.context_of("vpc::a", 2) == TraceContext(TRACE, trace.attempt("vpc::a", 2), 1, "a=1")


@given(builds, st.text("0123456789abcdef", max_size=16), st.lists(words, unique=True, max_size=5))
def test_no_two_spans_of_a_trace_have_one_id(build: str, mark: str, components: list[str]) -> None:
    traces = [BuildTrace.of(CONTEXT, build, mark), BuildTrace.of(CONTEXT, f"{build}x", mark)]
    traces.append(BuildTrace.of(CONTEXT, build, f"{mark}0"))
    ids = [trace.run(run) for trace in traces for run in (1, 2, 3)]
    ids += [trace.attempt(one, number) for trace in traces for one in components for number in (1, 2, 11)]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == 16 and int(one, 16) for one in ids)


@given(st.lists(words))
def test_any_words_make_an_id_and_always_the_same(given_: list[str]) -> None:
    assert derive(TRACE, *given_) == derive(TRACE, *given_)
    assert int(derive(TRACE, *given_), 16)


def test_a_lone_surrogate_makes_an_id_too() -> None:
    assert len(derive(TRACE, "\ud800")) == 16
