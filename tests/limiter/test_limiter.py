"""The limiter by a clock of the test's own: which requests may begin, and when, and which one is next."""

import math
import sys
from functools import partial
from typing import Any

import pytest

from scheduler.definition.rules import parse_limits
from scheduler.limiter import Limiter, Waiter, stretched

VPC = "vpc.create.aws"
NET = "net.create.aws"


class Site:
    """A limiter, and the requests that it let begin, in order."""

    def __init__(self, rules: str = "", **bounds: Any) -> None:
        bounds = {"per_instance": sys.maxsize, "per_build": sys.maxsize, **bounds}
        self.limiter = Limiter(parse_limits(rules), **bounds)
        self.served: list[str] = []
        self.dismissed: list[str] = []

    def queue(self, build: str, name: str, subject: str = VPC, priority: float = 0.0) -> Waiter:
        return self.limiter.queue(build, subject, priority, partial(self._ended, name))

    def ask(self, build: str, name: str, subject: str = VPC, priority: float = 0.0) -> Waiter:
        waiter = self.queue(build, name, subject, priority)
        self.limiter.call(waiter)
        return waiter

    def _ended(self, name: str, served: bool) -> None:
        (self.served if served else self.dismissed).append(name)


def test_time_alone_lets_a_rate_go_on() -> None:
    """The next request of a rate that is used up begins a stretched period after the first, no sooner."""
    site = Site("*=1/s")
    site.ask("a", "first")
    site.ask("a", "second")
    site.limiter.hand_out(5.0)
    assert site.served == ["first"]
    due = site.limiter.due
    assert due == 5.0 + stretched(1.0)
    site.limiter.follow_alarms(math.nextafter(due, 0.0))
    assert site.served == ["first"]
    site.limiter.follow_alarms(due)
    assert site.served == ["first", "second"]
    assert site.limiter.due == math.inf


def test_a_rate_that_has_room_is_noticed_before_its_alarm_was_followed() -> None:
    """Whatever is handed out after the time of an alarm serves those that waited for it."""
    site = Site("*=1/s")
    site.ask("a", "first")
    site.ask("a", "second")
    site.limiter.hand_out(0.0)
    site.limiter.hand_out(2.0)
    assert site.served == ["first", "second"]


def test_a_sooner_alarm_is_told() -> None:
    """The next alarm becomes sooner with another rate, and not with a later one."""
    told: list[float] = []
    site = Site("vpc.*.*=1/m, net.*.*=1/s, disk.*.*=1/h", sooner=lambda: told.append(1.0))
    for number, subject in enumerate((VPC, NET, "disk.create.aws")):
        site.ask("a", "begins", subject)
        site.ask("a", "waits", subject)
        site.limiter.hand_out(0.0)
        assert len(told) == min(number + 1, 2)
    assert site.limiter.due == stretched(1.0)


def test_what_is_queued_has_no_slot_before_it_is_called() -> None:
    """Requests that are queued one by one are compared once all are there."""
    site = Site(per_build=1)
    site.queue("a", "little", priority=1.0)
    site.limiter.hand_out(0.0)
    assert site.served == []
    site.queue("a", "much", priority=2.0)
    site.limiter.call_all("a")
    site.limiter.hand_out(0.0)
    assert site.served == ["much"]


def test_what_is_due_by_a_completion_is_compared_with_what_waits() -> None:
    """A slot that is given back goes to the most urgent one, although that was not called yet."""
    site = Site("*=1, vpc.*.*=1")
    assert site.limiter.try_take("a", VPC, 0, 0.0)
    site.ask("a", "waits", NET, 1.0)
    site.limiter.hand_out(0.0)
    site.queue("a", "due now", VPC, 2.0)
    assert site.limiter.give_back("a", VPC)
    site.limiter.hand_out(1.0)
    assert site.served == ["due now"]


def test_the_most_urgent_of_many_kinds_goes_first() -> None:
    """A build that waits alone has its most urgent component looked for in every queue."""
    kinds = 60
    site = Site(",".join(f"t{number}.*.*=1" for number in range(kinds)) + ",*=1")
    for number in range(kinds):
        site.ask("a", str(number), f"t{number}.create.x", number)
    for number in reversed(range(kinds)):
        site.limiter.hand_out(0.0)
        assert site.served[-1] == str(number)
        site.limiter.give_back("a", f"t{number}.create.x")
    assert len(site.served) == kinds


