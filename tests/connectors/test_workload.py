"""Which requests begin, wait, join and are refused."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.connectors import Connectors
from scheduler.connectors.attempts import Attempt
from scheduler.connectors.handlers import Handler
from scheduler.connectors.outcomes import Outcome
from scheduler.connectors.workload import Taken, Work, Workload

SUBJECT = "vpc.create.aws"


def handler(concurrency: int = 1) -> Handler:
    connectors = Connectors("aws", concurrency=concurrency)

    @connectors.create("vpc")
    def create(request: dict[str, Any]) -> None: ...

    return connectors.handlers[0]


def attempt(id_: str = "", key: str = "", size: int = 2) -> Attempt:
    return Attempt(SUBJECT, b"x" * size, reply=f"reply.{id_}", id=id_, key=key)


def begun(taken: Taken | Outcome) -> Work:
    assert isinstance(taken, Taken)
    assert taken.begins is not None
    return taken.begins


def waits(taken: Taken | Outcome) -> Work:
    assert isinstance(taken, Taken)
    assert taken.begins is None
    return taken.work


def refused(taken: Taken | Outcome) -> Outcome:
    assert isinstance(taken, Outcome)
    return taken


def test_what_has_no_slot_waits_its_turn() -> None:
    """Requests beyond a handler's concurrency begin one by one, in the order in which they came."""
    work, one = Workload(), handler(concurrency=1)
    first = begun(work.offer(one, attempt("1", "a")))
    second = waits(work.offer(one, attempt("2", "b")))
    third = waits(work.offer(one, attempt("3", "c")))
    assert work.end(first) is second
    assert work.end(second) is third
    assert work.end(third) is None


def test_an_attempt_with_the_key_of_a_work_joins_it() -> None:
    """Two attempts for one component are one work, and both get its reply."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    assert waits(work.offer(one, attempt("2", "a"))) is first
    assert [attempt.id for attempt in first.attempts] == ["1", "2"]
    assert work.waiting == 0


def test_an_attempt_that_is_sent_again_gets_one_reply_on_its_latest_subject() -> None:
    """The same attempt from a scheduler that took the build over replaces its own reply subject."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    again = Attempt(SUBJECT, b"{}", reply="reply.new", id="1", key="a")
    assert waits(work.offer(one, again)) is first
    assert [attempt.reply for attempt in first.attempts] == ["reply.new"]


def test_requests_without_ids_are_each_a_work() -> None:
    """Nothing is joined by the absence of a key."""
    work, one = Workload(), handler(concurrency=2)
    assert begun(work.offer(one, attempt())) is not begun(work.offer(one, attempt()))


def test_the_same_key_on_another_subject_is_another_work() -> None:
    """A component may be created and deleted under one key."""
    work, one = Workload(), handler(concurrency=2)
    first = begun(work.offer(one, attempt("1", "a")))
    other = Attempt("vpc.delete.aws", b"{}", id="2", key="a")
    assert begun(work.offer(one, other)) is not first


def test_requests_beyond_the_number_that_may_wait_are_refused() -> None:
    """A full line is an answer that the scheduler can act on."""
    work, one = Workload(most_waiting=1), handler()
    begun(work.offer(one, attempt("1", "a")))
    waits(work.offer(one, attempt("2", "b")))
    outcome = refused(work.offer(one, attempt("3", "c")))
    assert outcome.retryable
    assert outcome.retry_after == 5
    assert outcome.error == "the connector is busy: 1 request waits"


def test_requests_beyond_the_bytes_that_may_wait_are_refused() -> None:
    """Few large requests fill the line as well as many small ones."""
    work, one = Workload(most_bytes=10_000), handler()
    begun(work.offer(one, attempt("1", "a")))
    waits(work.offer(one, attempt("2", "b", size=8_000)))
    refused(work.offer(one, attempt("3", "c", size=8_000)))


def test_a_request_over_the_bound_waits_alone() -> None:
    """What is larger than the line would otherwise never be taken."""
    work, one = Workload(most_bytes=10), handler()
    begun(work.offer(one, attempt("1", "a")))
    waits(work.offer(one, attempt("2", "b", size=8_000)))


