"""The state machine of a build: what may start, what a reply changes, how it ends."""

from collections.abc import Callable
from typing import Any

import pytest
from support.builds import Document, Run, accepted_document, build, change, prepare, report_document

from scheduler.definition.limits import Limits
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.strictjson import decode, encode
from scheduler.definition.subjects import attempt_header
from scheduler.definition.template import Laborious, OnUnresolved, Templates
from scheduler.errors import IllegalTransition, Stuck
from scheduler.journal.events import (
    Event,
    Finished,
    Loading,
    Released,
    Resumed,
    Sent,
    Settled,
    Started,
    Suspended,
    Withdrawn,
)
from scheduler.plan import Phase, Plan, Request, ending, late_replies
from scheduler.plan.outcome import Outcome, failure
from scheduler.plan.summary import accepted_of, report_of

BIG = int("1234567890" * 4)


def reference(name: str, field: str = "x") -> str:
    return f'$(components.#[_component_id="{name}"].{field})'


# --- requests


def test_a_request() -> None:
    """A request says where it goes, what it is, and holds the rendered component, running."""
    run = Run(build(change("vpc::a", _provider="aws", n=BIG, text="ü", _timeout=5, _state="errored")))
    request = run.begin("vpc::a")
    assert isinstance(request, Request)
    assert request.subject == "vpc.create.aws"
    assert request.attempt == "b-1/vpc::a/1"
    assert request.timeout == pytest.approx(5.0)
    assert (request.build, request.component, request.type, request.provider) == (
        "b-1",
        "vpc::a",
        "vpc",
        "aws",
    )
    sent = {**change("vpc::a", _provider="aws", n=BIG, text="ü", _timeout=5), "_state": "running"}
    assert decode(request.body) == {**sent, "service": "b-1"}
    assert request.started.body == sent
    assert request.started.component == "vpc::a"
    assert request.started.attempt == request.attempt


