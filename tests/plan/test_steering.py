"""What an operator does to a build: what comes of it, what is persisted, and what is refused."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from support.builds import Document, Run, build, change, prepare, report_document
from support.logs import NOW, fold, record, reread

from scheduler.definition.strictjson import decode, encode
from scheduler.errors import InvalidRule, Refused
from scheduler.journal.events import (
    Cancelled,
    Event,
    Finished,
    Limited,
    Paused,
    Reported,
    Retried,
    Settled,
    Supplied,
    Unpaused,
)
from scheduler.plan import Phase, Plan, ending, late_replies, steering
from scheduler.plan.outcome import Outcome, read_reply
from scheduler.plan.summary import accepted_of, report_of

GOES_ON: Document = {"on_error": "continue"}


def failed(*more: str, edges: Any = (), **fields: Any) -> Run:
    """A build whose `a` has failed; nothing else was begun."""
    run = Run(build(change("a"), *map(change, more), edges=edges, **fields))
    run.send("a")
    run.fail("a")
    return run


def finished(run: Run, *events: Event) -> Run:
    """The finished build, as another run of it begins: from its log."""
    plan = run.plan
    log = [accepted_of(plan), *events, ending.finish(plan), Reported(plan.state.run)]
    run.plan = Plan(prepare(decode(encode({**accepted_of(plan).document, "changes": run_changes(run)}))))
    history = fold(reread([record(n, one, at=NOW) for n, one in enumerate(log, 1)]))
    for step in history.steps:
        run.plan.replay(step)
    assert run.plan.state.finished
    return run


def run_changes(run: Run) -> list[Document]:
    """The changes as they were submitted."""
    return [one.fields for one in run.plan.build.changes]


def settled(run: Run, name: str) -> Settled:
    """The outcome of a component, as it was persisted."""
    changes = {one["_component_id"]: one for one in report_document(run.plan)["changes"]}
    return Settled(name, changes[name])


def errored_and_over(*more: str, **fields: Any) -> Run:
    """A build that is over because its `a` has failed."""
    run = failed(*more, **fields)
    begun = run.requests["a"].started
    return finished(run, begun, settled(run, "a"))


# --- cancel


def test_a_cancelled_build_drains() -> None:
    """Nothing new is sent; requests in flight are awaited; the report names the reason."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    assert steering.cancel(run.plan, "wrong account") == [Cancelled("cancelled: wrong account")]
    assert run.begin("b") is None
    assert not run.over()
    run.reply("a")
    assert run.over()
    assert run.report()["error"] == "cancelled: wrong account"
    assert run.states() == {"a": "completed", "b": "waiting"}


def test_a_cancellation_needs_no_reason() -> None:
    """Without one the report says that it was cancelled."""
    run = Run(build(change("a")))
    assert steering.cancel(run.plan) == [Cancelled("cancelled")]
    assert run.report()["error"] == "cancelled"


def test_an_error_before_the_cancellation_stays_the_cause() -> None:
    """The first cause is reported."""
    run = failed("b", options=GOES_ON)
    steering.cancel(run.plan, "enough")
    assert run.report()["error"] == "a: broken"


def test_a_reason_is_cut() -> None:
    """It is a text like an error's."""
    run = Run(build(change("a")))
    steering.cancel(run.plan, "x" * 100_000)
    assert len(str(run.plan.state.cause)) < 66_000


def test_a_paused_build_can_be_cancelled() -> None:
    """The pause is over with that."""
    run = Run(build(change("a")))
    steering.pause(run.plan, on=True)
    steering.cancel(run.plan)
    assert not run.plan.state.paused
    assert run.over()


# --- pause


def test_a_paused_build_sends_nothing_new() -> None:
    """Requests in flight end; due components wait until the build is resumed."""
    run = Run(build(change("a"), change("b"), change("c", "none")))
    run.send("a")
    assert steering.pause(run.plan, on=True) == [Paused()]
    assert run.begin("b") is None
    assert run.begin("c") is None
    run.reply("a")
    assert not run.over()
    assert steering.pause(run.plan, on=False) == [Unpaused()]
    run.do("b")
    run.begin("c")
    assert run.report().get("error") is None


def test_what_is_about_to_be_sent_when_the_pause_comes_is_taken_back() -> None:
    """It must not be sent, and waits again."""
    run = Run(build(change("a")))
    run.begin("a")
    steering.pause(run.plan, on=True)
    with pytest.raises(Exception, match="paused"):
        run.plan.sent(0)
    run.plan.withdraw(0)
    assert run.phases() == {"a": "waiting"}


