"""Trace contexts in headers, by the cases of the W3C."""

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from opentelemetry.trace import get_current_span
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from scheduler.tracing.context import MOST_STATE, TraceContext, parse_context, read_context, read_state

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"

hexadecimal = st.text("0123456789abcdef", min_size=1)
keys = st.from_regex(r"[a-z0-9][a-z0-9_\-*/@]{0,20}", fullmatch=True)
values = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters=",="), min_size=1)
states = st.dictionaries(keys, values, max_size=32).map(
    lambda found: ",".join(f"{key}={value[:200]}" for key, value in found.items())
)


def test_a_context_is_read_with_its_flags_and_its_state() -> None:
    found = read_context({"traceparent": PARENT, "tracestate": "congo=t61rcWkgMzE, rojo=00f067aa0ba902b7"})
    assert found == TraceContext(TRACE, SPAN, 1, "congo=t61rcWkgMzE,rojo=00f067aa0ba902b7")
    assert found.sampled


@pytest.mark.parametrize("state", ["tracestate", "Tracestate", "TRACESTATE"])
@pytest.mark.parametrize("parent", ["traceparent", "Traceparent", "TRACEPARENT", "traceParent"])
def test_a_context_is_read_whatever_the_case_of_the_headers(parent: str, state: str) -> None:
    found = read_context({"Nats-Msg-Id": "1", parent: PARENT, state: "a=1"})
    assert found == TraceContext(TRACE, SPAN, 1, "a=1")


def test_headers_are_written_in_lower_case() -> None:
    written = TraceContext(TRACE, SPAN, 1, "a=1").headers()
    assert written == {"traceparent": PARENT, "tracestate": "a=1"}
    assert TraceContext(TRACE, SPAN).headers() == {"traceparent": f"00-{TRACE}-{SPAN}-00"}


@pytest.mark.parametrize(
    "parent",
    [
        "",
        "01",
        PARENT.upper(),
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}0-01",
        f"00_{TRACE}_{SPAN}_01",
        f"01-{TRACE}-{SPAN}-01.more",
        f"00-{TRACE}-{SPAN}-01\n",
        f"cc-{TRACE}-{SPAN}-01-{'x' * 1_000}",
        f"00-{TRACE}-{SPAN}-\u0660\u0661",
    ],
)
def test_what_is_no_context_counts_as_none(parent: str) -> None:
    assert read_context({"traceparent": parent, "tracestate": "a=1"}) is None


@pytest.mark.parametrize("parent", [f" {PARENT}\t", PARENT.replace("00-", "cc-", 1) + "-what-comes-one-day"])
def test_blanks_and_later_versions_are_read(parent: str) -> None:
    assert parse_context(parent) == TraceContext(TRACE, SPAN, 1)


def test_flags_that_are_not_known_are_not_passed_on() -> None:
    found = parse_context(f"00-{TRACE}-{SPAN}-ff")
    assert found is not None
    assert found.traceparent == f"00-{TRACE}-{SPAN}-03"


def test_messages_without_headers_or_with_other_ones_have_no_context() -> None:
    assert read_context(None) is None
    assert read_context({}) is None
    assert read_context({"Nats-Trace-Dest": "trace.me", "tracestate": "a=1"}) is None


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "a=",
        "=1",
        "A=1",
        "a=1,a=2",
        "a=1 ,b",
        "a=\x7f",
        "a=b=c",
        "ü=1",
        f"{'k' * 257}=1",
        f"a={'v' * 257}",
        ",".join(f"k{n}=1" for n in range(33)),
        "a=1\r\nNats-Rollup: all",
        "x" * 10_000,
    ],
)
def test_a_state_that_is_not_valid_is_not_passed_on(state: str) -> None:
    assert parse_context(PARENT, state) == TraceContext(TRACE, SPAN, 1)


def test_a_state_as_long_as_is_asked_for_is_passed_on_unchanged() -> None:
    state = ",".join(f"k{n:02}={'v' * 12}" for n in range(30))[:MOST_STATE]
    assert read_state(state) == state
    assert read_state(" a=1 ,, b@c=2\t, ") == "a=1,b@c=2"
    assert read_state(f"{'k' * 256}=1") == f"{'k' * 256}=1"


def test_of_a_longer_state_long_members_are_left_out_first_and_then_the_last_ones() -> None:
    long = f"long={'v' * 200}"
    short = [f"k{n:02}={'v' * 25}" for n in range(20)]
    assert read_state(",".join([long, *short])) == ",".join(short[:17])
    two, three = long.replace("long", "two"), long.replace("long", "three")
    assert read_state(",".join([short[0], long, two, three])) == ",".join([short[0], long, two])


@given(
    st.text(max_size=80)
    | st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True),
    states,
)
@example(PARENT, "a=1")
def test_opentelemetry_reads_what_is_passed_on_as_it_reads_what_came(parent: str, state: str) -> None:
    found = parse_context(parent, state)
    theirs = _theirs({"traceparent": parent, "tracestate": state})
    if found is None:
        return
    assert (f"{theirs.trace_id:032x}", f"{theirs.span_id:016x}") == (found.trace, found.span)
    again = _theirs(found.headers())
    assert (again.trace_id, again.span_id) == (theirs.trace_id, theirs.span_id)
    assert bool(again.trace_flags & 1) is found.sampled is bool(theirs.trace_flags & 1)
    if len(state) <= MOST_STATE:
        assert again.trace_state.to_header() == theirs.trace_state.to_header()


@given(hexadecimal, hexadecimal, st.integers(0, 3), states)
def test_what_is_written_is_read_again(trace: str, span: str, flags: int, state: str) -> None:
    context = TraceContext(trace[:32].rjust(32, "1"), span[:16].rjust(16, "1"), flags, read_state(state))
    assert read_context(context.headers()) == context
    assert len(context.headers().get("tracestate", "")) <= MOST_STATE


@given(st.text())
def test_no_text_makes_reading_fail(text: str) -> None:
    assert read_context({"traceparent": text}) is None
    found = parse_context(PARENT, text)
    assert found is not None
    assert found.state.isascii()
    assert found.state.isprintable()


def _theirs(headers: dict[str, str]) -> Any:
    return get_current_span(TraceContextTextMapPropagator().extract(headers)).get_span_context()