def test_what_was_learnt_when_it_was_read_is_not_searched_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The secrets of a request without references are those of the build as it was read."""
    run = Run(build(change("a", password=["hunter-2222"] * 10_000)))
    monkeypatch.setattr(Secrets, "add", None)
    assert isinstance(run.begin("a"), Request)
    assert "hunter" not in run.plan.texts.masked("hunter-2222")


def test_a_secret_that_only_looks_like_a_reference_is_learnt() -> None:
    """Where braces are text, they may be all of a secret."""
    run = Run(build(change("a", x="{{hunter-2222}}", _secret=["x"])), templates=Templates.ERNEST)
    assert isinstance(run.begin("a"), Request)
    assert "hunter" not in run.plan.texts.masked("it is {{hunter-2222}}")


def test_a_long_request_with_secrets_is_searched_elsewhere() -> None:
    """To be rendered on the spot is refused, nothing is charged, and nothing is changed."""
    document = build(change("a", password=["x" * 30] * 1_000, name="{{ build.id }}"))
    run = Run(document)
    left = run.plan.requests.work_left
    vertex = run.vertex("a")
    with pytest.raises(Laborious):
        run.begin("a")
    assert (run.plan.requests.laborious, run.plan.requests.work_left) == (vertex, left)
    rendering = run.plan.requests.rendering(vertex)(lambda: False)
    learn = run.plan.requests.learning(vertex, rendering)
    assert learn is not None
    learn()
    run.plan.requests.take_in(vertex, rendering)
    assert isinstance(run.begin("a"), Request)


def test_the_order_of_fields_is_kept_in_requests() -> None:
    """A request has the fields of the component in their order."""
    one = {"zeta": 1, **change("a"), "alpha": 2}
    request = Run(build(one)).begin("a")
    assert isinstance(request, Request)
    assert list(decode(request.body)) == [*one, "service"]


@pytest.mark.parametrize(
    ("field", "token"),
    [
        *(("_component", token) for token in ("build", "service", "environment", "scheduler", "_x", "$JS")),
        *(("_provider", token) for token in ("done", "error", "mapping", "definition", "validation")),
        *(
            ("_provider", token)
            for token in ("a b", "a\r\nPUB x 1", "a\0", "*", ">", "a.b", "$JS", "", "x" * 65)
        ),
        *(("_component", token) for token in ("a b", "a.b", "x\n", "é", "", "x" * 65)),
    ],
)
def test_rendered_tokens_that_must_not_be_sent(field: str, token: str) -> None:
    """A token that comes out invalid or reserved fails the component; nothing is sent."""
    run = Run(build(change("a", **{field: "{{ build.options.token }}"}), options={"token": token}))
    error = run.refused("a")
    assert field in error
    assert "reserved" in error or "does not match" in error
    assert run.plan.phases.in_flight == 0
    assert run.plan.state.cause == f"a: {error}"


def test_rendered_tokens_that_are_fine() -> None:
    """The subject is formed after rendering, and 64 characters fit."""
    document = build(
        change("a", _component="{{ build.options.t }}", _provider="$(options.p)"),
        options={"t": "t" * 64, "p": "p" * 64},
    )
    request = Run(document).begin("a")
    assert isinstance(request, Request)
    assert request.subject == f"{'t' * 64}.create.{'p' * 64}"
    assert (request.type, request.provider) == ("t" * 64, "p" * 64)


@pytest.mark.parametrize(
    ("attempt", "header"),
    [
        ("b/vpc::a/1", "b/vpc::a/1"),
        ("b/a%20/1", "b/a%20/1"),
        ("b/ü/1", "b/%C3%BC/1"),
        ("b/a\r\nX: y/1", "b/a%0D%0AX: y/1"),
        ("b/\0\x7f/1", "b/%00%7F/1"),
    ],
)
def test_attempt_ids_as_headers(attempt: str, header: str) -> None:
    """What is not printable ASCII is percent-encoded."""
    assert attempt_header(attempt) == header


# --- transitions

LEGAL = {
    ("begin", Phase.WAITING): Phase.STARTING,
    ("sent", Phase.STARTING): Phase.RUNNING,
    ("withdraw", Phase.STARTING): Phase.WAITING,
    ("withdraw", Phase.RUNNING): Phase.WAITING,
    ("complete", Phase.RUNNING): Phase.COMPLETED,
    ("fail", Phase.RUNNING): Phase.ERRORED,
    ("resume", Phase.RUNNING): Phase.RUNNING,
    ("resume", Phase.STARTING): Phase.STARTING,
    ("begin", Phase.RETRYING): Phase.STARTING,
    ("give up", Phase.RETRYING): Phase.ERRORED,
}


def in_phase(phase: Phase) -> Run:
    """A build whose `a` is in this phase, and which is not halted unless that comes with it."""
    options = {"on_error": "continue"} if phase is Phase.SKIPPED else {}
    before = [("b", "a")] if phase is Phase.SKIPPED else []
    retry = {"attempts": 2} if phase is Phase.RETRYING else None
    run = Run(build(change("a", _retry=retry), change("b"), edges=before, options=options))
    if phase is Phase.SKIPPED:
        run.send("b")
        run.fail("b")
        return run
    if phase is Phase.WAITING:
        run.begin("a")
        run.plan.withdraw(0)
        return run
    run.begin("a")
    if phase is not Phase.STARTING:
        run.plan.sent(0)
    if phase is Phase.COMPLETED:
        run.reply("a")
    elif phase is Phase.ERRORED:
        run.fail("a")
    elif phase is Phase.RETRYING:
        run.retry("a")
    return run


def snapshot(run: Run) -> object:
    plan = run.plan
    return (
        [plan.phases[vertex] for vertex in range(2)],
        plan.phases.in_flight,
        plan.phases.settled,
        plan.state.cause,
        plan.state.stopped,
        plan.phases.shown(),
        plan.attempt(0),
        encode(report_document(plan)),
    )


def asked_of(run: Run) -> Request:
    """The request of `a`; what was skipped never had one."""
    return run.requests.get("a") or request_of(build(change("a")), "a")


ASKED: dict[str, Callable[[Run], object]] = {
    "begin": lambda run: run.plan.begin(0),
    "sent": lambda run: run.plan.sent(0),
    "withdraw": lambda run: run.plan.withdraw(0),
    "complete": lambda run: run.plan.settle(asked_of(run), Outcome(completed=True, body={})),
    "fail": lambda run: run.plan.settle(asked_of(run), failure("broken")),
    "resume": lambda run: run.resume("a"),
    "give up": lambda run: ending.give_up_retrying(run.plan, 0),
}


@pytest.mark.parametrize("phase", Phase)
@pytest.mark.parametrize("asked", ASKED)
def test_transitions(asked: str, phase: Phase) -> None:
    """A component goes where the table says; anything else raises and changes nothing."""
    run = in_phase(phase)
    assert run.plan.phases[0] is phase
    before = snapshot(run)
    following = LEGAL.get((asked, phase))
    if asked == "begin" and phase is Phase.ERRORED:
        assert ASKED[asked](run) is None  # halted: nothing is asked any more
        assert snapshot(run) == before
    elif following is None:
        with pytest.raises(IllegalTransition):
            ASKED[asked](run)
        assert snapshot(run) == before
    else:
        ASKED[asked](run)
        assert run.plan.phases[0] is following
        assert run.plan.phases.in_flight == (following in {Phase.STARTING, Phase.RUNNING})
        assert run.plan.phases.settled == (following in {Phase.COMPLETED, Phase.ERRORED})
        assert run.plan.phases.shown()["retrying"] == 0


def test_nothing_begins_before_its_dependencies() -> None:
    """Beginning before a dependency is completed is a bug of the driver, and raises."""
    run = Run(build(change("a"), change("b"), edges=[("a", "b")]))
    for phase in (Phase.WAITING, Phase.STARTING, Phase.RUNNING):
        if phase is Phase.STARTING:
            run.begin("a")
        elif phase is Phase.RUNNING:
            run.plan.sent(0)
        assert run.plan.phases[0] is phase
        with pytest.raises(IllegalTransition, match="b cannot begin before a is completed"):
            run.begin("b")
    run.reply("a")
    assert isinstance(run.begin("b"), Request)


def test_nothing_is_sent_once_it_is_halted() -> None:
    """What began before the halt must not be sent after it; it can only be withdrawn."""
    run = Run(build(change("a"), change("b")))
    run.begin("a")
    run.plan.state.halt("enough")
    with pytest.raises(IllegalTransition, match=r"a must not be sent: the build is halted \(enough\)"):
        run.plan.sent(0)
    assert run.plan.phases[0] is Phase.STARTING
    assert run.begin("b") is None
    withdrawn = run.plan.withdraw(0)
    assert withdrawn == Withdrawn("a", run.plan.build.changes[0].raw)
    assert withdrawn.body["_state"] == "waiting"
    assert run.states() == {"a": "waiting", "b": "waiting"}
    assert run.over()


def test_what_is_in_flight_is_shown_running() -> None:
    """From the moment that its start is persisted a component is running."""
    run = Run(build(change("a"), change("b")))
    run.begin("a")
    run.send("b")
    assert run.states() == {"a": "running", "b": "running"}
    assert list(run.plan.phases.in_flight_ids()) == ["a", "b"]
    assert run.plan.phases.unsettled() == [0, 1]
    run.plan.sent(0)
    run.reply("a")
    assert list(run.plan.phases.in_flight_ids()) == ["b"]
    assert run.plan.phases.unsettled() == [1]


# --- what a completion changes


@pytest.mark.parametrize("action", ["create", "update", "get"])
@pytest.mark.parametrize("exists", [True, False])
def test_a_completion_replaces_or_appends(action: str, exists: bool) -> None:
    """What create, update and get return takes the place of the component, or comes last."""
    old = change("a", x="old", only_old=1)
    components = [change("first"), *([old] if exists else []), change("last")]
    run = Run(build(change("a", action, x="new"), components=components))
    run.send("a")
    settled = run.reply("a", a_id="id-1", n=BIG)
    body = change("a", action, x="new", a_id="id-1", n=BIG, service="b-1", _state="completed")
    assert settled == Settled("a", body, upserts=(body,))
    report = run.report()
    assert report["changes"] == [body]
    rest = [change("first"), change("last")]
    assert report["components"] == ([rest[0], body, rest[1]] if exists else [*rest, body])


@pytest.mark.parametrize("exists", [True, False])
def test_a_deletion_removes(exists: bool) -> None:
    """What delete completes is removed from the components, and stays among the changes."""
    components = [change("first"), *([change("a", x=1)] if exists else [])]
    run = Run(build(change("a", "delete", x=1), components=components))
    run.send("a")
    settled = run.reply("a")
    body = change("a", "delete", x=1, service="b-1", _state="completed")
    assert settled == Settled("a", body, deletes=(body,))
    report = run.report()
    assert report["changes"] == [body]
    assert report["components"] == [change("first")]


def test_what_was_deleted_still_answers() -> None:
    """References to a deleted component keep answering with its submitted value."""
    run = Run(
        build(
            change("vpc", "delete", x="submitted"),
            change("old", "delete", x="change"),
            change("user", x=reference("vpc"), y=reference("old")),
            components=[change("old", x="existing")],
            edges=[("vpc", "user"), ("old", "user")],
        )
    )
    run.do("vpc", "old", x="returned")
    body = run.send("user")
    assert (body["x"], body["y"]) == ("submitted", "existing")


def test_a_find_brings_in_its_elements() -> None:
    """Each element of a find's reply replaces or is appended, with service set; the find itself is not."""
    run = Run(build(change("f", "find", tags={"a": 1}), components=[change("x", v=0), change("y", v=0)]))
    run.send("f")
    elements = [{"_component_id": "new", "v": 1}, {"_component_id": "x", "v": BIG, "service": "other"}]
    settled = run.reply("f", components=elements)
    with_service = [{**element, "service": "b-1"} for element in elements]
    assert settled.upserts == tuple(with_service)
    assert settled.deletes == ()
    assert settled.body["components"] == elements
    report = run.report()
    assert report["components"] == [with_service[1], change("y", v=0), with_service[0]]
    assert report["changes"][0]["_state"] == "completed"


