"""Gates in the plan of a build: what may be decided about them, and what a decision changes."""

from typing import Any

import pytest
from support.builds import Document, Run, build, change, prepare

from scheduler.errors import IllegalTransition, Refused
from scheduler.journal.orders import Order
from scheduler.plan import Plan, gates, steering
from scheduler.plan.summary import accepted_of

ORDER = Order("approve", 1.5, "g", user="ACC/ann", reason="seen")


def gated(**fields: Any) -> Run:
    """A component, a gate behind it, and a component behind that."""
    changes = change("a"), change("g", "approve", **fields), change("z")
    return Run(build(*changes, edges=[("a", "g"), ("g", "z")]))


def refusal(decide: Any, run: Run, name: str = "g") -> str:
    with pytest.raises(Refused) as refused:
        decide(run.plan, run.vertex(name), ORDER)
    return str(refused.value)


def test_a_gate_is_reached_when_all_before_it_is_completed() -> None:
    """Not before, and not any more once it is decided or the build is halted."""
    run = gated()
    assert gates.reached(run.plan) == []
    run.do("a")
    assert gates.reached(run.plan) == [run.vertex("g")]
    run.plan.state.halt("x")
    assert gates.reached(run.plan) == []


def test_a_gate_never_begins() -> None:
    """Neither by the plan, nor as an instant: only an approval completes it."""
    run = gated()
    run.do("a")
    assert not run.plan.is_instant(run.vertex("g"))
    with pytest.raises(IllegalTransition, match="g waits for a person, and is never sent"):
        run.begin("g")
    assert not run.plan.state.over


def test_an_approved_gate_becomes_no_component() -> None:
    """It keeps its fields and gains three; the components that exist stay as they were."""
    run = gated(what="x")
    run.do("a")
    settled = gates.approve(run.plan, run.vertex("g"), ORDER)
    assert (settled.upserts, settled.deletes) == ((), ())
    body = settled.body
    assert (body["what"], body["approved_by"], body["approval_reason"]) == ("x", "ACC/ann", "seen")
    assert body["approved_at"] == "1970-01-01T00:00:01.500Z"
    assert run.phases() == {"a": "completed", "g": "completed", "z": "waiting"}


@pytest.mark.parametrize(
    ("order", "text"),
    [
        (Order("reject", 1.0, claim="bob", reason="no"), "rejected by bob: no"),
        (Order("reject", 1.0, claim="bob"), "rejected by bob"),
        (Order("reject", 1.0, reason="no"), "rejected: no"),
        (Order("reject", 1.0), "rejected"),
    ],
)
def test_a_rejection_says_who_and_why_as_far_as_that_is_known(order: Order, text: str) -> None:
    """In the error of the gate."""
    run = gated()
    run.do("a")
    assert gates.reject(run.plan, run.vertex("g"), order).body["error"] == text
    assert run.plan.state.cause == f"g: {text}"


def test_seconds_are_written_as_they_are_given() -> None:
    """A month is not told as a power of ten."""
    run = gated()
    run.do("a")
    error = gates.expire(run.plan, run.vertex("g"), 2_592_000.0).body["error"]
    assert error == "not approved within 2592000 s"


@pytest.mark.parametrize("decide", [gates.approve, gates.reject])
def test_what_is_no_gate_that_waits_is_not_decided(decide: Any) -> None:
    """Each refusal says what it is instead, and what to do."""
    run = gated()
    assert refusal(decide, run, "a") == "a is no gate: its _action is create, not approve"
    assert refusal(decide, run) == "g is not reached yet: it waits for a"
    run.do("a")
    gates.reject(run.plan, run.vertex("g"), Order("reject", 1.0))
    assert "has failed (rejected): scheduler retry b-1 g asks again" in refusal(decide, run)
    run = gated()
    run.do("a")
    gates.approve(run.plan, run.vertex("g"), ORDER)
    assert refusal(decide, run) == "g is approved already, by ACC/ann"
    run = gated()
    run.do("a")
    run.plan.state.stop()
    assert "shutting down" in refusal(decide, run)


def test_a_gate_behind_a_failure_is_left_out() -> None:
    """It is skipped like anything else, and cannot be approved."""
    changes = change("a"), change("g", "approve"), change("y")
    run = Run(build(*changes, edges=[("a", "g")], options={"on_error": "continue"}))
    run.send("a")
    run.fail("a")
    assert run.phases()["g"] == "skipped"
    assert refusal(gates.approve, run) == "g is left out, since something before it failed"


def test_a_retry_of_a_gate_alone_sends_nothing() -> None:
    """And says so: a person is asked."""
    run = Run(build(change("g", "approve"), change("a"), options={"on_error": "continue"}))
    gates.reject(run.plan, run.vertex("g"), Order("reject", 1.0))
    _, text, components = steering.retry_told(run.plan, run.vertex("g"))
    assert (text, components) == ("1 gate will ask for approval again", 1)
    assert gates.reached(run.plan) == [run.vertex("g")]


def test_a_decision_is_replayed_as_it_was() -> None:
    """From the log alone the next process knows what was approved, and what others may refer to."""
    run = gated(what="x")
    accepted = accepted_of(run.plan)
    run.do("a")
    settled = gates.approve(run.plan, run.vertex("g"), ORDER)
    again = Plan(prepare({**accepted.document, "changes": [one.fields for one in run.plan.build.changes]}))
    again.replay(settled)
    assert again.state.ledger.kept(1) == run.plan.state.ledger.kept(1)
    assert again.phases[1] is run.plan.phases[1]


def test_a_reference_to_an_approval_is_filled_and_never_rendered_again() -> None:
    """What a person wrote is data."""
    value: Document = build(
        change("g", "approve"), change("z", why="{{ components['g'].approval_reason }}", edges=[])
    )
    run = Run(value)
    order = Order("approve", 1.0, reason="{{ build.id }} $(id)")
    gates.approve(run.plan, run.vertex("g"), order)
    assert run.send("z")["why"] == "{{ build.id }} $(id)"


def test_a_gate_is_resumed_as_waiting_whatever_its_state() -> None:
    """A store without a log may say that it runs: nobody was ever asked by a request."""
    value = build(change("g", "approve", _state="running"), change("a", _state="running"))
    plan = Plan(prepare(value, resumed=True), resumed=True)
    assert [phase.value for phase in plan.phases] == ["waiting", "running"]
