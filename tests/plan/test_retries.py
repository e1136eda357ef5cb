"""Attempts that fail: whether there is another one, when, and what a late reply is worth."""

from typing import Any

import pytest
from support.builds import Document, Run, build, change, report_document

from scheduler.definition.rules import ONCE, Retry
from scheduler.definition.strictjson import encode
from scheduler.errors import IllegalTransition
from scheduler.journal.events import Event, Retrying, Sent
from scheduler.plan import Phase, Request, ending, late_replies, steering
from scheduler.plan.outcome import Outcome, failure, read_reply

THRICE: Document = {"attempts": 3, "backoff": 10, "max_backoff": 15}


def one(retry: Any = None, /, **fields: Any) -> Run:
    """A build of one component, which is in flight."""
    run = Run(build(change("a", _retry=THRICE if retry is None else retry), **fields))
    run.send("a")
    return run


def replied(**fields: Any) -> Outcome:
    """A connector's reply that says that it failed."""
    outcome = read_reply(encode({"_state": "errored", "error": "503", **fields}), "error")
    assert outcome is not None
    return outcome


def success(**fields: Any) -> Outcome:
    return Outcome(completed=True, body=fields)


def rule(run: Run, name: str = "a") -> Retry:
    request = run.begin(name)
    assert isinstance(request, Request)
    return request.retry


# --- whether and when


def test_each_attempt_has_its_own_id() -> None:
    """The attempts of a component are numbered from 1, in the id that the connector is given."""
    run = one()
    ids = [run.requests["a"].attempt]
    for _ in range(2):
        run.retry("a")
        run.send("a")
        ids.append(run.requests["a"].attempt)
    assert ids == ["b-1/a/1", "b-1/a/2", "b-1/a/3"]
    assert run.requests["a"].started.failed == 2


def test_the_number_of_the_attempt() -> None:
    """It is that of the attempt in flight, or of the last one."""
    run = Run(build(change("a", _retry=THRICE)))
    seen = [run.plan.attempt(0)]
    run.send("a")
    seen.append(run.plan.attempt(0))
    run.retry("a")
    seen.append(run.plan.attempt(0))
    run.send("a")
    seen.append(run.plan.attempt(0))
    run.reply("a")
    seen.append(run.plan.attempt(0))
    assert seen == [1, 1, 1, 2, 2]


def test_what_is_said_of_an_attempt_that_failed() -> None:
    """The event names the attempt, the error and the pause; the change itself waits again."""
    run = one()
    step = run.retry("a", replied(), luck=1.0)
    assert (step.component, step.attempt, step.error, step.pause) == ("a", "b-1/a/1", "503", 10.0)
    assert step.body == {**change("a", _retry=THRICE), "_attempts": 1}
    assert run.phases() == {"a": "retrying"}
    assert run.states() == {"a": "waiting"}
    assert run.plan.error(0) == "503"
    assert run.plan.phases.shown() == {
        "waiting": 0,
        "running": 0,
        "retrying": 1,
        "completed": 0,
        "errored": 0,
        "skipped": 0,
    }
    assert not run.plan.state.over
    assert run.plan.state.cause is None


def test_the_attempts_come_to_an_end() -> None:
    """After the last one the component has failed, and the error says how often it was tried."""
    run = one()
    for _ in range(2):
        run.retry("a")
        run.send("a")
    assert run.fail("a").body["error"] == "broken (after 3 attempts)"
    assert run.report()["error"] == "a: broken (after 3 attempts)"
    assert run.plan.attempt(0) == 3


def test_a_success_after_a_failure_is_a_success() -> None:
    """Nothing of the failed attempt is left in the report."""
    run = one()
    run.retry("a")
    run.do("a", a_id=7)
    report = run.report()
    assert "error" not in report
    assert report["changes"][0]["a_id"] == 7
    assert "_attempts" not in report["changes"][0]


@pytest.mark.parametrize(("luck", "pauses"), [(1.0, [10.0, 15.0]), (0.5, [5.0, 7.5]), (0.0, [0.0, 0.0])])
def test_full_jitter(luck: float, pauses: list[float]) -> None:
    """The pause is the share that chance says of a bound which doubles up to the longest."""
    run = one()
    found = []
    for _ in pauses:
        found.append(run.retry("a", luck=luck).pause)
        run.send("a")
    assert found == pauses


@pytest.mark.parametrize(
    ("after", "luck", "pause"), [(60, 1.0, 60.0), (3, 1.0, 10.0), (3, 0.0, 3.0), (0, 0.5, 5.0)]
)
def test_a_connector_may_ask_for_a_longer_pause(after: float, luck: float, pause: float) -> None:
    """Not before `retry_after`, whatever chance says; a longer pause stays as long."""
    assert one().retry("a", replied(retry_after=after), luck=luck).pause == pytest.approx(pause)