@pytest.mark.parametrize("components", ["absent", None, []])
def test_a_find_may_find_nothing(components: Any) -> None:
    """A find without elements completes."""
    run = Run(build(change("f", "find")))
    run.send("f")
    settled = run.reply("f", **({} if components == "absent" else {"components": components}))
    assert settled.upserts == ()
    assert settled.body["_state"] == "completed"


def test_a_find_that_names_one_twice() -> None:
    """Of two elements with one id the later counts."""
    run = Run(build(change("f", "find")))
    run.send("f")
    run.reply("f", components=[{"_component_id": "x", "v": 1}, {"_component_id": "x", "v": 2}])
    assert run.existing() == {"x": {"_component_id": "x", "v": 2, "service": "b-1"}}


@pytest.mark.parametrize(
    ("components", "says"),
    [
        ("x", "the reply's components are not a list"),
        ({}, "the reply's components are not a list"),
        (5, "the reply's components are not a list"),
        ([None], "the reply's components[0] is no component with a _component_id"),
        ([{"_component_id": "a"}, {}], "the reply's components[1] is no component with a _component_id"),
        ([{"_component_id": 5}], "the reply's components[0] is no component with a _component_id"),
        ([{"_component_id": ""}], "the reply's components[0] is no component with a _component_id"),
        ([{"_component_id": "start"}], "the reply's components[0]._component_id 'start' is reserved"),
        (
            [{"_component_id": "é" * 257}],
            "the reply's components[0]._component_id is longer than max_id_bytes 512",
        ),
    ],
)
def test_a_find_with_elements_that_cannot_be(components: Any, says: str) -> None:
    """A find whose elements cannot be kept fails, and changes no component."""
    run = Run(build(change("f", "find"), components=[change("x")]))
    run.send("f")
    settled = run.reply("f", components=components)
    assert settled.body["_state"] == "errored"
    assert settled.body["error"] == says
    assert settled.upserts == ()
    assert run.existing() == {"x": change("x")}


def test_components_in_another_reply_are_a_field_like_any() -> None:
    """Only a find that completes has elements: what else is called components is kept as it is."""
    run = Run(build(change("a"), change("f", "find")))
    run.send("a")
    run.send("f")
    settled = run.reply("a", components="x")
    assert settled.upserts == (settled.body,)
    assert settled.body["components"] == "x"
    assert run.reply("f", "error", components="x", error="broken").body["error"] == "broken"
    assert set(run.existing()) == {"a"}


def test_none_completes_without_being_sent() -> None:
    """A change with action none completes as it was submitted, in its turn."""
    run = Run(build(change("a"), change("n", "none", x=1), edges=[("a", "n")]))
    assert run.plan.is_instant(1)
    assert not run.plan.is_instant(0)
    with pytest.raises(IllegalTransition):
        run.begin("n")
    run.do("a")
    settled = run.begin("n")
    body = change("n", "none", x=1, _state="completed")
    assert settled == Settled("n", body)
    assert run.over()
    assert run.report()["changes"][1] == body
    assert [one["_component_id"] for one in run.report()["components"]] == ["a"]


def test_who_a_component_is_is_not_the_connectors_to_say() -> None:
    """Identity that a connector drops or changes is put back; what else it returns is kept."""
    run = Run(build(change("a", "update", _provider="aws", _raw=["script"], _timeout=9, x=1)))
    run.send("a")
    settled = run.answer("a", {"only": 1})
    expected = change("a", "update", _provider="aws", _raw=["script"], _timeout=9, service="b-1", only=1)
    assert settled.body == {**expected, "_state": "completed"}
    run = Run(build(change("a", "update")))
    run.send("a")
    wrong = {"_component_id": "z", "_component": "z", "_action": "delete", "_provider": "z", "service": "z"}
    settled = run.answer("a", {**wrong, "_state": "running", "_timeout": "z", "_raw": 5})
    assert settled.body == {**change("a", "update"), "service": "b-1", "_state": "completed"}


@pytest.mark.parametrize(("suffix", "state"), [("done", "completed"), ("error", "errored")])
def test_keys_of_a_reply_that_are_ours_but_for_their_case_are_ignored(suffix: str, state: str) -> None:
    """They say nothing, and are not kept: a report can be submitted again. Deeper down they are data."""
    run = Run(build(change("a", "update")))
    run.send("a")
    policy = {"Principal": {"Service": "ec2"}, "Service": 1}
    body = run.reply("a", suffix, error="no", _State="running", SERVICE="z", _Component_ID="z", x=policy).body
    assert {"_State", "SERVICE", "_Component_ID"}.isdisjoint(body)
    assert (body["_state"], body["service"], body["_component_id"], body["x"]) == (state, "b-1", "a", policy)