def test_a_pause_outlives_a_retry() -> None:
    """A component retried in a paused build waits for the end of the pause."""
    run = failed("b", options=GOES_ON)
    steering.pause(run.plan, on=True)
    steering.retry(run.plan)
    assert run.plan.state.paused
    assert run.begin("a") is None
    assert steering.pause(run.plan, on=False) == [Unpaused()]
    run.do("a", "b")
    assert run.plan.state.cause is None


# --- retry


def test_a_component_that_failed_is_sent_again() -> None:
    """It has the next number and all its attempts again, and is no longer the cause."""
    run = Run(build(change("a", _retry={"attempts": 2}), change("b"), edges=[("a", "b")]))
    run.send("a")
    run.retry("a")
    run.send("a")
    run.fail("a")
    assert run.plan.state.halted
    assert steering.retry(run.plan, 0) == [Retried(("a",), 1)]
    assert run.plan.state.cause is None
    assert run.plan.attempt(0) == 3
    assert "error" not in report_document(run.plan)["changes"][0]
    run.send("a")
    assert run.requests["a"].attempt == "b-1/a/3"
    run.retry("a")
    run.send("a")
    assert run.fail("a").body["error"] == "broken (after 2 attempts)"
    steering.retry(run.plan)
    run.do("a", "b")
    assert run.report().get("error") is None


def test_what_was_skipped_waits_again() -> None:
    """Behind a component that is sent again everything is as before its failure."""
    run = failed("b", "c", edges=[("a", "b"), ("b", "c")], options=GOES_ON)
    assert run.phases() == {"a": "errored", "b": "skipped", "c": "skipped"}
    steering.retry(run.plan)
    assert run.phases() == {"a": "waiting", "b": "waiting", "c": "waiting"}
    run.do("a", "b", "c")
    assert run.report().get("error") is None


def test_one_of_several_is_sent_again() -> None:
    """The build continues without the others, and without what depends on them."""
    run = Run(build(*map(change, "abcd"), edges=[("a", "c"), ("b", "d")]))
    run.send("a")
    run.send("b")
    run.fail("a", "first")
    run.fail("b", "second")
    assert steering.retry(run.plan, run.vertex("a")) == [Retried(("a",), 1)]
    assert not run.plan.state.halted
    assert run.phases() == {"a": "waiting", "b": "errored", "c": "waiting", "d": "skipped"}
    run.do("a", "c")
    assert run.over()
    assert run.report()["error"] == "b: second"


def test_a_failure_after_a_retry_halts_again() -> None:
    """What an operator went on with is forgiven; the next failure is not."""
    run = Run(build(*map(change, "abc")))
    run.send("a")
    run.send("b")
    run.fail("a")
    run.fail("b")
    steering.retry(run.plan, 0)
    run.send("a")
    run.fail("a")
    assert run.plan.state.halted
    assert run.begin("c") is None


def test_a_late_success_is_adopted_instead() -> None:
    """What exists already is not made a second time."""
    run = failed("b", edges=[("a", "b")])
    late_replies.adopt(run.plan, run.requests["a"], Outcome(completed=True, body={"a_id": 7}))
    retried, adopted = steering.retry(run.plan)
    assert retried == Retried(("a",), 1)
    assert isinstance(adopted, Settled)
    assert adopted.body == change("a", a_id=7, service="b-1", _state="completed")
    assert adopted.upserts == (adopted.body,)
    assert "error" not in adopted.body
    run.do("b")
    assert run.report().get("error") is None


def test_a_retry_after_the_end_is_a_new_run() -> None:
    """It continues from where it stood, under the next attempt ids, and is reported again."""
    run = errored_and_over("b", edges=[("a", "b")])
    assert steering.retry(run.plan) == [Retried(("a",), 2)]
    assert (run.plan.state.run, run.plan.state.finished, run.plan.state.over) == (2, False, False)
    run.send("a")
    assert run.requests["a"].attempt == "b-1/a/2"
    run.reply("a")
    run.do("b")
    assert run.report().get("error") is None
    assert report_of(run.plan).run == 2