@pytest.mark.parametrize("after", [None, "60", True, -1, 86_401, [5], {}])
def test_what_is_no_pause_is_passed_over(after: Any) -> None:
    """A `retry_after` that is no number of seconds up to a day says nothing."""
    assert one().retry("a", replied(retry_after=after), luck=0.0).pause == 0.0


def test_a_connector_may_say_that_it_is_of_no_use() -> None:
    """With `retryable` false there is no other attempt."""
    run = one()
    assert run.settle("a", replied(retryable=False)).body["error"] == "503"


def test_a_later_attempt_may_be_of_no_use() -> None:
    """The error then says which attempt it was."""
    run = one()
    run.retry("a")
    run.send("a")
    step = run.settle("a", replied(retryable=False))
    assert step.body["error"] == "503 (attempt 2 of 3; not retryable)"


@pytest.mark.parametrize("retryable", [True, None, 0, "false", "no"])
def test_only_false_is_false(retryable: Any) -> None:
    """Whatever else stands in `retryable`, the component is tried again."""
    assert isinstance(one().retry("a", replied(retryable=retryable)), Retrying)


@pytest.mark.parametrize(("elapsed", "again"), [(0.0, True), (89.9, True), (90.0, False), (100.0, False)])
def test_the_time_of_all_attempts_together(elapsed: float, again: bool) -> None:
    """An attempt that could not begin before `total_timeout` is over is not made."""
    run = one({**THRICE, "total_timeout": 100})
    if again:
        run.retry("a", luck=1.0, elapsed=elapsed)
    else:
        step = run.plan.settle(run.requests["a"], failure("broken"), luck=1.0, elapsed=elapsed)
        assert "(after 1 of 3 attempts: total_timeout of 100 s)" in getattr(step, "body", {})["error"]


def test_a_pause_that_is_asked_for_counts_in_the_total() -> None:
    """What the connector asks for would be too late."""
    run = one({**THRICE, "total_timeout": 100})
    assert "total_timeout" in run.settle("a", replied(retry_after=100)).body["error"]


def test_without_a_rule_there_is_one_attempt() -> None:
    """Nothing is tried again without a rule, and attempts are not mentioned."""
    run = one({})
    assert run.fail("a").body["error"] == "broken"
    assert run.plan.state.cause == "a: broken"


# --- whose rule


OPERATOR = [("box.create.*", Retry(4)), ("*.*.*", Retry(2))]


def test_whose_rule_counts() -> None:
    """A component's rule goes before its build's, and that before the operator's first that matches."""
    changes = [change("a", _retry={"attempts": 9}), change("b"), change("c::d", "delete")]
    options = {"retry": {"attempts": 5}}
    run = Run(build(*changes, options=options), retries=OPERATOR)
    assert [rule(run, name).attempts for name in ("a", "b", "c::d")] == [9, 5, 5]
    run = Run(build(*changes), retries=OPERATOR)
    assert [rule(run, name).attempts for name in ("a", "b", "c::d")] == [9, 4, 2]
    run = Run(build(*changes))
    assert [rule(run, name) for name in ("a", "b", "c::d")] == [Retry(9), ONCE, ONCE]


def test_a_component_may_refuse_to_be_tried_again() -> None:
    """A rule of one attempt is a rule."""
    run = Run(build(change("a", _retry={"attempts": 1}), options={"retry": {"attempts": 5}}))
    run.send("a")
    run.fail("a")
    assert run.phases() == {"a": "errored"}


def test_the_operators_rule_is_by_the_rendered_subject() -> None:
    """What a reference makes of the type and the provider counts."""
    first = change("a", kind="vpc")
    run = Run(
        build(first, change("b", _component='{{ components["a"].kind }}')),
        retries=[("vpc.create.fake", Retry(7))],
    )
    run.do("a")
    assert rule(run, "b").attempts == 7


# --- halting


def test_a_halted_build_tries_nothing_again() -> None:
    """An attempt that fails after the halt is the last one, and the error says why."""
    run = one()
    run.plan.state.halt("enough")
    assert run.fail("a").body["error"] == "broken (not tried again: the build was halted)"
    assert run.plan.state.cause == "enough"


def test_what_waits_for_another_attempt_is_given_up_by_a_halt() -> None:
    """It has failed with the error of its last attempt."""
    run = one()
    run.retry("a", "503")
    assert not run.plan.is_to_be_given_up(0)
    run.plan.state.halt("enough")
    assert run.plan.is_to_be_given_up(0)
    assert not run.plan.is_due(0)
    assert not run.over()
    step = ending.give_up_retrying(run.plan, 0)
    assert step.body["error"] == "503 (not tried again: the build was halted)"
    assert run.over()
    assert run.report()["error"] == "enough"