def test_keys_of_what_a_find_returned_that_are_ours_but_for_their_case_are_ignored() -> None:
    """Of each component that exists from then on."""
    run = Run(build(change("f", "find")))
    run.send("f")
    run.reply("f", components=[change("x", _State="running", Service="z", tags={"Service": 1})])
    assert run.existing() == {"x": change("x", service="b-1", tags={"Service": 1})}


def test_rendered_tokens_are_kept_with_the_reply() -> None:
    """A type and provider that came from references are kept as they were sent."""
    run = Run(build(change("a", _provider="{{ build.options.p }}"), options={"p": "aws"}))
    run.send("a")
    assert run.answer("a", {}).body["_provider"] == "aws"


def test_a_warning_is_kept_and_cut() -> None:
    """A completed reply may carry a warning in error: it is no failure, and it is cut like any other text."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    run.send("b")
    assert run.reply("a", error="careful").body["error"] == "careful"
    warning = run.reply("b", error="x" * 70_000).body["error"]
    assert len(warning) == 65_536
    assert warning.endswith("(cut: 70000 bytes)")
    assert run.plan.state.cause is None
    assert "error" not in run.report()


# --- failures


def test_an_errored_reply() -> None:
    """An error leaves the components alone, is kept with the reply, and halts the build with its cause."""
    run = Run(build(change("a"), change("b", x=1), components=[change("b", x=0)]))
    run.send("b")
    settled = run.reply("b", "error", error="no quota", detail=BIG)
    body = change("b", x=1, error="no quota", detail=BIG, service="b-1", _state="errored")
    assert settled == Settled("b", body)
    assert run.plan.state.cause == "b: no quota"
    assert run.plan.state.halted
    assert run.begin("a") is None
    report = run.report()
    assert report["error"] == "b: no quota"
    assert report["components"] == [change("b", x=0)]
    assert report["changes"] == [change("a"), body]
    assert report_of(run.plan).subject == "build.create.error"


def test_an_attempt_without_a_reply_keeps_the_templates() -> None:
    """Where nothing came back the change is kept as submitted, with its references, beside the error."""
    run = Run(build(change("a", x="{{ build.id }}")))
    assert run.send("a")["x"] == "b-1"
    settled = run.fail("a", "timed out after 3600 s")
    assert settled.body == change("a", x="{{ build.id }}", _state="errored", error="timed out after 3600 s")
    assert run.report()["error"] == "a: timed out after 3600 s"


def test_the_first_cause_is_reported() -> None:
    """Of several errors the first is the build's; each component keeps its own."""
    run = Run(build(change("a"), change("b"), change("c")))
    for name in "abc":
        run.send(name)
    run.fail("b", "first")
    run.reply("a")
    assert not run.over()
    run.reply("c", "error", error="second")
    assert run.over()
    report = run.report()
    assert report["error"] == "b: first"
    assert [one.get("error") for one in report["changes"]] == [None, "first", "second"]
    assert run.states() == {"a": "completed", "b": "errored", "c": "errored"}
    assert set(run.existing()) == {"a"}


def test_error_texts_are_cut() -> None:
    """The error of a component is cut with a mark, however it came."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    run.send("b")
    for settled in (run.fail("a", "x" * 70_000), run.reply("b", "error", error="y" * 70_000)):
        assert len(settled.body["error"]) == 65_536
        assert settled.body["error"].endswith(" ... (cut: 70000 bytes)")
    assert run.plan.state.cause is not None
    assert len(run.plan.state.cause) == 65_536 + 3


def test_a_late_success_is_kept_beside_the_error() -> None:
    """A success after the attempt was given up is adoptable; only the first, and no failure."""
    run = Run(build(change("a", adoptable={"from": "an earlier run"}), change("b")))
    run.send("a")
    run.send("b")
    request = run.requests["a"]
    success = Outcome(completed=True, body={"a_id": 7})
    assert not late_replies.adopt(run.plan, request, success)
    run.fail("a", "timed out")
    assert not late_replies.adopt(run.plan, request, failure("late error"))
    assert not late_replies.adopt(run.plan, request, Outcome(completed=True))
    assert late_replies.take_adopted(run.plan) == []
    assert late_replies.adopt(run.plan, request, success)
    assert not late_replies.adopt(run.plan, request, Outcome(completed=True, body={"a_id": 8}))
    (kept,) = late_replies.take_adopted(run.plan)
    assert late_replies.take_adopted(run.plan) == []
    adoptable = change("a", a_id=7, service="b-1", _state="completed")
    assert kept.body["adoptable"] == adoptable
    assert kept.body["_state"] == "errored"
    assert kept.body["error"] == "timed out"
    assert (kept.upserts, kept.deletes) == ((), ())
    run.reply("b")
    assert not late_replies.adopt(run.plan, run.requests["b"], success)
    report = run.report()
    assert report["changes"][0] == kept.body
    assert report["error"] == "a: timed out"
    assert set(run.existing()) == {"b"}


def test_giving_up() -> None:
    """Abandoning fails what is running and takes back what was not sent; the build is halted."""
    run = Run(build(change("a"), change("b"), change("c"), change("d")))
    run.do("a")
    run.send("b")
    run.begin("c")
    settled = ending.abandon(run.plan, "the outcome is unknown")
    assert [(type(one), one.component) for one in settled] == [(Settled, "b"), (Withdrawn, "c")]
    assert settled[0].body["error"] == "the outcome is unknown"
    assert settled[1].body["_state"] == "waiting"
    assert run.states() == {"a": "completed", "b": "errored", "c": "waiting", "d": "waiting"}
    assert run.over()
    assert run.report()["error"] == "b: the outcome is unknown"
    assert ending.abandon(run.plan, "again") == []


def test_giving_up_with_nothing_in_flight() -> None:
    """Abandoning a build of which nothing runs halts it with the reason."""
    run = Run(build(change("a")))
    assert ending.abandon(run.plan, "shut down") == []
    assert run.report()["error"] == "shut down"
    assert run.states() == {"a": "waiting"}


# --- the end


def test_no_changes_are_done_at_once() -> None:
    """A build without changes is over before it begins, and done."""
    run = Run(build(components=[change("x")], extra=BIG))
    assert run.over()
    assert ending.finish(run.plan) == Finished(None)
    assert run.report() == build(components=[change("x")], extra=BIG)
    assert report_of(run.plan).subject == "build.create.done"


def test_what_is_completed_is_not_done_again() -> None:
    """Changes submitted as completed count as done; with nothing else the build is over."""
    run = Run(build(change("a", _state="completed", x="{{ data")))
    assert run.over()
    assert run.plan.phases.settled == 1
    with pytest.raises(IllegalTransition):
        run.begin("a")
    assert run.report()["changes"] == [change("a", _state="completed", x="{{ data")]
    assert run.report()["components"] == []


@pytest.mark.parametrize("state", ["waiting", "running", "errored", "", None])
def test_what_is_to_be_done(state: str | None) -> None:
    """Whatever is not completed is to be done, and is accepted and reported as waiting until it is."""
    one = {**change("a", x=1), "_state": state}
    if state == "errored":
        one["error"] = "of an earlier run"
    run = Run(build(one, extra=1))
    assert not run.over()
    assert run.plan.phases.unsettled() == [0]
    assert accepted_document(run.plan) == build(change("a", x=1), extra=1)
    assert run.states() == {"a": "waiting"}
    assert "error" not in run.send("a")
    run.reply("a")
    assert run.report()["changes"][0]["_state"] == "completed"


def test_a_build_is_stuck_only_by_a_bug() -> None:
    """The end is refused while something is in flight, or when nothing explains what never began."""
    run = Run(build(change("a"), change("b")))
    with pytest.raises(Stuck, match=r"build b-1 is not halted, has nothing in flight, and \['a', 'b'\]"):
        ending.finish(run.plan)
    run.send("a")
    with pytest.raises(Stuck, match="1 changes are in flight at the end of build b-1"):
        ending.finish(run.plan)
    run.plan.state.halt("enough")
    with pytest.raises(Stuck):
        ending.finish(run.plan)
    run.reply("a")
    assert ending.finish(run.plan) == Finished("enough")


def test_halting_and_stopping() -> None:
    """A halt is the build's end; a stop only sends nothing more, and leaves the build to be resumed."""
    run = Run(build(change("a"), change("b")))
    run.send("a")
    run.plan.state.stop()
    assert run.plan.state.halted
    assert run.plan.state.cause is None
    assert run.begin("b") is None
    assert not run.over()
    run.reply("a")
    assert not run.over()
    with pytest.raises(Stuck):
        ending.finish(run.plan)
    run.plan.state.halt("first")
    run.plan.state.halt("second")
    assert run.over()
    assert ending.finish(run.plan) == Finished("first")