def test_a_cancelled_build_that_is_over_can_be_gone_on_with() -> None:
    """Nothing has failed, and what was never begun is begun."""
    run = Run(build(change("a")))
    events = steering.cancel(run.plan, "later")
    finished(run, *events)
    assert steering.retry(run.plan) == [Retried((), 2)]
    assert not run.plan.state.cancelled
    run.do("a")
    assert run.report().get("error") is None


def _two_failed() -> Run:
    """`a` is done; `b` and `c` behind it have failed, and `x` beside them; `d` and `y` are skipped."""
    edges = [("a", "b"), ("a", "c"), ("b", "d"), ("x", "y")]
    run = Run(build(*map(change, "abcdxy"), edges=edges, options=GOES_ON))
    run.do("a")
    for name in "bcx":
        run.send(name)
        run.fail(name)
    return run


def test_an_attempt_in_flight_is_given_up_and_another_one_is_sent() -> None:
    """It fails, with the reason, and waits again with all its attempts; nothing else is touched."""
    run = Run(build(change("a", _retry={"attempts": 2}), change("b"), change("c"), edges=[("a", "c")]))
    run.send("a")
    run.send("b")
    before = run.requests["a"].attempt
    failed, retried = steering.retry_now(run.plan, 0, "given up")
    assert isinstance(failed, Settled)
    assert (failed.component, failed.body["_state"], failed.body["error"]) == ("a", "errored", "given up")
    assert retried == Retried(("a",), 1)
    assert run.phases() == {"a": "waiting", "b": "running", "c": "waiting"}
    assert not run.plan.state.halted
    assert run.plan.state.cause is None
    assert run.plan.state.take_skips() == []
    run.send("a")
    assert run.requests["a"].attempt != before
    run.retry("a")
    assert run.phases()["a"] == "retrying"


def test_a_pause_between_two_attempts_is_ended() -> None:
    """What waits for its next attempt is sent without that pause."""
    run = Run(build(change("a", _retry={"attempts": 3, "backoff": 60})))
    run.send("a")
    run.retry("a")
    assert run.phases() == {"a": "retrying"}
    steering.retry_now(run.plan, 0, "given up")
    assert run.phases() == {"a": "waiting"}
    assert run.plan.attempt(0) == 2


def test_an_attempt_given_up_in_a_build_that_drains_continues_it() -> None:
    """As with any retry: the failures that are not sent again are accepted."""
    run = Run(build(change("a"), change("b"), change("c")))
    run.send("a")
    run.send("b")
    run.fail("a")
    steering.retry_now(run.plan, run.vertex("b"), "given up")
    assert not run.plan.state.draining
    assert run.phases() == {"a": "errored", "b": "waiting", "c": "waiting"}
    assert str(run.plan.state.cause).startswith("a: ")


def test_a_failed_component_is_retried_at_once_as_ever() -> None:
    """There is no attempt to be given up."""
    assert steering.retry_now(failed().plan, 0, "given up") == [Retried(("a",), 1)]


def test_what_failed_behind_a_component_is_sent_again() -> None:
    """The component itself is completed, and stays so; what failed elsewhere stays as well."""
    run = _two_failed()
    assert steering.retry(run.plan, run.vertex("a"), behind=True) == [Retried(("b", "c"), 1)]
    assert run.phases() == {
        "a": "completed",
        "b": "waiting",
        "c": "waiting",
        "d": "waiting",
        "x": "errored",
        "y": "skipped",
    }
    run.do("b", "c", "d")
    assert run.over()
    assert run.report()["error"] == "x: broken"


def test_a_component_that_failed_is_sent_again_with_what_is_behind_it() -> None:
    """What depends on it was skipped; a component beside it that failed as well is not part of it."""
    run = _two_failed()
    assert steering.retry(run.plan, run.vertex("b"), behind=True) == [Retried(("b",), 1)]
    assert run.phases()["d"] == "waiting"
    assert run.phases()["c"] == "errored"


