"""Who has sent a message, and the queue in which senders take turns."""

import json
from collections import defaultdict, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from scheduler.dispatch.senders import UNKNOWN, RoundRobinQueue, _UnknownSenders, sender_of, user_of

INFO = "Nats-Request-Info"


def info(account: str, user: str = "") -> dict[str, str]:
    return {INFO: json.dumps({"acc": account, "rtt": 1, **({"user": user} if user else {})})}


@pytest.mark.parametrize(
    ("reply", "headers", "expected"),
    [
        ("_R_.nCBSar.hkOTN7", info("TEAM", "anna"), "user TEAM anna"),
        ("", info("TEAM", "anna"), "user TEAM anna"),
        ("", info("TEAM"), "user TEAM "),
        ("_GR_.aBcDeF.gHiJkL._R_.nCBSar.hkOTN7", info("TEAM", "anna"), "user TEAM anna"),
        # In our own account nobody but its sender has written that.
        ("_INBOX.Zx81.7", info("TEAM", "anna"), "reply _INBOX.Zx81"),
        ("", {"nats-request-info": info("TEAM")[INFO]}, UNKNOWN),
        ("", {INFO: "no JSON"}, UNKNOWN),
        ("", {INFO: '{"acc": 5}'}, UNKNOWN),
        ("", {INFO: '{"acc": "\\ud800"}'}, UNKNOWN),
        ("_INBOX.Zx81.7", None, "reply _INBOX.Zx81"),
        ("_INBOX.Zx81.r.7", None, "reply _INBOX.Zx81"),
        ("_INBOX.Zx81", None, "reply _INBOX"),
        ("_GR_.aBcDeF.gHiJkL._INBOX.Zx81.7", None, "reply _INBOX.Zx81"),
        ("_GR_.", None, UNKNOWN),
        ("answers", None, UNKNOWN),
        ("", None, UNKNOWN),
    ],
)
def test_the_sender_is_who_the_server_says_or_what_the_reply_subject_begins_with(
    reply: str, headers: dict[str, str] | None, expected: str
) -> None:
    """As far as either is there, and can be believed."""
    assert sender_of(reply, headers) == expected


@pytest.mark.parametrize(
    ("reply", "headers", "expected"),
    [
        ("_R_.nCBSar.hkOTN7", info("TEAM", "anna"), "TEAM/anna"),
        ("_GR_.aBcDeF.gHiJkL._R_.nCBSar.hkOTN7", info("TEAM", "anna"), "TEAM/anna"),
        ("_R_.nCBSar.hkOTN7", info("TEAM"), "TEAM"),
        # Without an import nobody but its sender has written that.
        ("_INBOX.Zx81.7", info("TEAM", "anna"), ""),
        ("", info("TEAM", "anna"), ""),
        ("_R_.nCBSar.hkOTN7", {INFO: "no JSON"}, ""),
        ("_R_.nCBSar.hkOTN7", {}, ""),
        ("_R_.nCBSar.hkOTN7", None, ""),
    ],
)
def test_the_broker_vouches_for_who_comes_from_another_account(
    reply: str, headers: dict[str, str] | None, expected: str
) -> None:
    """And for nobody else."""
    assert user_of(reply, headers) == expected


def test_one_behind_ten_thousand_of_another_is_next_but_one() -> None:
    """However many that one sends."""
    queue: RoundRobinQueue[str] = RoundRobinQueue(30_000, 30_000)
    for number in range(10_000):
        assert queue.put("flood", f"f{number}", 1)
    assert queue.put("healthy", "mine", 1)
    assert [queue.take(), queue.take(), queue.take()] == ["f0", "mine", "f1"]


def test_whoever_fills_the_queue_is_refused_before_others() -> None:
    """By number and by bytes: others find room all the same."""
    for size in (0, 10):
        queue: RoundRobinQueue[int] = RoundRobinQueue(1_000, 10_000)
        taken = sum(queue.put("flood", number, size) for number in range(2_000))
        assert taken == 500
        assert sum(queue.put("second", number, size) for number in range(2_000)) == 250
        assert queue.put("healthy", 0, size)
        assert not queue.put("flood", 0, size)


