"""What is decided about notifications without a network: identity, signature, retries, order and bounds."""

import base64
import hashlib
import hmac
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.receivers import NOW, notice

from scheduler.definition.destinations import read_destination
from scheduler.notifying import Kind, Notice
from scheduler.notifying.outbox import Letter, Outbox
from scheduler.notifying.retries import TRIES, Verdict, pause_after, read_retry_after, verdict_of
from scheduler.notifying.signing import signed_headers

URL = "https://hooks.example.com/x"


def test_a_body_says_what_happened() -> None:
    """All that a chat message needs, in one object; times are ISO 8601 in UTC."""
    made = notice(component="vpc::1", error="no")
    assert json.loads(made.body) == {
        "type": "build.finished",
        "id": "b1",
        "name": "shop",
        "action": "build.create",
        "run": 1,
        "status": "errored",
        "time": "2027-01-15T08:00:00.250Z",
        "component": "vpc::1",
        "error": "no",
        "total": 2,
        "counts": {"completed": 1, "errored": 1},
        "instance": "s1",
    }


@pytest.mark.parametrize("name", [None, "", 5, ["x"]])
def test_a_build_without_a_name_has_none_in_its_notification(name: Any) -> None:
    """A name is a text, or it is left out."""
    assert "name" not in json.loads(notice(name=name).body)


def test_a_long_name_is_cut() -> None:
    """The bound on a body holds whatever a build says."""
    assert len(json.loads(notice(name="x" * 100_000).body)["name"]) == 200


def test_the_id_is_that_of_what_happened_and_not_of_when_it_is_told() -> None:
    """Another process, later, with other words, repeats the same notification."""
    first = notice(component="vpc::1", error="no")
    again = notice(at=NOW + 900, instance="s2", component=None, status="halted")
    assert again.identity == first.identity
    assert again.body != first.body


@pytest.mark.parametrize(
    "other",
    [
        notice(Kind.FAILING),
        notice(Kind.GATED, component="a"),
        notice(Kind.GATED, component="b"),
        notice(build="b2"),
        notice(mark="m2"),
        notice(run=2),
    ],
)
def test_different_things_have_different_ids(other: Notice) -> None:
    """So that a receiver which drops repetitions drops nothing else."""
    assert other.identity != notice().identity
    assert notice(Kind.GATED, component="a").identity != notice(Kind.GATED, component="b").identity


def test_an_id_has_no_dot() -> None:
    """The signature is over texts with dots between them."""
    assert "." not in notice(build="a.b.c").identity


def test_a_signature_is_that_of_the_standard() -> None:
    """HMAC-SHA256 over id, time and body; one for each key, so that a secret can be replaced."""
    headers = signed_headers("msg_1", b'{"a":1}', 1_700_000_000.9, [b"old", b"new"])
    assert headers["webhook-id"] == "msg_1"
    assert headers["webhook-timestamp"] == "1700000000"
    expected = [
        base64.b64encode(hmac.new(key, b'msg_1.1700000000.{"a":1}', hashlib.sha256).digest()).decode()
        for key in (b"old", b"new")
    ]
    assert headers["webhook-signature"] == f"v1,{expected[0]} v1,{expected[1]}"


def test_the_signature_agrees_with_the_published_example() -> None:
    """That of Standard Webhooks, with its key of base64."""
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}', 1614265330, [key])
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        *((status, Verdict.DELIVERED) for status in (200, 202, 204, 299)),
        *((status, Verdict.AGAIN) for status in (408, 425, 429, 500, 503, 599)),
        *((status, Verdict.REFUSED) for status in (301, 307, 400, 401, 404, 422)),
        (410, Verdict.GONE),
    ],
)
def test_what_a_status_means(status: int, verdict: Verdict) -> None:
    """Only what may pass is tried again; a redirect is not followed."""
    assert verdict_of(status) is verdict


@given(st.lists(st.floats(0, 1), min_size=TRIES - 1, max_size=TRIES - 1))
def test_ten_tries_take_between_half_an_hour_and_an_hour(luck: list[float]) -> None:
    """Pauses double, and each is random within half of itself; after the last one there is none."""
    pauses = [pause_after(number, one) for number, one in enumerate(luck, 1)]
    assert pause_after(TRIES, 0.0) is None
    total = sum(pause for pause in pauses if pause is not None)
    assert None not in pauses
    assert 1_750 < total < 3_600


def test_a_receiver_may_ask_for_more_time_and_not_for_less() -> None:
    """Its pause counts where it is the longer one."""
    assert pause_after(1, 0.0, 600.0) == 600
    assert pause_after(1, 0.0, 1.0) == 7
    assert pause_after(TRIES, 0.0, 600.0) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30.0),
        (" 30 ", 30.0),
        ("0", 0.0),
        ("99999999999999999999999999", 900.0),
        ("Fri, 15 Jan 2027 08:01:00 GMT", 59.75),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        ("Sat, 16 Jan 2027 08:00:00 GMT", 900.0),
        *((text, None) for text in ("", "soon", "-5", "1.5", "٣", "x" * 10_000)),
    ],
)
def test_a_wish_for_a_pause_is_read_and_bounded(text: str, seconds: float | None) -> None:
    """Seconds or a date, at most a quarter of an hour; what is neither is no wish."""
    assert read_retry_after(text, NOW) == seconds


def letter(number: int, *, due: float = 0.0, url: str = URL, size: int = 10) -> Letter:
    made = Notice(f"msg_{number}", Kind.FINISHED, "b1", b"x" * size)
    return Letter(made, read_destination(url), number, due=due)


def test_what_is_due_leaves_first_and_in_order() -> None:
    """One that waits for another try holds up none that has just come."""
    outbox = Outbox()
    for one in (letter(1, due=100.0), letter(2), letter(3)):
        assert outbox.put(one) == []
    taken = [outbox.take(50.0) for _ in range(3)]
    assert [one and one.number for one in taken] == [2, 3, None]
    assert outbox.next_due() == 100.0
    last = outbox.take(100.0)
    assert last is not None
    assert last.number == 1
    assert outbox.next_due() is None


def test_a_hold_is_for_all_and_ends_at_the_end() -> None:
    """A receiver that asks for time gets no other notification meanwhile, except when the process stops."""
    outbox = Outbox()
    outbox.hold(60.0)
    outbox.put(letter(1))
    assert outbox.take(59.0) is None
    assert outbox.next_due() == 60.0
    outbox.hurry()
    assert outbox.take(0.0) is not None


@given(
    st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=60),
    st.integers(1, 8),
    st.integers(1, 120),
)
def test_an_outbox_never_holds_more_than_its_bounds(
    steps: list[tuple[int, bool]], most: int, most_bytes: int
) -> None:
    """In number and bytes; what is dropped for a new one is the oldest, and nothing is lost unnoticed."""
    outbox, held = Outbox(most, most_bytes), dict[int, int]()
    for number, (size, takes) in enumerate(steps):
        held[number] = size
        dropped = [one.number for one in outbox.put(letter(number, size=size))]
        assert dropped == sorted(held)[: len(dropped)]
        for one in dropped:
            del held[one]
        assert len(outbox) == len(held) <= most
        assert sum(held.values()) <= most_bytes
        if takes and (taken := outbox.take(0.0)) is not None:
            del held[taken.number]


def test_all_that_is_for_a_url_can_be_dropped() -> None:
    """And nothing else."""
    outbox = Outbox()
    for number, url in enumerate([URL, f"{URL}/other", URL]):
        outbox.put(letter(number, url=url))
    assert outbox.drop(URL) == 2
    left = outbox.take(0.0)
    assert left is not None
    assert left.number == 1
