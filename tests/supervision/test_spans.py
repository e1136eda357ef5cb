"""Traces of builds: from the submitter, over restarts, to the requests; and the spans that are told."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
import random
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
import trio
from support.durable import Plant, until
from support.fake_bus import Published
from support.fakes import JSON, Reply, Site, document, encode, ignore, open_service
from support.tracers import OWN, KeepingTracer
from trio.testing import MockClock

from scheduler.client.otlp import spans_of
from scheduler.journal.records import TRACEPARENT_HEADER, TRACESTATE_HEADER
from scheduler.log import add_trace
from scheduler.supervision.spans import BuildSpans
from scheduler.tracing.build import BuildTrace
from scheduler.tracing.context import TraceContext, read_context
from scheduler.tracing.lines import TRACED
from scheduler.tracing.spans import Span

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HEADERS = {"TraceParent": f"00-{TRACE}-{SPAN}-01", "Tracestate": "vendor=1"}
CHAIN = document("ab", [("a", "b")])


def requests(site: Site) -> dict[str, Published]:
    """The last request for each component."""
    sent = [one for one in site.bus.published if one.reply.startswith("scheduler.reply.")]
    return {json.loads(one.data)["_component_id"]: one for one in sent}


def context_of(request: Published) -> TraceContext | None:
    assert isinstance(request.headers, Mapping)
    return read_context(request.headers)


async def ended(site: Site) -> JSON:
    await until(lambda: bool(site.reports), 200.0)
    return site.report[1]


def names(span: Span) -> list[str]:
    return [event.name for event in span.events]


# ---- the context


async def test_a_request_carries_the_trace_of_its_build_in_lower_case(autojump_clock: MockClock) -> None:
    async with open_service() as site:
        await site.submit(CHAIN, headers=HEADERS)
        await ended(site)
        sent = requests(site)
    contexts = [context_of(sent[name]) for name in "ab"]
    assert [one and (one.trace, one.flags, one.state) for one in contexts] == [(TRACE, 1, "vendor=1")] * 2
    assert len({SPAN, *(one.span for one in contexts if one)}) == 3
    assert {"traceparent", "tracestate"} <= set(sent["a"].headers or {})


async def test_without_a_trace_nothing_is_added_to_a_request(autojump_clock: MockClock) -> None:
    async with open_service() as site:
        await site.submit(CHAIN, headers={"traceparent": "what is this"})
        await ended(site)
        assert set(requests(site)["a"].headers or {}) == {
            "Nats-Msg-Id",
            "Scheduler-Component-Key",
            "Scheduler-Heartbeat",
        }
        assert not TRACED


async def test_a_trace_that_is_not_sampled_is_passed_on_and_nobody_is_told(autojump_clock: MockClock) -> None:
    tracer = KeepingTracer()
    async with open_service(tracer=tracer) as site:
        await site.submit(CHAIN, headers={"traceparent": f"00-{TRACE}-{SPAN}-00"})
        await ended(site)
        context = context_of(requests(site)["a"])
    assert context is not None
    assert (context.trace, context.flags) == (TRACE, 0)
    assert not tracer.spans


async def test_a_request_that_is_too_large_with_its_trace_goes_without(autojump_clock: MockClock) -> None:
    async with open_service() as site:
        site.bus.max_payload = 1_000
        build = document("a")
        build["changes"][0]["filler"] = ""
        spare = 1_000 - len(encode(build["changes"][0])) - 350
        build["changes"][0]["filler"] = "x" * spare
        await site.submit(build, headers={**HEADERS, "Tracestate": f"v={'1' * 250}"})
        site.bus.max_payload = 1_000
        await until(lambda: "a" in requests(site), 50.0)
        assert context_of(requests(site)["a"]) is None


async def test_the_trace_is_kept_in_headers_of_the_first_record_alone(autojump_clock: MockClock) -> None:
    plant = Plant()
    async with plant.run() as process:
        await process.submit(CHAIN, headers=HEADERS)
        await ended(process)
    first, *others = plant.broker.headers()
    assert (first[TRACEPARENT_HEADER], first[TRACESTATE_HEADER]) == (f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert not any(TRACEPARENT_HEADER in one for one in others)
    assert b"traceparent" not in b"".join(one.data for one in plant.broker.messages("SCHEDULER_LOG"))


@pytest.mark.parametrize("headers", [HEADERS, None], ids=["of the submitter", "of its own"])
async def test_after_a_restart_requests_carry_the_same_trace(
    autojump_clock: MockClock, headers: Mapping[str, str] | None
) -> None:
    plant = Plant()
    plant.tracer = KeepingTracer()
    async with plant.run(ignore) as process:
        await process.submit(CHAIN, headers=headers)
        await trio.sleep(2)
        before = context_of(requests(process)["a"])
    plant.answer("a")
    plant.tracer = tracer = KeepingTracer()
    async with plant.run() as process:
        await ended(process)
        after = context_of(requests(process)["b"])
    assert before is not None
    assert after is not None
    assert before.trace == after.trace == (TRACE if headers else OWN)
    a, b, run = tracer.one("a"), tracer.one("b"), tracer.runs[0]
    assert (a.id, b.id, b.links) == (before.span, after.span, (before.span,))
    assert a.parent == b.parent == run.id
    assert run.parent == (SPAN if headers else "")


async def test_what_was_told_just_before_a_process_died_is_told_again(autojump_clock: MockClock) -> None:
    """The same span: it may never have reached the collector."""
    plant = Plant()
    plant.tracer = first = KeepingTracer()
    script = lambda component: [Reply()] if component["_component_id"] == "a" else []  # noqa: E731
    async with plant.run(script) as process:
        await process.submit(CHAIN, headers=HEADERS)
        await trio.sleep(2)
    plant.tracer = second = KeepingTracer()
    async with plant.run(ignore):
        await trio.sleep(2)
    assert first.one("a").id == second.one("a").id
    assert first.one("a").attributes == second.one("a").attributes
    assert not second.of("b")


async def test_what_is_retried_meanwhile_is_not_told_again(autojump_clock: MockClock) -> None:
    """The build runs while this is told: its attempt in flight has not ended when the earlier one did."""
    told: list[Span] = []
    plan: Any = SimpleNamespace(phases=[None])
    timings: Any = SimpleNamespace(ended=Mock(side_effect=[5.0, None]))
    trace = BuildTrace.of(TraceContext("a" * 32, "b" * 16, 1), "b1", "m")
    await BuildSpans(told.append, plan, timings, trace).tell_again(5.0)
    assert timings.ended.call_count == 2
    assert told == []


async def test_a_build_that_was_retried_after_its_end_is_a_further_run_in_the_same_trace(
    autojump_clock: MockClock,
) -> None:
    plant = Plant()
    plant.tracer = tracer = KeepingTracer()
    async with plant.run(lambda _: [Reply("errored")]) as process:
        await process.submit(CHAIN, headers=HEADERS)
        await until(lambda: bool(process.reports))
        process.cloud.script = lambda _: [Reply()]
        await ask(process, "retry", id="b1")
        await until(lambda: len(process.reports) == 2)
    first, second = tracer.runs
    assert (first.error is None, second.error is None) == (False, True)
    assert first.id != second.id
    assert first.parent == second.parent == SPAN
    failed, done = tracer.of("a")
    assert (failed.parent, done.parent) == (first.id, second.id)
    assert failed.id != done.id
    assert tracer.one("b").links == (done.id,)


# ---- the spans


async def test_each_attempt_is_told_with_its_times_and_the_run_at_its_end(autojump_clock: MockClock) -> None:
    tracer = KeepingTracer()
    async with open_service(tracer=tracer) as site:
        await site.submit(CHAIN, headers=HEADERS)
        await ended(site)
        contexts = {name: context_of(one) for name, one in requests(site).items()}
    assert [span.attributes.get("scheduler.component.id") for span in tracer.spans] == ["a", "b", None]
    a, b, run = tracer.spans
    assert names(a) == names(b) == ["due", "slot", "sent", "answered"]
    assert [span.id for span in (a, b)] == [context.span for context in contexts.values() if context]
    assert (a.links, b.links) == ((), (a.id,))
    assert (run.parent, run.attributes["scheduler.build.status"]) == (SPAN, "done")
    assert run.start <= a.start <= a.end <= b.start <= b.end <= run.end


async def test_a_further_attempt_is_a_span_of_its_own(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "random", lambda: 1.0)
    tracer = KeepingTracer()
    replies = iter([[Reply("errored", fields={"error": "not yet"})], [Reply()]])
    build = document("a")
    build["changes"][0]["_retry"] = {"attempts": 2, "backoff": 5}
    async with open_service(script=lambda _: next(replies), tracer=tracer) as site:
        await site.submit(build, headers=HEADERS)
        await ended(site)
        context = context_of(requests(site)["a"])
    first, second = tracer.of("a")
    assert (first.error, second.error) == ("not yet", None)
    assert first.attributes["scheduler.component.retries"] is True
    assert [one.attributes["scheduler.component.attempt"] for one in (first, second)] == [1, 2]
    assert context is not None
    assert context.span == second.id
    assert second.start >= first.end + 5
    assert names(second) == ["due", "slot", "sent", "answered"]


async def test_a_timeout_is_no_answer(autojump_clock: MockClock) -> None:
    tracer = KeepingTracer()
    async with open_service(script=ignore, tracer=tracer, attempt_timeout=5.0) as site:
        await site.submit(CHAIN, headers=HEADERS)
        await ended(site)
    a = tracer.one("a")
    assert names(a) == ["due", "slot", "sent"]
    assert a.error is not None
    assert a.error.startswith("timed out")
    assert not tracer.of("b")
    assert tracer.runs[0].attributes["scheduler.components.waiting"] == 1


async def test_heartbeats_are_told_and_many_are_counted(autojump_clock: MockClock) -> None:
    tracer = KeepingTracer()
    async with open_service(script=ignore, tracer=tracer, attempt_timeout=100.0) as site:
        await site.submit(document("a"), headers=HEADERS)
        await until(lambda: "a" in requests(site), 50.0)
        headers = requests(site)["a"].headers
        assert isinstance(headers, Mapping)
        for number in range(40):
            site.bus.deliver(
                headers["Scheduler-Heartbeat"], encode({"progress": number / 40, "message": "on"})
            )
            await trio.sleep(0.2)
        await ended(site)
    a = tracer.one("a")
    beats = [event for event in a.events if event.name == "heartbeat"]
    assert len(beats) == 32
    assert beats[1].attributes == {"scheduler.progress": 0.025, "scheduler.message": "on"}
    assert a.attributes["scheduler.heartbeats.left_out"] == 8


async def test_no_secret_is_told(autojump_clock: MockClock) -> None:
    tracer = KeepingTracer()
    build = document("a")
    build["changes"][0]["password"] = "hunter2hunter2"
    build["name"] = "named hunter2hunter2"

    def script(_: JSON) -> Sequence[Reply]:
        return [Reply("errored", fields={"error": "refused: hunter2hunter2"})]

    async with open_service(script=script, tracer=tracer) as site:
        await site.submit(build, headers=HEADERS)
        await ended(site)
    assert tracer.one("a").error is not None
    assert "hunter2" not in repr(tracer.spans)


async def test_dependencies_that_were_completed_before_have_no_span_to_be_linked(
    autojump_clock: MockClock,
) -> None:
    tracer = KeepingTracer()
    build = document("ab", [("a", "b")])
    build["changes"][0]["_state"] = "completed"
    async with open_service(tracer=tracer) as site:
        await site.submit(build, headers=HEADERS)
        await ended(site)
    assert tracer.one("b").links == ()
    assert not tracer.of("a")


async def test_a_build_that_has_ended_is_exported_with_the_same_spans(autojump_clock: MockClock) -> None:
    plant = Plant()
    plant.tracer = tracer = KeepingTracer()
    tries = iter([Reply("errored"), Reply(after=3.0), Reply("errored", fields={"error": "no"})])
    build = document("abc", [("a", "b"), ("a", "c"), ("b", "c")])
    build["changes"][0]["_retry"] = {"attempts": 2, "backoff": 5}
    async with plant.run(lambda _: [next(tries)]) as process:
        await process.submit(build, headers=HEADERS)
        await ended(process)
        await until(lambda: not process.service.roster.ids())
        answer = await ask(process, "get", id="b1", graph=True)
    exported = {span.id: span for span in spans_of(answer, "b1")}
    told = {span.id: span for span in tracer.spans}
    assert len(told) == 4
    assert exported.keys() == told.keys()
    for key, live in told.items():
        later = exported[key]
        assert (later.name, later.kind, later.parent, later.links) == (
            (live.name, live.kind, live.parent, live.links)
        )
        assert (later.error is None) is (live.error is None)
        assert later.attributes == live.attributes
        assert (later.start, later.end) == pytest.approx((live.start, live.end), abs=0.01)
        seen = [event for event in live.events if event.name in names(later)]
        assert [event.time for event in later.events] == pytest.approx([one.time for one in seen], abs=0.01)


# ---- the log


async def test_lines_about_a_build_or_a_component_have_the_ids(autojump_clock: MockClock) -> None:
    async with open_service(script=ignore) as site:
        await site.submit(document("a", id="b1"), headers=HEADERS)
        await until(lambda: "a" in requests(site), 50.0)
        context = context_of(requests(site)["a"])
        assert context is not None
        lines: list[Any] = [{"build": "b1"}, {"build": "b1", "component": "a"}, {"build": "other"}, {}]
        lines.append({"build": ["b1"]})
        told = [add_trace(None, "", dict(line)) for line in lines]
    run = BuildTrace.of(TraceContext(TRACE, SPAN), "b1", site_mark(site)).run(1)
    assert [(one.get("trace_id"), one.get("span_id")) for one in told] == [
        (TRACE, run),
        (TRACE, context.span),
        (None, None),
        (None, None),
        (None, None),
    ]


async def test_nothing_is_remembered_of_a_build_that_has_ended(autojump_clock: MockClock) -> None:
    async with open_service() as site:
        await site.submit(CHAIN, headers=HEADERS)
        assert TRACED
        await ended(site)
        await until(lambda: not TRACED, 50.0)


def site_mark(site: Site) -> str:
    headers = requests(site)["a"].headers
    assert isinstance(headers, Mapping)
    return headers["Scheduler-Component-Key"].rpartition("/")[2]


async def ask(site: Site, verb: str, **request: Any) -> JSON:
    """Ask an operator's question, and return the answer."""
    inbox, answered = site.bus.new_inbox(), trio.Event()
    answers: list[JSON] = []

    def take(message: Any) -> None:
        answers.append(json.loads(message.data))
        answered.set()

    await site.bus.subscribe(inbox, take)
    site.bus.deliver(f"scheduler.build.{verb}", encode(request), reply=inbox)
    await answered.wait()
    return answers[0]