def test_what_is_larger_than_the_queue_is_refused() -> None:
    """Also when nothing else is there."""
    queue: RoundRobinQueue[int] = RoundRobinQueue(10, 100)
    assert not queue.put("a", 1, 101)
    assert queue.put("a", 1, 100)
    assert queue.take() == 1
    assert (len(queue), queue.bytes, queue.senders) == (0, 0, 0)


def test_of_unknown_senders_the_small_goes_before_the_large() -> None:
    """But every fourth turn is for the oldest."""
    queue: RoundRobinQueue[str] = RoundRobinQueue(1_000, 10**6)
    queue.put(UNKNOWN, "large", 1_000)
    for number in range(8):
        queue.put(UNKNOWN, f"s{number}", 10)
    assert [queue.take() for _ in range(9)] == ["s0", "s1", "s2", "large", "s3", "s4", "s5", "s6", "s7"]


@given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60))
def test_nothing_of_an_unknown_sender_waits_longer_than_four_turns_for_each_before_it(
    steps: list[tuple[int, bool]],
) -> None:
    """Whatever else comes in meanwhile, and however small."""
    queue: RoundRobinQueue[int] = RoundRobinQueue(1_000, 10**6)
    limit: dict[int, int] = {}
    turns = 0
    for number, (size, taking) in enumerate(steps):
        queue.put(UNKNOWN, number, size)
        limit[number] = turns + 4 * len(queue)
        for _ in range(taking):
            turns += 1
            item = queue.take()
            assert item is not None
            assert turns <= limit.pop(item)
    while (item := queue.take()) is not None:
        turns += 1
        assert turns <= limit.pop(item)
    assert not limit


def test_what_went_as_the_oldest_leaves_nothing_behind() -> None:
    """Where there is always something that is smaller."""
    queue: RoundRobinQueue[int] = RoundRobinQueue(1_000, 10**9)
    for number in range(2_000):
        queue.put(UNKNOWN, number, 2_000 - number)
        if number > 10:
            queue.take()
    crowd = queue._queues[UNKNOWN]
    assert isinstance(crowd, _UnknownSenders)
    assert len(crowd.by_size) < 40


class FairDispatcher(RuleBasedStateMachine):
    """The queue against a model: a deque a sender."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: RoundRobinQueue[int] = RoundRobinQueue(12, 100)
        self.model: dict[str, deque[tuple[int, int]]] = defaultdict(deque)
        self.passed: dict[str, set[str]] = {}
        """By sender that waits: who had a turn since its last one."""
        self.number = 0

    @rule(sender=st.sampled_from("abc"), size=st.integers(0, 60))
    def put(self, sender: str, size: int) -> None:
        """What fits beside what is there goes in; a sender never has more than is left free."""
        self.number += 1
        own = self.model[sender]
        held = sum(len(items) for items in self.model.values())
        held_bytes = sum(size for items in self.model.values() for _, size in items)
        fits = len(own) + 1 <= 12 - held and sum(size for _, size in own) + size <= 100 - held_bytes
        assert self.queue.put(sender, self.number, size) is fits
        if fits:
            if not own:
                self.passed[sender] = set()
            own.append((self.number, size))

    @precondition(lambda self: len(self.queue) > 0)
    @rule()
    def take(self) -> None:
        """The sender's first comes first, and nobody has a second turn while another waits for one."""
        item = self.queue.take()
        [sender] = [one for one, items in self.model.items() if items and items[0][0] == item]
        self.model[sender].popleft()
        del self.passed[sender]
        for passed in self.passed.values():
            assert sender not in passed
            passed.add(sender)
        if self.model[sender]:
            self.passed[sender] = set()

    @invariant()
    def counts(self) -> None:
        """Number, bytes and senders are those of what is in it."""
        items = [size for line in self.model.values() for _, size in line]
        assert (len(self.queue), self.queue.bytes) == (len(items), sum(items))
        assert self.queue.senders == sum(1 for line in self.model.values() if line)
        if not items:
            assert self.queue.take() is None


TestTurns = FairDispatcher.TestCase