def test_a_process_that_stops_gives_nothing_up() -> None:
    """An attempt that fails then is followed by another one, in the next process."""
    run = one()
    run.plan.state.stop()
    assert run.retry("a").pause == 10.0
    assert not run.plan.is_to_be_given_up(0)
    assert not run.plan.state.over


def test_giving_up_on_all_takes_those_along_that_are_tried_again() -> None:
    """They have failed with the error of their last attempt."""
    run = one()
    run.retry("a", "503")
    (step,) = ending.abandon(run.plan, "a fault")
    assert step.body["error"] == "503 (not tried again: a fault)"


def test_what_waits_for_another_attempt_is_not_sent_before_it_begins() -> None:
    """A pause is no request."""
    run = one()
    run.retry("a")
    with pytest.raises(IllegalTransition, match="RETRYING"):
        run.plan.sent(0)


def test_a_withdrawn_attempt_is_not_counted() -> None:
    """What did not leave goes out under the same id."""
    run = one()
    run.retry("a")
    run.begin("a")
    withdrawn = run.plan.withdraw(0)
    assert withdrawn.body["_attempts"] == 1
    run.send("a")
    assert run.requests["a"].attempt == "b-1/a/2"


# --- late replies


def test_a_late_success_spares_another_attempt() -> None:
    """A success that comes while the component waits for another attempt is its outcome."""
    run = one()
    run.retry("a", "timed out")
    settled = late_replies.rescue(run.plan, run.requests["a"], success(a_id=7))
    assert settled is not None
    assert settled.body["_state"] == "completed"
    assert settled.upserts[0]["a_id"] == 7
    assert run.report()["changes"][0] == settled.body
    assert run.plan.state.cause is None


def test_what_spares_no_attempt() -> None:
    """Not a failure, nor a success without a body, nor one of something that is not tried again."""
    run = one()
    request = run.requests["a"]
    assert late_replies.rescue(run.plan, request, success(a_id=7)) is None
    run.retry("a", "timed out")
    assert late_replies.rescue(run.plan, request, failure("late")) is None
    assert late_replies.rescue(run.plan, request, Outcome(completed=True)) is None
    assert run.phases() == {"a": "retrying"}
    run.plan.state.halt("enough")
    ending.give_up_retrying(run.plan, 0)
    assert late_replies.rescue(run.plan, request, success(a_id=7)) is None
    assert late_replies.adopt(run.plan, request, success(a_id=7))


@pytest.mark.parametrize("components", [{"x": 1}, "x", [5], [{"_component_id": "start"}]])
def test_a_late_reply_to_a_find_is_looked_at_like_any(components: Any) -> None:
    """What cannot be kept of a find spares no attempt, and is not kept beside an error."""
    run = Run(build(change("a", "find", _retry={"attempts": 2})))
    run.send("a")
    request = run.requests["a"]
    run.retry("a", "timed out")
    assert late_replies.rescue(run.plan, request, success(components=components)) is None
    assert run.plan.phases[0] is Phase.RETRYING
    run.send("a")
    run.fail("a", "timed out")
    assert not late_replies.adopt(run.plan, request, success(components=components))


# --- a store that has no log


def test_attempts_are_in_what_a_store_keeps() -> None:
    """A store without a log keeps the number of failures, and the next process continues there."""
    run = one()
    step = run.retry("a")
    kept = Run(build(dict(step.body)), resumed=True)
    assert kept.plan.attempt(0) == 2
    body = kept.send("a")
    assert kept.requests["a"].attempt == "b-1/a/2"
    assert "_attempts" not in body
    assert kept.requests["a"].started.body["_attempts"] == 1
    assert "_attempts" not in kept.reply("a").body


def test_a_running_component_of_a_store_is_its_last_attempt() -> None:
    """What an earlier process sent for the second time is awaited under that id."""
    run = one()
    run.retry("a")
    run.send("a")
    kept = Run(build(dict(run.requests["a"].started.body)), resumed=True)
    request = kept.resume("a")
    assert isinstance(request, Request)
    assert (request.attempt, request.body) == (run.requests["a"].attempt, run.requests["a"].body)


def test_a_submitted_build_says_nothing_of_attempts() -> None:
    """The attempts that a submitted component speaks of are none of ours."""
    run = Run(build(change("a", _attempts=5, _retry=THRICE)))
    run.send("a")
    assert run.requests["a"].attempt == "b-1/a/1"