def test_what_was_never_begun_behind_a_component_begins_in_a_new_run() -> None:
    """Nothing behind it has failed; the build ended before it was due."""
    run = Run(build(*map(change, "ab"), edges=[("a", "b")]))
    run.do("a")
    finished(run, *steering.cancel(run.plan))
    assert steering.retry(run.plan, run.vertex("b"), behind=True) == [Retried((), 2)]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("y", "y depends on what has failed; retry that one, or skip it: x"),
        ("d", "d depends on what has failed; retry that one, or skip it: b"),
        ("e", "nothing has failed of e and what depends on it"),
    ],
)
def test_what_cannot_be_sent_yet_is_refused(name: str, reason: str) -> None:
    """Naming what has to be sent before it, if that has failed."""
    edges = [("b", "d"), ("x", "y")]
    run = Run(build(*map(change, "bdexy"), edges=edges, options=GOES_ON))
    run.do("e")
    for failing in "bx":
        run.send(failing)
        run.fail(failing)
    with pytest.raises(Refused, match=re.escape(reason)):
        steering.retry(run.plan, run.vertex(name), behind=True)
    assert run.phases() == {"b": "errored", "d": "skipped", "e": "completed", "x": "errored", "y": "skipped"}


# --- supply


def test_a_supplied_output_is_a_connectors_reply() -> None:
    """It is merged into the component, which is complete and exists; nothing is sent."""
    run = Run(build(change("a", name="x", size=1), change("b", of='{{ components["a"].a_id }}')))
    steering.pause(run.plan, on=True)
    assert steering.supply(run.plan, 0, {"a_id": 7, "size": 2}) == [Supplied("a", {"a_id": 7, "size": 2})]
    assert run.plan.is_instant(0)
    steering.pause(run.plan, on=False)
    step = run.begin("a")
    assert isinstance(step, Settled)
    kept = change("a", name="x", size=2, a_id=7, service="b-1", _state="completed")
    assert step.body == kept
    assert step.upserts == (kept,)
    assert run.send("b")["of"] == 7


@pytest.mark.parametrize("how", ["starting", "running", "retrying"])
def test_what_is_under_way_completes_at_once(how: str) -> None:
    """An operator's word goes before the connector's."""
    run = Run(build(change("a", _retry={"attempts": 2})))
    run.begin("a")
    if how != "starting":
        run.plan.sent(0)
    if how == "retrying":
        run.retry("a")
    assert run.phases() == {"a": how}
    supplied, outcome = steering.supply(run.plan, 0, {"a_id": 7})
    assert supplied == Supplied("a", {"a_id": 7})
    assert isinstance(outcome, Settled)
    assert outcome.body["a_id"] == 7
    assert run.over()
    assert run.report().get("error") is None


def test_what_has_failed_completes_at_once() -> None:
    """Then the build continues behind it."""
    run = failed("b", edges=[("a", "b")])
    supplied, outcome = steering.supply(run.plan, 0, {"a_id": 7})
    assert supplied == Supplied("a", {"a_id": 7})
    assert isinstance(outcome, Settled)
    assert "error" not in outcome.body
    assert not run.plan.state.halted
    run.do("b")
    assert run.report().get("error") is None


def test_what_was_skipped_completes_at_once() -> None:
    """What is behind it alone waits again."""
    run = failed("b", "c", "d", edges=[("a", "b"), ("b", "c"), ("a", "d")], options=GOES_ON)
    steering.supply(run.plan, run.vertex("b"), {})
    assert run.phases() == {"a": "errored", "b": "completed", "c": "waiting", "d": "skipped"}
    run.do("c")
    assert run.over()
    assert run.report()["error"] == "a: broken"


NO_FINDINGS: list[tuple[Any, str]] = [
    (7, "output: components are not a list"),
    ({"_component_id": "x"}, "output: components are not a list"),
    ([None], "output: components[0] is no component with a _component_id"),
    (["x"], "output: components[0] is no component with a _component_id"),
    ([{}], "output: components[0] is no component with a _component_id"),
    (
        [{"_component_id": "x"}, {"_component_id": ""}],
        "output: components[1] is no component with a _component_id",
    ),
    ([{"_component_id": 5}], "output: components[0] is no component with a _component_id"),
    ([{"_component_id": "start"}], "output: components[0]._component_id 'start' is reserved"),
    ([{"_component_id": "x" * 513}], "output: components[0]._component_id is longer than max_id_bytes 512"),
]