def test_a_work_is_given_up_with_the_last_of_its_attempts() -> None:
    """One cancelled attempt of two leaves the work to the other."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    work.offer(one, attempt("2", "a"))
    assert work.cancel("1", "retry --now") is None
    assert work.cancel("2", "cancel --now") is first
    assert first.given_up == "cancel --now"
    assert work.cancel("2", "again") is None
    assert work.cancel("unknown", "why") is None


def test_what_comes_for_a_work_that_was_given_up_begins_after_it() -> None:
    """It never gets the end of the cancelled one."""
    work, one = Workload(), handler(concurrency=2)
    first = begun(work.offer(one, attempt("1", "a")))
    work.cancel("1", "timeout")
    second = begun(work.offer(one, attempt("2", "a")))
    assert second.before is first
    work.end(first)
    assert waits(work.offer(one, attempt("3", "a"))) is second


def test_what_comes_after_a_work_that_never_began_still_waits_for_the_one_before() -> None:
    """A cancelled request in line does not hide the call that still acts on the component."""
    work, one = Workload(), handler(concurrency=1)
    first = begun(work.offer(one, attempt("1", "a")))
    work.cancel("1", "timeout")
    second = waits(work.offer(one, attempt("2", "a")))
    assert work.cancel("2", "timeout") is second
    work.end(second)
    assert waits(work.offer(one, attempt("3", "a"))).before is first


def test_a_work_waits_for_the_one_before_the_one_before() -> None:
    """A begun work that gave up waiting does not let the next one through."""
    work, one = Workload(), handler(concurrency=3)
    first = begun(work.offer(one, attempt("1", "a")))
    work.cancel("1", "timeout")
    second = begun(work.offer(one, attempt("2", "a")))
    work.cancel("2", "timeout")
    third = begun(work.offer(one, attempt("3", "a")))
    assert third.before is second
    work.end(second)
    assert third.before is first
    work.end(first)
    assert third.before is None


def test_a_work_that_is_abandoned_leaves_its_slot_to_the_next() -> None:
    """A call that does not return in time holds up nobody."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    second = waits(work.offer(one, attempt("2", "b")))
    assert work.abandon(first, "too slow") is second
    assert work.end(first) is None
    assert waits(work.offer(one, attempt("3", "c"))).in_line


def test_a_handler_whose_calls_never_end_is_refused_more() -> None:
    """Abandoned calls are bounded by its concurrency."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    work.abandon(first, "too slow")
    outcome = refused(work.offer(one, attempt("2", "b")))
    assert outcome.error == "the connector is stuck: 1 call of create did not end in time"
    assert outcome.retry_after == 30
    work.end(first)
    begun(work.offer(one, attempt("3", "c")))


def test_a_stopping_connector_takes_only_what_it_works_on_already() -> None:
    """What waits is handed back, and a further attempt for what is begun still joins."""
    work, one = Workload(), handler()
    first = begun(work.offer(one, attempt("1", "a")))
    second = waits(work.offer(one, attempt("2", "b")))
    assert work.stop() == [second]
    assert waits(work.offer(one, attempt("3", "a"))) is first
    assert refused(work.offer(one, attempt("4", "c"))).error == "the connector is stopping"


@given(
    st.lists(
        st.tuples(
            st.sampled_from(("offer", "end", "cancel", "drop", "abandon")),
            st.integers(0, 3),
            st.integers(0, 30),
        ),
        max_size=80,
    ),
    st.integers(1, 2),
)
def test_slots_and_counts_hold_whatever_happens(steps: list[tuple[str, int, int]], concurrency: int) -> None:
    """No more works have slots than allowed, none stays free while a work waits, no two act on one component
    at a time, and at the end nothing is left."""
    work, one = Workload(most_waiting=5), handler(concurrency)
    running: list[Work] = []
    waiting: list[Work] = []
    number = 0

    def moved(following: Work | None) -> None:
        if following is not None:
            waiting.remove(following)
            running.append(following)

    for step, key, pick in steps:
        if step == "offer":
            number += 1
            taken = work.offer(one, attempt(f"{number}", f"k{key}"))
            if isinstance(taken, Taken) and taken.begins is not None:
                running.append(taken.begins)
            elif isinstance(taken, Taken) and taken.work.in_line and taken.work not in waiting:
                waiting.append(taken.work)
        elif step == "end" and running:
            moved(work.end(running.pop(pick % len(running))))
        elif step == "cancel" and running:
            for attempt_ in running[pick % len(running)].attempts:
                work.cancel(attempt_.id, "why")
        elif step == "drop" and waiting:
            chosen = waiting[pick % len(waiting)]
            for attempt_ in chosen.attempts:
                work.cancel(attempt_.id, "why")
            waiting.remove(chosen)
            assert work.end(chosen) is None
        elif step == "abandon" and running:
            chosen = running[pick % len(running)]
            if not chosen.abandoned:
                moved(work.abandon(chosen, "late"))
        acting = [each.identity for each in running if each.before is None]
        assert len(acting) == len(set(acting))
        assert all(each.before in running for each in running if each.before is not None)
        slots = [each for each in running if each.has_slot]
        assert len(slots) <= concurrency
        assert not waiting or len(slots) == concurrency
        assert work.waiting == len(waiting)
    while running:
        moved(work.end(running.pop()))
    assert (work.waiting, work.waiting_bytes, waiting) == (0, 0, [])
    begun(work.offer(one, attempt("last", "last")))