def test_a_stop_after_the_last_one_changes_nothing() -> None:
    """A build whose changes are all completed is done, stopped or not."""
    run = Run(build(change("a")))
    run.send("a")
    run.plan.state.stop()
    run.reply("a")
    assert run.over()
    assert ending.finish(run.plan) == Finished(None)


def test_the_report_is_the_whole_build() -> None:
    """Every field, edge and component is reported as it came in, and implied edges are not."""
    document = build(
        change("a", odd={"z": [BIG, None, "\u2603"]}),
        change("b", x=reference("a")),
        components=[change("old", odd=BIG)],
        edges=[{"source": "old", "destination": "a", "length": 3, "note": BIG}],
        zeta="z",
        alpha={"n": BIG},
        error="of an earlier run",
    )
    run = Run(document)
    assert run.plan.graph.dependencies == ((), (0,))
    run.do("a", x="1")
    run.do("b")
    report = run.report()
    assert "error" not in report
    for name in ("edges", "zeta", "alpha", "id", "name", "user_id", "username", "action", "options"):
        assert encode(report[name]) == encode(document[name])
    assert report["changes"][0]["odd"] == document["changes"][0]["odd"]
    assert report["components"][0] == change("old", odd=BIG)


# --- references


def test_a_dependency_answers_with_what_it_returned() -> None:
    """Both forms see what a dependency returned, direct or not; types are kept by a whole expression."""
    run = Run(
        build(
            change("a", x="submitted"),
            change("b"),
            change(
                "c",
                text=reference("a", "id"),
                value='{{ components["a"].list }}',
                mixed='<{{ components["a"].n }}>',
                digits='{{ components["a"].n }}',
            ),
            edges=[("a", "b"), ("b", "c")],
        )
    )
    run.do("a", id="vpc-1", list=[1, {"z": None}], n=BIG)
    run.do("b")
    body = run.send("c")
    assert body["text"] == "vpc-1"
    assert body["value"] == [1, {"z": None}]
    assert body["mixed"] == f"<{BIG}>"
    assert body["digits"] == BIG


def test_what_is_no_dependency_answers_as_submitted() -> None:
    """An update that is no dependency is seen as it exists; with an edge, as it returned."""
    run = Run(
        build(
            change("vpc", "update", x="wanted"),
            change("before", x=reference("vpc")),
            change("after", x=reference("vpc")),
            components=[change("vpc", x="existing")],
            edges=[("vpc", "after")],
        )
    )
    run.do("vpc", x="returned")
    assert run.send("before")["x"] == "existing"
    assert run.send("after")["x"] == "returned"


def test_an_implied_edge_orders() -> None:
    """What is referred to completes first, though no edge says so."""
    run = Run(build(change("b", x='{{ components["a"].id }}'), change("a")))
    with pytest.raises(IllegalTransition, match="b cannot begin before a is completed"):
        run.begin("b")
    run.do("a", id=7)
    assert run.send("b")["x"] == 7
    assert accepted_document(run.plan)["edges"] == []


def test_what_a_connector_returned_is_never_rendered() -> None:
    """References in what was returned, or was completed before, are data."""
    text = '{{ build.id }} $(id) {{ components["gone"].x }}'
    run = Run(
        build(
            change("a"),
            change("done", x=text, _state="completed"),
            change("c", x=reference("a"), y=reference("done"), z='{{ components["a"].deep }}'),
            edges=[("a", "c"), ("done", "c")],
        )
    )
    run.send("a")
    run.answer("a", {"x": text, "deep": {"x": text}})
    body = run.send("c")
    assert body["x"] == text
    assert body["y"] == text
    assert body["z"] == {"x": text}


