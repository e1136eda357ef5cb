"""Which call a reply is meant for, and whether it is the one that counts; without a loop."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.bench import SUBJECT, KeptStrays, reply, request
from support.fakes import encode

from scheduler.bus import Message
from scheduler.dispatch.call import Call, Signal
from scheduler.dispatch.channels import Channels
from scheduler.dispatch.dropped import DroppedReplies
from scheduler.dispatch.inherited import Inherited
from scheduler.dispatch.router import FOREIGN, Router, Stray, Way
from scheduler.plan.outcome import Outcome, failure
from scheduler.runtime.log_limits import RateLimitedLog

OURS = "scheduler.reply.ownerabc."
DONE, FAILED = f"{SUBJECT}.done", f"{SUBJECT}.error"
GOOD = Outcome(completed=True, body={})


class Table:
    """A router with what it drops, and calls that nobody sends."""

    def __init__(self, on_stray: Callable[[Stray], bool] = lambda _: False, *, shares: bool = False) -> None:
        self.dropped = DroppedReplies(RateLimitedLog(clock=lambda: 0.0))
        self.router = Router(OURS, self.dropped, on_stray, lambda: shares)
        self._exchange: Any = SimpleNamespace(
            replies=OURS, connection=1, close=self._close, channels=Channels()
        )
        self._number = 0

    def _close(self, call: Call) -> None:
        if call.late is None:
            self.router.remove(call)

    def call(self, name: str = "a", *, old: str = "") -> Call:
        """Add a call for a component."""
        self._number += 1
        call = Call(self._exchange, request(name), f"{self._number:032x}", since=1)
        call.inherited = Inherited(old) if old else None
        self.router.add(call)
        return call

    def own(self, call: Call, data: bytes = b"{}") -> Call | None:
        """Route a reply that comes directly on the call's own reply subject."""
        return self.router.route_own(Message(call.reply, data))

    def shared(self, name: str = "a", subject: str = DONE, **fields: Any) -> Call | None:
        """Route a reply that comes directly on a shared subject."""
        message = Message(subject, encode(reply(_component_id=name, **fields)))
        base, _, suffix = subject.rpartition(".")
        return self.router.route_shared(message, base, suffix)


def test_a_reply_subject_tells_the_call_of_its_token() -> None:
    """Under whichever owner's name; under another provider's name it is none."""
    table = Table()
    first, second = table.call("a"), table.call("b")
    assert [table.own(first), table.own(second)] == [first, second]
    provider_and_token = first.reply.removeprefix(OURS)
    find = table.router.of_reply_subject
    assert find(f"scheduler.reply.another1.{provider_and_token}") is first
    assert find(f"{OURS}gcp.{first.token}") is None
    assert find(f"scheduler.reply.{first.token}") is None


def test_an_old_token_tells_the_call_that_was_inherited_with_it() -> None:
    """Until that is closed; with an owner in front of it, it is none."""
    table = Table()
    call = table.call(old="k-0")
    find = table.router.of_reply_subject
    assert find("scheduler.reply.k-0") is call
    assert find("scheduler.reply.another1.aws.k-0") is None
    call.close()
    assert find("scheduler.reply.k-0") is None


def test_on_a_shared_subject_build_and_component_tell_the_call() -> None:
    """If type, action and provider are the request's too."""
    table = Table()
    call = table.call()
    assert table.shared() is call
    assert table.shared(subject=FAILED) is call
    assert table.shared(subject="network.create.aws.done") is None
    assert table.shared("z") is None
    assert table.shared(service="b2") is None
    assert table.dropped.counts == {
        "of another type, provider or action": 1,
        "for no running component": 2,
    }


def test_beside_others_a_reply_without_a_call_is_counted_and_nothing_else() -> None:
    """It is another instance's: no stray is kept for it, and no line is logged."""
    strays = KeptStrays()
    table = Table(strays.keep, shares=True)
    table.call()
    with capture_logs() as logs:
        assert table.shared("z", service="b2") is None
    assert strays.kept == []
    assert logs == []
    assert table.dropped.counts == {FOREIGN: 1}


def test_beside_others_what_is_awaited_here_is_found() -> None:
    """Among all that is not."""
    table = Table(shares=True)
    call = table.call()
    assert table.shared("z", service="b2") is None
    assert table.shared() is call


def test_beside_others_nothing_is_read_where_nothing_is_awaited() -> None:
    """A reply is not even looked into."""
    table = Table(shares=True)
    assert table.router.route_shared(Message(DONE, b"no JSON"), SUBJECT, "done") is None
    assert table.dropped.counts == {FOREIGN: 1}


def test_beside_others_a_copy_that_is_expected_is_none_of_theirs() -> None:
    """The direct copy of a captured reply may come when its call is closed, and nothing else is awaited."""
    table = Table(shares=True)
    call = table.call()
    call.deliver(GOOD)
    table.router.note_captured(call, "done")
    call.close()
    assert table.shared() is None
    assert table.dropped.counts == {}
    assert table.shared() is None
    assert table.dropped.counts == {FOREIGN: 1}


def test_a_stray_is_passed_on_where_somebody_takes_strays() -> None:
    """With its build and component; it is not counted then."""
    strays = KeptStrays()
    table = Table(strays.keep)
    assert table.shared("z", service="b2") is None
    assert [(one.build, one.component) for one in strays.kept] == [("b2", "z")]
    assert not table.dropped.counts


