"""The consequence of an error for the rest of a build: drain, continue, and the limit of failures."""

import pytest
from support.builds import Document, Run, build, change, problems_of

from scheduler.plan.summary import report_of

GOES_ON: Document = {"on_error": "continue"}
DIAMOND = [("a", "c"), ("c", "d"), ("b", "d")]


def flat(count: int, options: Document) -> Run:
    """A build of so many components that depend on nothing, all of them in flight."""
    names = [f"c{number}" for number in range(count)]
    run = Run(build(*map(change, names), options=options))
    for name in names:
        run.send(name)
    return run


@pytest.mark.parametrize("options", [{}, {"on_error": "drain"}, {"max_failures": 0}])
def test_an_error_drains_by_default(options: Document) -> None:
    """Nothing new is sent, nothing is skipped, and what did not begin waits in the report."""
    run = Run(build(*map(change, "abc"), edges=[("a", "c")], options=options))
    run.send("a")
    run.fail("a")
    assert run.plan.state.halted
    assert run.begin("b") is None
    assert run.phases() == {"a": "errored", "b": "waiting", "c": "waiting"}
    assert run.plan.state.take_skips() == []
    assert run.plan.state.over


def test_a_build_that_goes_on() -> None:
    """What does not depend on the error is done; what does is skipped; in the end it is an error."""
    run = Run(build(*map(change, "abcd"), edges=DIAMOND, options=GOES_ON))
    run.send("a")
    run.fail("a")
    assert not run.plan.state.halted
    assert run.plan.state.take_skips() == [2, 3]
    assert run.plan.state.take_skips() == []
    assert not run.over()
    run.do("b")
    assert run.over()
    assert run.phases() == {"a": "errored", "b": "completed", "c": "skipped", "d": "skipped"}
    report = run.report()
    assert report["error"] == "a: broken"
    assert run.states() == {"a": "errored", "b": "completed", "c": "waiting", "d": "waiting"}
    assert report_of(run.plan).states == {"errored": 1, "completed": 1, "skipped": 2}
    assert report_of(run.plan).subject == "build.create.error"


def test_the_first_error_is_the_cause() -> None:
    """However many fail, the first is reported as the build's error."""
    run = flat(3, GOES_ON)
    run.fail("c1", "first")
    run.fail("c0", "second")
    run.reply("c2")
    assert run.report()["error"] == "c1: first"


@pytest.mark.parametrize(
    ("options", "count", "most"),
    [
        ({"max_failures": 2}, 5, 2),
        ({"max_failures": "40%"}, 5, 2),
        ({"max_failures": "50%"}, 5, 2),
        ({"max_failures": "19%"}, 5, 0),
        ({"max_failures": "100%"}, 3, 3),
        ({"on_error": "continue", "max_failures": 1}, 3, 1),
        ({"on_error": "continue", "max_failures": 0}, 3, 0),
        ({"on_error": "continue"}, 4, 4),
        ({"on_error": "drain", "max_failures": 0}, 3, 0),
    ],
)
def test_how_many_may_fail(options: Document, count: int, most: int) -> None:
    """The build continues with as many failures, and is halted by one more; percentages are rounded down."""
    run = flat(count, options)
    for number in range(count):
        assert run.plan.state.halted == (number > most)
        run.fail(f"c{number}")
    assert run.plan.state.halted == (count > most)
    assert run.report()["error"] == "c0: broken"


def test_one_failure_too_many_halts_what_is_due() -> None:
    """What was not skipped before stays waiting."""
    run = Run(build(*map(change, "abcde"), edges=[("a", "c"), ("b", "d")], options={"max_failures": 1}))
    run.send("a")
    run.send("b")
    run.fail("a")
    run.fail("b")
    assert run.begin("e") is None
    assert run.phases() == {
        "a": "errored",
        "b": "errored",
        "c": "skipped",
        "d": "waiting",
        "e": "waiting",
    }
    assert run.over()


def test_what_is_in_flight_is_not_skipped() -> None:
    """An error skips only what waits: a failure elsewhere ends as it ends."""
    run = flat(2, GOES_ON)
    run.fail("c0")
    run.reply("c1")
    assert run.phases() == {"c0": "errored", "c1": "completed"}


def test_a_component_that_cannot_be_rendered_is_a_failure_like_any() -> None:
    """The build continues beside it."""
    second = change("b", ref='{{ components["a"].nothing }}')
    run = Run(build(change("a"), second, change("c"), change("d"), edges=[("b", "d")], options=GOES_ON))
    run.do("a")
    run.refused("b")
    run.do("c")
    assert run.over()
    assert run.phases()["d"] == "skipped"


def test_a_build_that_is_taken_up_goes_on_by_its_own_rule() -> None:
    """A store without a log has the errors; changes behind them are skipped again."""
    document = build(
        change("a", _state="errored", error="broke"),
        change("b", _state="running"),
        change("c"),
        change("d"),
        edges=[("a", "c")],
        options=GOES_ON,
    )
    run = Run(document, resumed=True)
    assert not run.plan.state.halted
    assert run.plan.state.cause == "a: broke"
    assert run.phases() == {"a": "errored", "b": "running", "c": "skipped", "d": "waiting"}


@pytest.mark.parametrize(
    ("options", "place"),
    [
        ({"on_error": "stop"}, "options.on_error: one of drain, continue; it is 'stop'"),
        ({"on_error": True}, "options.on_error: one of"),
        ({"max_failures": -1}, "options.max_failures: a whole number"),
        ({"max_failures": "101%"}, "options.max_failures: a whole number"),
        ({"max_failures": 1.5}, "options.max_failures: a whole number"),
        ({"on_error": "drain", "max_failures": 3}, "options.max_failures: cannot go with on_error 'drain'"),
        ({"retry": 5}, "options.retry: an object such as"),
        ({"retry": {"attempts": 0}}, "options.retry: attempts: a whole number"),
        ({"retry": {"tries": 3}}, "options.retry: 'tries' is none of"),
        ({"limits": {"vpc": 3}}, "options.limits: 'vpc'"),
        ({"limits": {"*": "3/d"}}, "options.limits: '*': '3/d'"),
        ({"limits": 5}, "options.limits: an object"),
    ],
)
def test_options_that_cannot_be(options: Document, place: str) -> None:
    """A build whose options cannot be read is refused, with the place."""
    (problem,) = problems_of(build(change("a"), options=options))
    assert problem.startswith(place)


@pytest.mark.parametrize(
    ("retry", "says"),
    [
        (3, "an object such as"),
        ({"attempts": "3"}, "attempts: a whole number"),
        ({"attempts": 2, "backoff": -1}, "backoff: seconds"),
        ({"total": 5}, "'total' is none of"),
    ],
)
def test_a_rule_of_a_component_that_cannot_be(retry: object, says: str) -> None:
    """It is named with the component's place."""
    (problem,) = problems_of(build(change("a"), change("b", _retry=retry)))
    assert problem.startswith(f"changes[1]._retry: {says}")


def test_options_of_an_accepted_build_stop_nothing() -> None:
    """A build that was accepted is resumed, with the default for options that cannot be read any more."""
    run = Run(build(change("a"), options={"on_error": "stop"}), resumed=True)
    run.send("a")
    run.fail("a")
    assert run.plan.state.halted