def test_what_a_query_finds_among_the_returned_is_never_rendered() -> None:
    """Data stays data when it is found by another field than its id, or by its position."""
    text = "{{ build.id }}"
    run = Run(
        build(
            change("a"),
            change("c", x='$(components.#[name="a name"].text)', y="$(components.1.text)"),
            components=[change("old")],
            edges=[("a", "c")],
        )
    )
    run.do("a", name="a name", text=text)
    body = run.send("c")
    assert (body["x"], body["y"]) == (text, text)


def test_definitions_refer_to_definitions() -> None:
    """What a user submitted is resolved in turn."""
    run = Run(
        build(
            change("c", x=reference("old")),
            components=[change("old", x=reference("older")), change("older", x="{{ build.id }}!")],
        )
    )
    assert run.send("c")["x"] == "b-1!"


def test_a_find_supplies_ids() -> None:
    """The result of a find answers its dependents, in place of the submitted component, and no others."""
    run = Run(
        build(
            change("f", "find"),
            change("a", x=reference("found"), y=reference("known"), z='{{ components["found"].n }}'),
            change("b", y=reference("known")),
            components=[change("known", x="submitted")],
            edges=[("f", "a")],
        )
    )
    run.send("f")
    elements = [
        {"_component_id": "found", "x": "{{ data }}", "n": 5},
        {"_component_id": "known", "x": "found"},
    ]
    run.reply("f", components=elements)
    body = run.send("a")
    assert (body["x"], body["y"], body["z"]) == ("{{ data }}", "found", 5)
    assert run.send("b")["y"] == "submitted"


def test_what_is_unresolved_when_due_fails() -> None:
    """A reference that leads to nothing when due fails the component, which is not sent."""
    run = Run(build(change("a"), change("b", tags={"x": [reference("a", "id")]})))
    run.do("a")
    error = run.refused("b")
    assert error.startswith("tags.x[0]: ")
    assert "'a' has no 'id'" in error
    assert run.plan.phases.in_flight == 0
    report = run.report()
    assert report["error"] == f"b: {error}"
    assert report["changes"][1]["tags"] == {"x": [reference("a", "id")]}


@pytest.mark.parametrize(
    ("value", "text"), [("", ""), (0, "0"), (False, "false"), ([], "[]"), (1.0, "1"), (BIG, str(BIG))]
)
def test_present_is_a_value(value: Any, text: str) -> None:
    """What is present resolves, however little it is; a path makes text of it."""
    run = Run(build(change("a"), change("b", x=reference("a", "v"))))
    run.do("a", v=value)
    assert run.send("b")["x"] == text


@pytest.mark.parametrize("fields", [{}, {"v": None}])
def test_absent_and_null_are_unresolved(fields: Document) -> None:
    """Absent or null is unresolved."""
    run = Run(build(change("a"), change("b", x=reference("a", "v"))))
    run.do("a", **fields)
    assert "has no 'v'" in run.refused("b")


def test_what_is_unresolved_can_be_kept() -> None:
    """With unresolved=keep a path to nothing goes out as it stands; an expression still fails."""
    run = Run(
        build(change("a"), change("b", x=reference("a", "id")), change("c", x='{{ components["a"].id }}')),
        unresolved=OnUnresolved.KEEP,
    )
    run.do("a")
    assert run.send("b")["x"] == reference("a", "id")
    assert "has no 'id'" in run.refused("c")


def test_a_find_that_did_not_find() -> None:
    """An id that a find might have supplied and did not is unresolved when due."""
    run = Run(build(change("f", "find"), change("a", x=reference("maybe")), edges=[("f", "a")]))
    run.do("f", components=[])
    assert "there is no 'maybe'" in run.refused("a")


def test_a_none_answers_as_a_definition() -> None:
    """A change with action none is seen by its dependents as submitted, its references resolved."""
    run = Run(build(change("n", "none", x="{{ build.id }}"), change("a", x='{{ components["n"].x }}')))
    run.begin("n")
    assert run.send("a")["x"] == "b-1"


def test_raw_fields_are_not_rendered() -> None:
    """A field named in _raw goes out as it stands."""
    run = Run(build(change("a", script="{{ not ours }}", x="{{ build.id }}", _raw=["script"])))
    body = run.send("a")
    assert (body["script"], body["x"]) == ("{{ not ours }}", "b-1")


def test_expressions_can_be_left_off() -> None:
    """With templates=ernest only paths are resolved."""
    run = Run(build(change("a", x="{{ build.id }}", y="$(id)")), templates=Templates.ERNEST)
    body = run.send("a")
    assert (body["x"], body["y"]) == ("{{ build.id }}", "b-1")


# --- going on after a restart


def stored(*changes: Document, **fields: Any) -> Run:
    return Run(build(*changes, **fields), resumed=True)


def test_a_resumed_build_goes_on_where_it_stands() -> None:
    """Completed is kept, running is in flight and awaited, waiting is due."""
    done = change("a", x="returned", service="b-1", _state="completed")
    run = stored(
        done,
        change("b", y=reference("a"), _state="running", _provider="{{ build.options.p }}"),
        change("c", z=reference("b", "y")),
        components=[done],
        edges=[("a", "b"), ("b", "c")],
        options={"p": "aws"},
    )
    assert not run.plan.state.halted
    assert (run.plan.phases.in_flight, run.plan.phases.settled) == (1, 1)
    assert run.plan.phases.is_in_flight(1)
    request = run.resume("b")
    assert isinstance(request, Request)
    assert request.subject == "box.create.aws"
    assert decode(request.body)["y"] == "returned"
    assert run.plan.phases.in_flight == 1
    run.reply("b")
    assert run.send("c")["z"] == "returned"
    run.reply("c")
    assert late_replies.take_adopted(run.plan) == []
    assert run.report().get("error") is None
    assert [one["_component_id"] for one in run.report()["components"]] == ["a", "b", "c"]