@pytest.mark.parametrize("first", ["build", "service", "environment", "scheduler"])
def test_a_report_is_no_reply(first: str) -> None:
    """It is not even read."""
    table = Table()
    assert table.shared(subject=f"{first}.create.aws.done") is None
    assert not table.dropped.counts


def test_a_reply_to_a_call_that_is_answered_is_a_duplicate() -> None:
    """On either address; when it is closed there is no call to be found."""
    table = Table()
    call = table.call()
    call.deliver(GOOD)
    assert [table.own(call), table.shared()] == [None, None]
    assert table.dropped.counts == {"duplicate": 2}
    call.close()
    assert [table.own(call), table.shared()] == [None, None]
    assert table.dropped.counts["to no request that waits"] == 1
    assert table.dropped.counts["for no running component"] == 1


def test_a_reply_that_waits_for_its_turn_is_not_taken_twice() -> None:
    """Another text is another reply, and so is the same one on the other address."""
    table = Table()
    call = table.call()
    table.router.await_turn(call, Message(call.reply, b"1"), None)
    assert table.own(call, b"1") is None
    assert table.own(call, b"2") is call
    assert table.shared() is call
    table.router.end_wait(call, Message(call.reply, b"1"), None)
    assert table.own(call, b"1") is call
    assert table.dropped.counts == {"duplicate": 1}


@pytest.mark.parametrize("suffix", [None, "done"])
@pytest.mark.parametrize("closed", [False, True])
def test_the_direct_copy_of_a_captured_answer_is_expected(suffix: str | None, closed: bool) -> None:
    """It is dropped without a count, once: a further one is a duplicate."""
    table = Table()
    call = table.call()
    call.deliver(GOOD)
    table.router.note_captured(call, suffix)
    if closed:
        call.close()

    def come() -> Call | None:
        return table.own(call) if suffix is None else table.shared()

    assert come() is None
    assert not table.dropped.counts
    assert come() is None
    assert table.dropped.counts.total() == 1


def test_a_captured_reply_that_was_no_answer_has_no_copy_to_expect() -> None:
    """Noise in the stream, say."""
    table = Table()
    call = table.call()
    table.router.note_captured(call, "done")
    assert call.direct_copy is None


@pytest.mark.parametrize("way", list(Way))
def test_the_copy_of_a_failure_does_not_end_the_next_attempt(way: Way) -> None:
    """It comes on the other way; a failure that comes on the same way is the next attempt's own."""
    table = Table()
    message = Message(FAILED, encode(reply(_component_id="a")))
    first = table.call()
    first.deliver(failure("busy"))
    table.router.note_failure(first, message, way)
    first.close()
    again = table.call()

    def come(on: Way) -> bool:
        if on is Way.DIRECT:
            return table.router.route_shared(message, SUBJECT, "error") is again
        call = table.router.route_captured(message, "error")
        return call is again and not table.router.is_copy_of_failure(again, message)

    other = Way.CAPTURED if way is Way.DIRECT else Way.DIRECT
    assert come(way)
    assert not come(other)
    assert come(other)
    assert not table.dropped.counts


def test_a_call_that_was_given_up_is_found_until_it_is_forgotten() -> None:
    """What comes late is for it, however often."""
    table = Table()
    call = table.call()
    call.deliver(failure("timed out"))
    call.close(late=lambda _request, _outcome: None)
    assert [table.own(call), table.shared(), table.own(call)] == [call, call, call]
    call.close()
    assert [table.own(call), table.shared()] == [None, None]


def test_the_next_attempt_has_the_shared_address() -> None:
    """That the one before it is closed afterwards takes nothing from it."""
    table = Table()
    first = table.call()
    first.deliver(Signal.LEFT)
    again = table.call()
    assert [table.own(again), table.shared()] == [again, again]
    first.close()
    assert [table.own(again), table.shared()] == [again, again]
    again.close()
    assert not table.router.by_token
    assert not table.router.by_component


def test_what_is_captured_for_no_call_is_not_counted() -> None:
    """It is, where it comes directly."""
    table = Table()
    call = table.call()
    route = table.router.route_captured
    assert route(Message(call.reply, b"{}"), None) is call
    assert route(Message(DONE, encode(reply())), "done") is call
    assert route(Message(f"{OURS}aws.unknown", b"{}"), None) is None
    assert route(Message(DONE, b"rubbish"), "done") is None
    assert route(Message(DONE, b"{}"), "done") is None
    assert route(Message("network.create.aws.done", encode(reply())), "done") is None
    assert not table.dropped.counts


@given(st.lists(st.sampled_from(["own", "shared", "captured own", "captured shared", "close"]), max_size=12))
def test_in_whatever_order_replies_come_one_is_the_answer(steps: list[str]) -> None:
    """No reply to an attempt that has its answer is passed on directly, and only true repetitions count."""
    table = Table()
    call = table.call()
    answers = direct = 0
    for step in steps:
        own = step.endswith("own")
        if step == "close":
            if call.answered:
                call.close()
            continue
        message = Message(call.reply if own else DONE, encode(reply()))
        if step.startswith("captured"):
            found = table.router.route_captured(message, None if own else "done")
            if found is not None and not found.answered:
                answers += found.deliver(GOOD)
                table.router.note_captured(found, None if own else "done")
            continue
        direct += 1
        found = table.own(call) if own else table.shared()
        if found is not None:
            assert found.deliver(GOOD)
            answers += 1
    assert answers <= 1
    assert max(0, direct - 1) <= table.dropped.counts.total() <= direct