def test_what_is_reported_while_it_is_tried_again() -> None:
    """On the wire it waits, without an error of its own."""
    run = one()
    run.retry("a")
    (shown,) = report_document(run.plan)["changes"]
    assert shown == change("a", _retry=THRICE)


# --- secrets


CANARY = "canary-4711-ä"


def test_an_error_is_kept_and_reported_as_it_was_said() -> None:
    """With the secrets in it; people are shown it without them, while it is tried again and in the end."""
    run = Run(build(change("a", _retry={"attempts": 2}, password=CANARY)))
    run.send("a")
    step = run.retry("a", f"cannot log in with {CANARY}")
    assert step.error == run.plan.error(0) == f"cannot log in with {CANARY}"
    assert run.plan.texts.masked(step.error) == "cannot log in with ***"
    run.send("a")
    body = run.fail("a", f"cannot log in with {CANARY}").body
    assert body["error"] == f"cannot log in with {CANARY} (after 2 attempts)"
    assert run.plan.state.cause == f"a: {body['error']}"
    assert run.plan.texts.cause == "a: cannot log in with *** (after 2 attempts)"
    report = run.report()
    assert report["error"] == run.plan.state.cause
    assert report["changes"][0]["error"] == body["error"]


def test_no_secret_is_shown_of_what_is_given_up() -> None:
    """Neither of what an attempt said, nor of why everything is given up."""
    run = Run(build(change("a", _retry={"attempts": 2}, password=CANARY), change("b")))
    run.send("a")
    run.retry("a", f"no {CANARY}")
    run.send("b")
    texts = [
        str(getattr(step, "body", {}).get("error")) for step in ending.abandon(run.plan, f"a fault: {CANARY}")
    ]
    assert texts == [f"no {CANARY} (not tried again: a fault: {CANARY})", f"a fault: {CANARY}"]
    assert [text for text in map(run.plan.texts.masked, texts) if CANARY in text] == []


def test_a_secret_that_a_connector_returns_is_known_from_then_on() -> None:
    """Also where only the build says that it is one, and the connector leaves that out of its reply."""
    first = change("a", _secret=["blob"])
    run = Run(build(first, change("b", data='{{ components["a"].blob }}')))
    run.send("a")
    run.answer("a", {"_component_id": "a", "blob": CANARY})
    assert run.send("b")["data"] == CANARY
    assert run.plan.texts.masked(run.fail("b", f"bad data: {CANARY}").body["error"]) == "bad data: ***"


def test_a_late_reply_tells_its_secrets_as_well() -> None:
    """A reply that came too late to be kept may still be quoted."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    run.send("b")
    run.fail("a", "timed out")
    late_replies.adopt(run.plan, run.requests["a"], success(password=CANARY))
    assert run.plan.texts.masked(run.fail("b", f"what is {CANARY}?").body["error"]) == "what is ***?"


def test_a_supplied_secret_is_known_from_then_on() -> None:
    """By its name, by the component's type, and by what the component itself names."""
    for fields, output in (
        ({}, {"password": CANARY}),
        ({"_component": "credentials"}, {"key": CANARY}),
        ({"_secret": ["blob"]}, {"blob": CANARY}),
    ):
        run = Run(build(change("a", **fields), change("b")))
        run.send("a")
        run.send("b")
        steering.supply(run.plan, 0, output)
        assert run.plan.texts.masked(run.fail("b", f"what is {CANARY}?").body["error"]) == "what is ***?", (
            fields
        )


def test_a_secret_that_was_only_sent_is_known_after_a_restart() -> None:
    """A reference supplied it, and no reply repeats it: the request is made again from the log."""
    fields = {"password": '{{ components["v"].blob }}'}
    document = build(change("a", **fields), change("b"), components=[change("v", blob=CANARY)])
    first, second = Run(document), Run(document)
    events: list[Event] = []
    for name in "ab":
        first.send(name)
        request = first.requests[name]
        events += [request.started, Sent(name, request.attempt)]
    events.append(first.answer("a", {"_component_id": "a"}))
    events.append(first.fail("b", f"what is {CANARY}?"))
    for event in events:
        second.plan.replay(event)
    for run in (first, second):
        assert run.plan.state.cause == f"b: what is {CANARY}?"
        assert run.plan.texts.cause == "b: what is ***?"


def test_no_secret_is_in_the_reason_of_a_cancellation() -> None:
    """An operator may quote one."""
    run = Run(build(change("a", password=CANARY)))
    steering.cancel(run.plan, f"{CANARY} has leaked")
    assert run.plan.state.cause == "cancelled: *** has leaked"