def test_a_resumed_build_with_an_error_is_halted() -> None:
    """With an errored change it sends nothing more, awaits what is in flight, and reports that error."""
    run = stored(
        change("a", _state="running"),
        change("b", _state="errored", error="no {{ quota", x="{{ data"),
        change("c", _state="errored"),
        change("d"),
    )
    assert run.plan.state.cause == "b: no {{ quota"
    assert run.begin("d") is None
    assert not run.over()
    run.resume("a")
    run.reply("a")
    assert run.over()
    report = run.report()
    assert report["error"] == "b: no {{ quota"
    assert [one["_state"] for one in report["changes"]] == ["completed", "errored", "errored", "waiting"]
    assert report["changes"][1]["x"] == "{{ data"


def test_an_errored_change_without_a_text() -> None:
    """An error that a store kept without its text is reported all the same."""
    assert stored(change("a", _state="errored")).report()["error"] == "a: failed before a restart"


def test_what_was_never_sent_is_not_awaited() -> None:
    """A change with action none is never in flight, whatever the store says."""
    run = stored(change("n", "none", _state="running"))
    assert run.plan.phases.in_flight == 0
    assert isinstance(run.begin("n"), Settled)
    assert run.over()


def test_a_request_that_can_no_longer_be_told_fails() -> None:
    """Where the reference of what was sent leads to nothing any more, it fails and says so."""
    run = stored(
        change("f", "find", _state="completed", components=[]),
        change("a", x=reference("gone"), _state="running"),
        edges=[("f", "a")],
    )
    settled = run.resume("a")
    assert isinstance(settled, Settled)
    assert settled.body["error"].startswith("sent before a restart, and its request cannot be made again: ")
    assert run.over()


def test_what_an_earlier_process_did_not_get_round_to() -> None:
    """A completion that was persisted without its effect on the components has it after a restart."""
    new = change("new", x="returned", _state="completed")
    updated = change("up", "update", x="returned", _state="completed")
    gone = change("gone", "delete", _state="completed")
    element = {"_component_id": "e", "x": "found"}
    find = change("f", "find", _state="completed", components=[element])
    same = change("same", x=1, _state="completed")
    run = stored(
        new,
        updated,
        gone,
        find,
        same,
        change("user", a=reference("new"), b=reference("up"), c=reference("e")),
        components=[change("up", x="old"), change("gone"), same],
        edges=[(name, "user") for name in ("new", "up", "f")],
    )
    body = run.send("user")
    assert (body["a"], body["b"], body["c"]) == ("returned", "returned", "found")
    found = {**element, "service": "b-1"}
    assert late_replies.take_adopted(run.plan) == [
        Settled("new", new, upserts=(new,)),
        Settled("up", updated, upserts=(updated,)),
        Settled("gone", gone, deletes=(gone,)),
        Settled("f", find, upserts=(found,)),
    ]
    run.reply("user")
    assert list(run.existing().values())[:4] == [updated, same, new, found]


def test_the_last_to_complete_has_the_last_word() -> None:
    """Of two completions of one component the later in the graph counts after a restart, too."""
    element = {"_component_id": "a", "x": "newest", "service": "b-1"}
    run = stored(
        change("f", "find", _state="completed", components=[element]),
        change("a", x="older", _state="completed"),
        components=[element],
        edges=[("a", "f")],
    )
    assert run.existing() == {"a": element}


def test_a_submitted_build_is_not_taken_for_a_resumed_one() -> None:
    """A completed change that is submitted says nothing of what exists."""
    run = Run(build(change("gone", "delete", _state="completed"), components=[change("gone", x=1)]))
    assert run.existing() == {"gone": change("gone", x=1)}
    assert late_replies.take_adopted(run.plan) == []


def test_what_is_accepted_can_be_resumed() -> None:
    """A build that was accepted and persisted starts after a restart as if nothing had begun."""
    first = Plan(prepare(build(change("a", _state="errored", error="x"), change("b", _state="running"))))
    again = prepare(accepted_document(first), resumed=True)
    plan = Plan(again, resumed=True)
    assert not plan.state.halted
    assert plan.phases.in_flight == 0
    assert plan.phases.unsettled() == [0, 1]


def test_limits_are_settings() -> None:
    """Other limits hold for error texts and for what a find returns."""
    run = Run(build(change("f", "find"), change("a")), limits=Limits(max_error_bytes=60, max_id_bytes=4))
    run.send("f")
    run.send("a")
    settled = run.reply("f", components=[{"_component_id": "12345"}])
    assert settled.body["error"].startswith("the reply's components[0]._compo")
    assert settled.body["error"].endswith(" ... (cut: 69 bytes)")
    assert len(run.fail("a", "x" * 61).body["error"]) == 60


# --- going on from a log


def replayed(document: Document, *events: Event) -> Run:
    """The plan of a build whose log says this, beside that it was accepted."""
    run = Run(document)
    run.plan.replay(accepted_of(run.plan))
    for event in events:
        run.plan.replay(event)
    return run


def started(name: str) -> Started:
    return Started(name, f"b-1/{name}/1", b"")


def sent(name: str) -> Sent:
    return Sent(name, f"b-1/{name}/1")


def outcome(name: str, state: str = "completed", **fields: Any) -> Settled:
    """As it is read back: what it does to the components is not in it."""
    return Settled(name, {**change(name, **fields), "_state": state, "service": "b-1"})


TWO = build(change("a"), change("b"), edges=[("a", "b")])


@pytest.mark.parametrize(
    ("events", "phase", "in_flight"),
    [
        ([], Phase.WAITING, 0),
        ([started("a")], Phase.STARTING, 1),
        ([started("a"), sent("a")], Phase.RUNNING, 1),
        ([started("a"), sent("a"), sent("a")], Phase.RUNNING, 1),
        ([started("a"), Withdrawn("a", b"")], Phase.WAITING, 0),
        ([started("a"), Withdrawn("a", b""), started("a")], Phase.STARTING, 1),
        ([started("a"), sent("a"), outcome("a")], Phase.COMPLETED, 0),
        ([started("a"), outcome("a")], Phase.COMPLETED, 0),
        ([started("a"), outcome("a", "errored", error="x")], Phase.ERRORED, 0),
        ([outcome("a", "errored", error="x")], Phase.ERRORED, 0),
        ([started("a"), Suspended(), Resumed(5.0), Loading(), Released()], Phase.STARTING, 1),
    ],
)
def test_what_a_log_says_of_a_component(events: list[Event], phase: Phase, in_flight: int) -> None:
    """A component stands where its last event leaves it."""
    run = replayed(TWO, *events)
    assert run.plan.phases[run.vertex("a")] is phase
    assert run.plan.phases.in_flight == in_flight
    assert run.plan.phases.is_starting(run.vertex("a")) is (phase is Phase.STARTING)
    assert run.plan.phases[run.vertex("b")] is Phase.WAITING


