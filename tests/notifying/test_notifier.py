"""The notifier with a poster in memory, on the mock clock."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import structlog
import trio
from support.receivers import NOW, SECRET, FakePoster, notice
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.definition.destinations import Destination, read_destination
from scheduler.errors import NotPosted
from scheduler.notifying import Kind, Notifier
from scheduler.notifying.outbox import MOST
from scheduler.notifying.poster import Answer

ONE = "https://one.example.com/a?token=hunter2hunter2"
TWO = "https://two.example.com/b"


def to(*urls: str) -> list[Destination]:
    return [read_destination(url) for url in urls]


@asynccontextmanager
async def open_notifier(poster: FakePoster) -> AsyncIterator[Notifier]:
    notifier = Notifier(poster, [SECRET.encode()], wall_clock=lambda: NOW, luck=lambda: 0.0)
    async with notifier.open():
        yield notifier


async def test_a_notification_goes_to_each_destination_signed() -> None:
    """With the same id and the same bytes."""
    poster = FakePoster()
    async with open_notifier(poster) as notifier:
        made = notice()
        notifier.send(made, to(ONE, TWO))
        await wait_all_tasks_blocked()
        assert notifier.document() == {"delivered": 2, "failed": 0, "dropped": 0, "waiting": 0}
    assert sorted(url for url, _ in poster.posts) == [ONE, TWO]
    for _, post in poster.posts:
        assert (post.headers["webhook-id"], post.body) == (made.identity, made.body)
        assert post.is_signed_with(SECRET)
        assert not post.is_signed_with(SECRET + "x")


async def test_what_fails_is_tried_again_with_the_same_id_until_it_is_taken(
    autojump_clock: MockClock,
) -> None:
    """Whether there is no answer, or one that may change; the pauses double."""
    answers: list[Answer | NotPosted] = [NotPosted("refused"), Answer(500), Answer(429), Answer(200)]
    poster = FakePoster(lambda _, number: answers[number - 1])
    async with open_notifier(poster) as notifier:
        notifier.send(notice(), to(ONE))
        await trio.sleep(1_000)
        assert notifier.document() == {"delivered": 1, "failed": 0, "dropped": 0, "waiting": 0}
    assert [later - poster.at[0] for later in poster.at] == [0, 7, 21, 49]
    assert len({post.headers["webhook-id"] for _, post in poster.posts}) == 1


async def test_after_ten_tries_it_is_given_up_and_logged_without_the_url(autojump_clock: MockClock) -> None:
    """The log names the build and the host: what stands behind the host may be a secret."""
    poster = FakePoster(lambda _url, _number: NotPosted("connection refused"))
    with structlog.testing.capture_logs() as logs:
        async with open_notifier(poster) as notifier:
            notifier.send(notice(), to(ONE))
            await trio.sleep(10_000)
            assert notifier.document() == {"delivered": 0, "failed": 1, "dropped": 0, "waiting": 0}
    assert len(poster.posts) == 10
    last = logs[-1]
    assert (last["event"], last["log_level"]) == ("a notification was not delivered", "warning")
    assert (last["build"], last["host"], last["tries"], last["why"]) == (
        "b1", "one.example.com", 10, "connection refused"
    )  # fmt: skip
    assert "hunter2" not in str(logs)


@pytest.mark.parametrize("status", [301, 400, 404])
async def test_a_refusal_is_final(status: int, autojump_clock: MockClock) -> None:
    """It is not tried again; the next notification is."""
    poster = FakePoster(lambda _url, _number: Answer(status))
    async with open_notifier(poster) as notifier:
        notifier.send(notice(), to(ONE))
        await trio.sleep(10_000)
        notifier.send(notice(), to(ONE))
        await trio.sleep(10_000)
        assert notifier.counts.failed == len(poster.posts) == 2


async def test_a_url_that_is_gone_gets_nothing_more(autojump_clock: MockClock) -> None:
    """Neither what waits nor what comes; another URL of its host does."""
    other = "https://one.example.com/other"
    poster = FakePoster(lambda url, _: Answer(410 if url == ONE else 204))
    with structlog.testing.capture_logs() as logs:
        async with open_notifier(poster) as notifier:
            notifier.send(notice(), to(ONE, ONE, other))
            await trio.sleep(1)
            notifier.send(notice(), to(ONE))
            await trio.sleep(1)
            assert notifier.document() == {"delivered": 1, "failed": 1, "dropped": 2, "waiting": 0}
    assert [url for url, _ in poster.posts] == [ONE, other]
    [line] = [one for one in logs if one["event"].startswith("nothing more is sent to a URL")]
    assert (line["host"], line["dropped"]) == ("one.example.com", 1)


async def test_a_receiver_that_asks_for_time_gets_it(autojump_clock: MockClock) -> None:
    """From all notifications to its host."""
    poster = FakePoster(lambda _, number: Answer(503, "60") if number == 1 else Answer(204))
    async with open_notifier(poster) as notifier:
        notifier.send(notice(), to(ONE))
        await trio.sleep(1)
        notifier.send(notice(run=2), to(ONE))
        await trio.sleep(100)
        assert notifier.counts.delivered == 2
    assert [round(at - poster.at[0]) for at in poster.at] == [0, 60, 60]


async def test_a_slow_receiver_holds_up_no_other() -> None:
    """While one does not answer, all of another's arrive."""
    poster = FakePoster(held={ONE: trio.Event()})
    async with open_notifier(poster) as notifier:
        for run in range(5):
            notifier.send(notice(run=run), to(ONE, TWO))
        await wait_all_tasks_blocked()
        assert (len(poster.bodies(ONE)), len(poster.bodies(TWO))) == (1, 5)
        assert notifier.waiting == 5