@pytest.mark.parametrize("state", ["waiting", "running", "errored", "finished"])
@pytest.mark.parametrize(("components", "why"), NO_FINDINGS)
def test_what_no_connector_could_find_cannot_be_supplied(components: Any, why: str, state: str) -> None:
    """An output for a `find` is judged as a reply is; refused, it changes nothing."""
    run = Run(build(change("a", "find"), change("b"), edges=[("b", "a")] if state == "waiting" else ()))
    if state != "waiting":
        run.send("a")
    if state in {"errored", "finished"}:
        run.fail("a")
    if state == "finished":
        run = finished(run, settled(run, "a"))
    before = run.phases(), run.plan.state.run
    with pytest.raises(Refused, match="^" + re.escape(why) + "$") as caught:
        steering.supply(run.plan, 0, {"components": components})
    assert caught.value.code == "invalid"
    assert (run.phases(), run.plan.state.run) == before


def test_what_a_connector_could_find_can_be_supplied() -> None:
    """Each element is kept as one that was found; no list, or null, means that nothing was found."""
    for output, found in (
        ({"components": [{"_component_id": "x", "n": 1}]}, {"x"}),
        ({"components": []}, set()),
        ({"components": None}, set()),
        ({}, set()),
    ):
        run = Run(build(change("a", "find")))
        run.send("a")
        steering.supply(run.plan, 0, output)
        assert set(run.existing()) == found
    # Of other components it is a field like others.
    run = Run(build(change("a")))
    run.send("a")
    steering.supply(run.plan, 0, {"components": 7})
    assert run.existing()["a"]["components"] == 7


def test_a_component_that_cannot_be_rendered_can_be_supplied() -> None:
    """It may be supplied for this very reason: it is kept with its templates."""
    run = Run(build(change("a"), change("b", of='{{ components["a"].nothing }}')))
    run.do("a")
    run.refused("b")
    _, outcome = steering.supply(run.plan, 1, {"b_id": 1})
    assert isinstance(outcome, Settled)
    assert (outcome.body["b_id"], outcome.body["of"]) == (1, '{{ components["a"].nothing }}')


def test_who_a_component_is_is_not_the_operators_to_say() -> None:
    """Its identity, its action and its settings are those of the build."""
    run = Run(build(change("a", _timeout=5)))
    run.send("a")
    output = {"_component_id": "z", "_action": "delete", "_state": "errored", "_timeout": 1, "service": "x"}
    _, outcome = steering.supply(run.plan, 0, output)
    assert isinstance(outcome, Settled)
    assert outcome.body == change("a", _timeout=5, service="b-1", _state="completed")


def test_a_supply_after_the_end_is_a_new_run() -> None:
    """What it was over for is there now."""
    run = errored_and_over("b", edges=[("a", "b")])
    retried, supplied, outcome = steering.supply(run.plan, 0, {"a_id": 7})
    assert (retried, supplied) == (Retried(("a",), 2), Supplied("a", {"a_id": 7}))
    assert isinstance(outcome, Settled)
    run.do("b")
    assert run.report().get("error") is None


def test_a_supply_behind_a_failure_after_the_end() -> None:
    """It completes at once: in a build that continues without the failed ones it would never be due."""
    run = errored_and_over("b", "c", edges=[("a", "b"), ("b", "c")])
    retried, supplied, outcome = steering.supply(run.plan, run.vertex("b"), {})
    assert (retried, supplied) == (Retried((), 2), Supplied("b", {}))
    assert isinstance(outcome, Settled)
    run.do("c")
    assert run.over()
    assert run.report()["error"] == "a: broken"


# --- limit


def test_a_build_has_other_limits_from_now_on() -> None:
    """They replace its own."""
    run = Run(build(change("a"), options={"limits": {"*": 1}}))
    assert list(map(str, run.plan.state.rules)) == ["*=1"]
    limits: dict[str, int | str] = {"vpc.*.*": 5, "*": "20/s"}
    assert steering.limit(run.plan, limits) == [Limited(limits)]
    assert list(map(str, run.plan.state.rules)) == ["vpc.*.*=5", "*=20/s"]
    steering.limit(run.plan, {})
    assert run.plan.state.rules == ()


@pytest.mark.parametrize("limits", [{"*": 0}, {"vpc": 1}, {"*": "5/d"}, {"*": 1.5}])
def test_limits_that_cannot_be(limits: Any) -> None:
    """They change nothing."""
    run = Run(build(change("a"), options={"limits": {"*": 1}}))
    with pytest.raises(InvalidRule):
        steering.limit(run.plan, limits)
    assert list(map(str, run.plan.state.rules)) == ["*=1"]


# --- refusals


def _two(action: str = "create") -> Run:
    return Run(build(change("a", action), change("b")))


def _done() -> Run:
    run = _two()
    run.do("a")
    return run