def test_a_build_that_waited_alone_takes_turns_with_one_that_comes() -> None:
    """From the moment at which a second build waits each has every other slot, the new one the first."""
    site = Site("*=1")
    assert site.limiter.try_take("a", VPC, 0, 0.0)
    for number in range(4):
        site.ask("a", f"a{number}")
    site.limiter.hand_out(0.0)
    site.limiter.give_back("a", VPC)
    site.limiter.hand_out(0.0)
    for number in range(2):
        site.ask("b", f"b{number}")
    site.limiter.hand_out(0.0)
    for name in ("a0", "b0", "a1", "b1", "a2"):
        assert site.served[-1] == name
        site.limiter.give_back(name[0], VPC)
        site.limiter.hand_out(0.0)
    assert site.served[-1] == "a3"


def test_a_limit_that_had_room_while_nobody_waited_keeps_nobody() -> None:
    """A slot that was given back unnoticed is there for whatever is queued later."""
    site = Site("vpc.*.*=1")
    assert site.limiter.try_take("a", VPC, 0, 0.0)
    waiter = site.ask("a", "leaves")
    site.limiter.hand_out(0.0)
    site.limiter.leave(waiter)
    assert not site.limiter.give_back("a", VPC), "nobody waits"
    site.ask("a", "comes")
    site.limiter.hand_out(0.0)
    assert site.served == ["comes"]


@pytest.mark.parametrize(("begun", "free"), [(None, True), (-30.0, False), (-70.0, True)])
def test_what_is_in_flight_counts_for_a_rate_if_its_start_is_known(begun: float | None, free: bool) -> None:
    """A request that began within the period leaves no room; one that began earlier does."""
    site = Site("*=1/m")
    site.limiter.occupy("a", VPC, begun=begun)
    assert site.limiter.try_take("a", VPC, 0, 0.0) == free


def test_the_limit_that_kept_a_request_last_is_told() -> None:
    """Of the limits of the service and of the build it is the one that had room last."""
    site = Site("*=2")
    site.limiter.open("a", parse_limits("vpc.*.*=1"))
    for subject in (VPC, NET):
        assert site.limiter.try_take("a", subject, 0, 0.0)
    site.ask("a", "waits", VPC)
    site.limiter.hand_out(0.0)
    queue = site.limiter.priority_queue("a", VPC)
    site.limiter.give_back("a", NET)
    site.limiter.hand_out(1.0)
    assert site.served == []
    site.limiter.give_back("a", VPC)
    site.limiter.hand_out(2.0)
    assert site.served == ["waits"]
    assert queue.kept_by is not None
    assert queue.kept_by.label == "options.limits vpc.*.*=1"


def test_nothing_is_tried_without_the_time_where_it_may_decide() -> None:
    """Only requests under no rate are taken without a look at the clock."""
    site = Site("vpc.*.*=1/s")
    assert site.limiter.try_counted("a", VPC) is None
    assert site.limiter.try_counted("a", NET) is True
    assert site.limiter.take_all("a", [VPC]) is None
    assert site.limiter.take_all("a", [NET, VPC]) is False, "which is first is left to the queue"
    assert site.limiter.taken == 1


def test_a_build_that_is_closed_leaves_nothing() -> None:
    """Its waiters go on without a slot, what it holds is free, and its usage is gone."""
    site = Site("*=1")
    site.limiter.open("a")
    assert site.limiter.try_take("a", VPC, 0, 0.0)
    site.ask("a", "waits")
    site.limiter.hand_out(0.0)
    site.limiter.close("a")
    assert site.dismissed == ["waits"]
    assert site.limiter.taken == site.limiter.waiters == len(site.limiter.usages) == 0
    assert not site.limiter.give_back("a", VPC)


def test_what_an_earlier_process_began_counts_under_a_builds_own_rates() -> None:
    """Not under those of the instance: it was counted where it began."""
    limiter = Limiter(parse_limits("*=1/m"), per_instance=99, per_build=99)
    limiter.open("b", parse_limits("vpc.*.*=2/m, net.*.*=1/m"))
    limiter.usages.recall("b", "vpc.create.aws", -50.0)
    assert limiter.try_take("b", "vpc.create.aws", 0, 0.0)
    limiter = Limiter((), per_instance=99, per_build=99)
    limiter.open("b", parse_limits("vpc.*.*=2/m, net.*.*=1/m"))
    limiter.usages.recall("b", "vpc.create.aws", -50.0)
    limiter.usages.recall("b", "", -40.0)
    assert not limiter.try_take("b", "vpc.create.aws", 0, 0.0)
    assert not limiter.try_take("b", "net.create.aws", 0, 0.0)
    assert limiter.try_take("b", "vpc.create.aws", 0, 10.1)
    assert limiter.try_take("b", "net.create.aws", 0, 20.1)
