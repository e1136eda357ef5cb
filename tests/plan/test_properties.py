"""Random builds, replies and orders: the rules of the walk, and a naive model of how it must end."""

from hypothesis import event, given, settings
from hypothesis import strategies as st
from support.builds import Run, report_document
from support.cases import Case, Watch, cases

from scheduler.plan import Phase, Request, ending


def expected_components(watch: Watch) -> dict[str, str]:
    """By recomputing: the names of what exists in the end."""
    names = {one["_component_id"]: one["name"] for one in watch.case.document["components"]}
    for one in watch.case.document["changes"]:
        name = one["_component_id"]
        if name not in watch.completed or name not in watch.sent:
            continue
        if one["_action"] == "delete":
            names.pop(name, None)
        elif one["_action"] == "find":
            names[f"found by {name}"] = ""
        else:
            names[name] = f"new {name}"
    return names


@given(cases())
@settings(max_examples=300)
def test_the_rules_of_the_walk(case: Case) -> None:
    """In any order, with any replies, every build comes to one end that a naive model agrees with."""
    watch = Watch(case)
    for count, choice in enumerate(case.order):
        if count == case.halt_at:
            watch.run.plan.state.halt("somebody stopped it")
            watch.halted = True
        assert watch.run.plan.phases.in_flight == len(watch.flying)
        assert watch.run.over() == (
            not watch.flying and (watch.halted or len(watch.completed) == len(watch.before))
        )
        if not watch.step(choice):
            break
    assert not watch.flying
    finished = ending.finish(watch.run.plan)
    assert watch.run.over()
    stopped = case.halt_at is not None and watch.halted and finished.error == "somebody stopped it"
    if watch.failed and not stopped:
        assert finished.error == f"{watch.failed[0]}: {watch.failed[0]} broke"
    elif not stopped:
        assert finished.error is None
        assert watch.completed == set(watch.before)
    event("stopped" if stopped else "failed" if watch.failed else "done")
    assert len(watch.sent) == len(set(watch.sent))
    report = watch.run.report()
    states = dict.fromkeys(watch.before, "waiting")
    states |= dict.fromkeys(watch.completed, "completed") | dict.fromkeys(watch.failed, "errored")
    order = [one["_component_id"] for one in case.document["changes"]]
    assert {one["_component_id"]: one["_state"] for one in report["changes"]} == states
    assert [one["_component_id"] for one in report["changes"]] == order
    exist = {one["_component_id"]: one.get("name", "") for one in report["components"]}
    assert exist == expected_components(watch)
    assert report.get("error") == finished.error
    assert report["edges"] == case.document["edges"]


@given(cases(), st.integers(0, 30))
@settings(max_examples=150)
def test_a_restart_loses_and_repeats_nothing(case: Case, cut: int) -> None:
    """A build that is cut off anywhere and taken up from what was persisted ends as if it had not been."""
    watch = Watch(case)
    for choice in case.order[:cut]:
        if not watch.step(choice):
            break
    document = {**report_document(watch.run.plan), "action": "build.create"}
    document.pop("error", None)
    again = Run(document, resumed=True)
    assert again.plan.phases.in_flight == len(watch.flying)
    assert again.plan.state.halted == bool(watch.failed)
    for vertex, name in enumerate(again.plan.graph.ids):
        assert again.plan.phases.is_in_flight(vertex) == (name in watch.flying)
        assert (again.plan.phases[vertex] is Phase.COMPLETED) == (name in watch.completed)
        assert (again.plan.phases[vertex] is Phase.ERRORED) == (name in watch.failed)
    for name in watch.flying:
        request, first = again.resume(name), watch.run.requests[name]
        assert isinstance(request, Request)
        assert (request.attempt, request.subject) == (first.attempt, first.subject)
    in_order = [name for name in again.plan.graph.ids if name in watch.failed]
    watch.run = again
    for choice in case.order:
        if not watch.step(choice):
            break
    assert not watch.flying
    assert len(watch.sent) == len(set(watch.sent))
    first_failed = next(iter(in_order or watch.failed), None)
    assert ending.finish(again.plan).error == (first_failed and f"{first_failed}: {first_failed} broke")