async def test_where_too_many_wait_the_oldest_is_dropped_and_counted() -> None:
    """The queue is bounded; the log says so, and not a thousand times."""
    poster = FakePoster(held={ONE: trio.Event()})
    with structlog.testing.capture_logs() as logs:
        async with open_notifier(poster) as notifier:
            notifier.send(notice(run=0), to(ONE))
            await wait_all_tasks_blocked()
            for run in range(1, MOST + 101):
                notifier.send(notice(run=run), to(ONE))
            assert (notifier.counts.dropped, notifier.waiting) == (100, MOST + 1)
            poster.held[ONE].set()
            await wait_all_tasks_blocked()
    assert [body["run"] for body in poster.bodies()] == [0, *range(101, MOST + 101)]
    told = [one for one in logs if one["event"].startswith("a notification was dropped")]
    assert 0 < len(told) <= 20


async def test_a_bug_in_posting_costs_a_try_and_no_more(autojump_clock: MockClock) -> None:
    """It is logged, and the notification is tried again."""
    poster = FakePoster(lambda _, number: RuntimeError("bug") if number == 1 else Answer(204))
    with structlog.testing.capture_logs() as logs:
        async with open_notifier(poster) as notifier:
            notifier.send(notice(), to(ONE))
            await trio.sleep(100)
            assert notifier.counts.delivered == 1
    assert logs[0]["event"] == "internal error: a notification was not sent"


async def test_at_the_end_what_waits_is_tried_once_more_at_once(autojump_clock: MockClock) -> None:
    """What fails then is given up: nobody would be there for another try."""
    poster = FakePoster(lambda url, number: Answer(204 if url == TWO and number == 2 else 500))
    async with open_notifier(poster) as notifier:
        notifier.send(notice(), to(ONE, TWO))
        await trio.sleep(1)
        assert notifier.waiting == 2
        began = trio.current_time()
        await notifier.finish(5.0)
        assert trio.current_time() == began
        assert notifier.document() == {"delivered": 1, "failed": 1, "dropped": 0, "waiting": 0}


async def test_the_end_is_bounded_and_says_how_many_are_left(autojump_clock: MockClock) -> None:
    """A receiver that does not answer costs the time that is given, and no more."""
    poster = FakePoster(held={ONE: trio.Event()})
    with structlog.testing.capture_logs() as logs:
        async with open_notifier(poster) as notifier:
            for kind in (Kind.FAILING, Kind.FINISHED):
                notifier.send(notice(kind), to(ONE))
            began = trio.current_time()
            await notifier.finish(1.0)
            assert trio.current_time() - began == 1
    [line] = [one for one in logs if one["log_level"] == "warning"]
    assert (line["event"], line["count"]) == ("notifications were not delivered before the end", 2)


async def test_what_is_sent_after_the_end_is_counted_and_harms_nobody() -> None:
    """A build's last words may come then."""
    async with open_notifier(FakePoster()) as notifier:
        pass
    notifier.send(notice(), to(ONE))
    assert notifier.counts.dropped == 1