def test_what_needs_no_request_settles_without_one() -> None:
    """An action ``none`` has an outcome, and never started."""
    run = replayed(build(change("a", "none"), change("b"), edges=[("a", "b")]), outcome("a"))
    assert run.states()["a"] == "completed"
    assert run.send("b")


@pytest.mark.parametrize(
    "events",
    [
        [started("a"), started("a")],
        [sent("a")],
        [Withdrawn("a", b"")],
        [outcome("a")],
        [started("a"), outcome("a"), outcome("a")],
        [started("a"), outcome("a"), started("a")],
        [started("a"), outcome("a", "errored", error="x"), outcome("a")],
        [started("a"), outcome("a", "errored", error="x"), outcome("a", "errored", error="y")],
        [started("a"), outcome("a"), Withdrawn("a", b"")],
    ],
)
def test_a_log_that_cannot_have_happened_is_refused(events: list[Event]) -> None:
    """Rather than resumed from half of it; only the last event is wrong."""
    *before, last = events
    if events == [outcome("a")]:
        # It may be one that needs no request; an action that has one does.
        assert replayed(TWO, last).states()["a"] == "completed"
        return
    run = replayed(TWO, *before)
    with pytest.raises(IllegalTransition):
        run.plan.replay(last)


def test_a_log_about_a_component_that_is_not_there() -> None:
    """That is a mistake of the log's writer."""
    with pytest.raises(KeyError):
        replayed(TWO, started("zzz"))


def test_a_replayed_plan_goes_on_as_the_first_one_would() -> None:
    """References see what was returned then, and the report holds it."""
    document = build(
        change("a"),
        change("f", "find"),
        change("gone", "delete"),
        change("b", x=reference("a"), y=reference("e")),
        components=[change("gone", x=1), change("old")],
        edges=[("a", "b"), ("f", "b"), ("gone", "b")],
    )
    first = Run(document)
    for name in ("a", "f", "gone"):
        first.send(name)
    told = [
        first.reply("a", x="returned"),
        first.reply("f", components=[{"_component_id": "e", "x": "found"}]),
        first.reply("gone"),
    ]
    events: list[Event] = [started(name) for name in ("a", "f", "gone")]
    again = replayed(document, *events, *(Settled(one.component, one.body) for one in told))
    assert again.states() == first.states()
    assert again.existing() == first.existing()
    assert set(again.existing()) == {"a", "e", "old"}
    assert late_replies.take_adopted(again.plan) == []
    assert again.send("b") == first.send("b")


def test_a_replayed_error_halts_with_the_first_cause() -> None:
    """Nothing is sent any more, and the report names what failed first."""
    run = replayed(
        build(change("a"), change("b"), change("c")),
        *map(started, "ab"),
        outcome("b", "errored", error="quota"),
        outcome("a", "errored", error="later"),
    )
    assert run.begin("c") is None
    assert run.over()
    assert run.report()["error"] == "b: quota"
    assert run.states() == {"a": "errored", "b": "errored", "c": "waiting"}


@pytest.mark.parametrize("error", [None, "store: no answer"])
def test_a_replayed_end_is_the_end(error: str | None) -> None:
    """With its cause, which may be no component's."""
    run = replayed(build(change("a")), started("a"), outcome("a"), Finished(error))
    assert run.plan.state.finished
    assert run.over()
    assert run.report().get("error") == error


def test_a_replayed_late_success_stays_beside_the_error() -> None:
    """It is in the report, it is persisted once, and no other one replaces it."""
    body = {**change("a"), "_state": "errored", "error": "timed out"}
    late = Settled("a", {**body, "adoptable": {"x": 1}})
    run = replayed(build(change("a")), started("a"), Settled("a", body), late)
    assert run.report()["changes"] == [late.body]
    assert late_replies.take_adopted(run.plan) == []
    run.requests["a"] = request_of(build(change("a")), "a")
    assert not late_replies.adopt(run.plan, run.requests["a"], Outcome(completed=True, body={"x": 2}))


def request_of(document: Document, name: str) -> Request:
    step = Run(document).begin(name)
    assert isinstance(step, Request)
    return step


def test_a_request_is_told_again_as_it_was() -> None:
    """Under the same attempt id, with the same body, whether or not it is known to have left."""
    document = build(change("a"), change("b", x=reference("a")), edges=[("a", "b")])
    first = Run(document)
    first.do("a", x="returned")
    original = first.begin("b")
    for events in ([started("b")], [started("b"), sent("b")]):
        run = replayed(document, started("a"), outcome("a", x="returned"), *events)
        again = run.resume("b")
        assert isinstance(again, Request)
        assert isinstance(original, Request)
        assert (again.attempt, again.subject, again.body) == (
            original.attempt,
            original.subject,
            original.body,
        )


def test_what_was_not_sent_cannot_be_resumed() -> None:
    """Nor what is settled."""
    run = replayed(TWO, started("a"), outcome("a"))
    for name in "ab":
        with pytest.raises(IllegalTransition):
            run.resume(name)


def test_what_departed_is_running() -> None:
    """However often that is said; what was never about to be sent cannot have left."""
    run = replayed(TWO, started("a"))
    for _ in range(2):
        run.plan.state.depart(run.vertex("a"))
        assert run.plan.phases[run.vertex("a")] is Phase.RUNNING
    with pytest.raises(IllegalTransition):
        run.plan.state.depart(run.vertex("b"))


def test_what_is_taken_up_again_settles_like_any_other() -> None:
    """With its reply, or without one."""
    document = build(change("a"), change("b"))
    run = replayed(document, *map(started, "ab"), sent("a"))
    for name in "ab":
        run.resume(name)
        run.plan.state.depart(run.vertex(name))
    run.reply("a", x=7)
    run.fail("b", "outcome unknown")
    assert run.report()["error"] == "b: outcome unknown"
    assert run.existing()["a"]["x"] == 7