def _begun() -> Run:
    run = _two()
    run.begin("a")
    return run


def _in_flight() -> Run:
    run = _two()
    run.send("a")
    return run


def _cancelled(run: Run) -> Run:
    steering.cancel(run.plan)
    return run


def _paused() -> Run:
    run = _two()
    steering.pause(run.plan, on=True)
    return run


def _all_done() -> Run:
    run = Run(build(change("a", "none")))
    run.begin("a")
    return finished(run, settled(run, "a"))


@pytest.mark.parametrize(
    ("made", "asked", "says"),
    [
        (lambda: _cancelled(_two()), steering.cancel, "it was cancelled before"),
        (_paused, lambda plan: steering.pause(plan, on=True), "it is paused already"),
        (_two, lambda plan: steering.pause(plan, on=False), "it is not paused"),
        (failed, lambda plan: steering.pause(plan, on=True), "nothing new is sent any more: a: broken"),
        (_two, steering.retry, "no component has failed"),
        (_two, lambda plan: steering.retry(plan, 0), "a is waiting: only what has failed can be tried again"),
        (_done, lambda plan: steering.retry(plan, 0), "a is completed: only what has failed"),
        (
            lambda: failed("b", edges=[("a", "b")], options=GOES_ON),
            lambda plan: steering.retry(plan, 1),
            "b is skipped: only what has failed",
        ),
        (lambda: _cancelled(failed()), steering.retry, "it was cancelled; try again when"),
        (
            lambda: _cancelled(failed()),
            lambda plan: steering.supply(plan, 0, {}),
            "it was cancelled; try again when",
        ),
        (_all_done, steering.retry, "every component is completed"),
        (_two, lambda plan: steering.retry_now(plan, 0, ""), "a is waiting: only what is in flight"),
        (_done, lambda plan: steering.retry_now(plan, 0, ""), "a is completed: only what is in flight"),
        (_begun, lambda plan: steering.retry_now(plan, 0, ""), "a is just about to be sent"),
        (
            lambda: _cancelled(_in_flight()),
            lambda plan: steering.retry_now(plan, 0, ""),
            "it was cancelled; try again when",
        ),
        (_done, lambda plan: steering.supply(plan, 0, {}), "a is completed already"),
    ],
)
def test_what_makes_no_sense_is_refused(
    made: Callable[[], Run], asked: Callable[[Plan], object], says: str
) -> None:
    """It is refused with the reason, and nothing is changed by it."""
    run = made()
    before = (
        run.phases(),
        run.plan.state.cause,
        run.plan.state.halted,
        run.plan.state.paused,
        report_document(run.plan),
    )
    with pytest.raises(Refused, match=says) as caught:
        asked(run.plan)
    assert caught.value.code == "conflict"
    after = (
        run.phases(),
        run.plan.state.cause,
        run.plan.state.halted,
        run.plan.state.paused,
        report_document(run.plan),
    )
    assert after == before


def test_the_end_of_a_further_run() -> None:
    """A run that fails again is over again, and another one may follow."""
    run = errored_and_over()
    log: list[Event] = [*steering.retry(run.plan)]
    run.send("a")
    run.fail("a")
    assert ending.finish(run.plan) == Finished("a: broken")
    assert log == [Retried(("a",), 2)]


def test_a_late_success_that_was_taken_is_kept_beside_no_error_any_more() -> None:
    """A store that got it only at the end would have the error after the outcome."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    run.send("b")
    run.fail("a", "timed out")
    outcome = read_reply(encode({**change("a"), "_state": "completed"}), "done")
    assert outcome is not None
    assert late_replies.adopt(run.plan, run.requests["a"], outcome)
    steering.retry(run.plan, run.vertex("a"))
    assert run.phases()["a"] == "completed"
    assert late_replies.take_adopted(run.plan) == []


def test_what_failed_behind_another_failure_can_be_supplied() -> None:
    """A store without a log may have both; the first one does not stand in the way."""
    failed = [change(name, _state="errored", error="x") for name in "ab"]
    value = build(*failed, change("c"), edges=[("a", "b")], options={"on_error": "continue"})
    plan = Plan(prepare(value, resumed=True), resumed=True)
    events = steering.supply(plan, 1, {"name": "n"})
    assert [type(one) for one in events] == [Supplied, Settled]
    assert plan.phases[1] is Phase.COMPLETED
