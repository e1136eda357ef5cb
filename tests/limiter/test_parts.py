"""Limits over all instances: the part of this one changes while requests are in flight."""

import math
import sys
from functools import partial
from typing import Any

import pytest

from scheduler.definition.rules import LimitRule, parse_limits
from scheduler.limiter import (
    Limiter,
    Part,
    Use,
    adopt,
    allot,
    blocking,
    counting,
    note_of,
    standing,
    stretched,
    use_of,
    wanting,
)

VPC = "vpc.create.aws"
NET = "net.create.aws"


class Site:
    """A limiter, and the requests that it let begin, in order."""

    def __init__(self, rules: str = "", **bounds: Any) -> None:
        bounds = {"per_instance": sys.maxsize, "per_build": sys.maxsize, **bounds}
        self.limiter = Limiter(parse_limits(rules), **bounds)
        self.served: list[str] = []

    def ask(self, build: str, name: str, subject: str = VPC, now: float = 0.0) -> None:
        self.limiter.call(self.limiter.queue(build, subject, 0.0, partial(self._ended, name)))
        self.limiter.hand_out(now)

    def give_back(self, build: str, subject: str = VPC, now: float = 0.0) -> None:
        if self.limiter.give_back(build, subject):
            self.limiter.hand_out(now)

    def allot(self, text: str, size: int, now: float = 0.0, note: str = "") -> None:
        rule = rule_of(text)
        allot(self.limiter, {rule.kind: Part(size, rule, note)}, now)

    def _ended(self, name: str, served: bool) -> None:
        if served:
            self.served.append(name)


def use(site: Site, now: float) -> dict[str, Use]:
    """Return what is used and wanted now."""
    return use_of(site.limiter, now, next(reversed([*wanting(site.limiter, now)]), {}))


def rule_of(text: str) -> LimitRule:
    (rule,) = parse_limits(text)
    return rule


def test_the_kind_of_a_rule_is_all_but_its_number() -> None:
    """Rules of one kind differ only in how many they allow."""
    kinds = [rule.kind for rule in parse_limits("vpc.create.*=5, *=500, *.create.aws=20/s")]
    assert kinds == ["vpc.create.*", "*", "*.create.aws/s"]


def test_a_larger_part_lets_those_begin_that_wait() -> None:
    """What waits for a limit begins as soon as the part of this instance grows."""
    site = Site("vpc.*.*=5")
    site.allot("vpc.*.*=5", 0)
    for number in range(3):
        site.ask("a", str(number))
    assert site.served == []
    site.allot("vpc.*.*=5", 2)
    assert site.served == ["0", "1"]


def test_a_part_below_what_is_in_flight_lets_nothing_begin_until_it_fits() -> None:
    """Nothing is taken back: each end counts, and the next begins when there is room within the part."""
    site = Site("vpc.*.*=3")
    for number in range(5):
        site.ask("a", str(number))
    site.allot("vpc.*.*=3", 1)
    site.give_back("a")
    site.give_back("a")
    assert site.served == ["0", "1", "2"]
    site.give_back("a")
    assert site.served == ["0", "1", "2", "3"]


def test_a_smaller_part_of_a_rate_counts_what_began() -> None:
    """The next start is a period after the one that is a part's size before it."""
    site = Site("vpc.*.*=3/s")
    for number, now in enumerate((0.0, 0.1, 0.2)):
        site.ask("a", str(number), now=now)
    site.allot("vpc.*.*=3/s", 1, 0.3)
    site.ask("a", "later", now=0.3)
    assert site.limiter.due == 0.2 + stretched(1.0)
    site.limiter.follow_alarms(0.1 + stretched(1.0))
    assert len(site.served) == 3
    site.limiter.follow_alarms(0.2 + stretched(1.0))
    assert site.served[3:] == ["later"]


def test_no_part_of_a_rate_waits_for_a_larger_one_alone() -> None:
    """There is no time at which nothing becomes something; the part that grows wakes who waits."""
    site = Site("vpc.*.*=3/s")
    site.allot("vpc.*.*=3/s", 0)
    site.ask("a", "waits")
    assert site.limiter.due == math.inf
    site.limiter.hand_out(100.0)
    assert site.served == []
    site.allot("vpc.*.*=3/s", 1, 100.0)
    assert site.served == ["waits"]


def test_a_larger_part_of_a_rate_is_not_kept_by_an_old_alarm() -> None:
    """An alarm that was set for the smaller part does not keep the larger one waiting."""
    site = Site("vpc.*.*=2/h")
    site.allot("vpc.*.*=2/h", 1)
    for number in range(3):
        site.ask("a", str(number))
    assert site.served == ["0"]
    site.allot("vpc.*.*=2/h", 2, 1.0)
    assert site.served == ["0", "1"]
    assert site.limiter.due == stretched(3_600.0)


def test_starts_of_the_last_period_are_in_use() -> None:
    """A unit of a rate is free for others a stretched period after its start."""
    site = Site("vpc.*.*=3/s")
    site.ask("a", "0", now=0.0)
    site.ask("a", "1", now=0.5)
    assert use(site, 0.5) == {"vpc.*.*/s": Use(2, 0)}
    assert use(site, stretched(1.0)) == {"vpc.*.*/s": Use(1, 0)}


def test_what_only_a_limit_over_all_instances_keeps_is_wanted() -> None:
    """Requests that wait are told apart from those that a limit of their build keeps, too."""
    site = Site("vpc.*.*=5, net.*.*=5", per_build=3)
    site.allot("vpc.*.*=5", 0)
    site.allot("net.*.*=5", 0)
    site.limiter.open("b", parse_limits("vpc.*.*=1"))
    for number in range(4):
        site.ask("a", str(number))
        site.ask("b", str(number))
    site.ask("a", "net", NET)
    assert use(site, 0.0) == {"vpc.*.*": Use(0, 3 + 1), "net.*.*": Use(0, 1)}


def test_nothing_is_wanted_while_the_instance_is_full() -> None:
    """What the instance has no room for asks nothing of others."""
    site = Site("vpc.*.*=5", per_instance=1)
    site.ask("a", "first")
    site.ask("a", "second")
    assert use(site, 0.0) == {"vpc.*.*": Use(1, 0)}


def test_another_rule_counts_what_is_in_flight_and_keeps_what_waits() -> None:
    """A rule that comes while requests are in flight counts them, and what it kept before stays queued."""
    site = Site("vpc.*.*=1")
    for name, subject in (("0", VPC), ("1", VPC), ("2", NET)):
        site.ask("a", name, subject)
    assert site.served == ["0", "2"]
    adopt(site.limiter, parse_limits("vpc.*.*=1, *.create.aws=2"))
    site.limiter.hand_out(0.0)
    assert use(site, 0.0) == {"vpc.*.*": Use(1, 1), "*.create.aws": Use(2, 1)}
    site.give_back("a", VPC)
    assert site.served == ["0", "2", "1"]
    site.ask("a", "3", NET)
    assert blocking(site.limiter.usages, "a", NET, 0.0) == ["*.create.aws=2"]


def test_a_rule_that_goes_lets_those_begin_that_only_it_kept() -> None:
    """What another instance limited is free once nobody limits it, in the order in which it waited."""
    site = Site("*.create.aws=1")
    for name, build in (("0", "a"), ("1", "a"), ("2", "b")):
        site.ask(build, name)
    adopt(site.limiter, ())
    site.limiter.hand_out(0.0)
    assert sorted(site.served) == ["0", "1", "2"]
    for build in ("a", "a", "b"):
        site.give_back(build)
    assert (site.limiter.taken, site.limiter.waiters) == (0, 0)


def test_a_rate_keeps_what_it_counted_beside_a_new_rule() -> None:
    """A limit of a kind that stays is the same one, with its starts."""
    site = Site("vpc.*.*=1/s")
    site.ask("a", "0")
    site.ask("a", "1")
    adopt(site.limiter, parse_limits("net.*.*=1, vpc.*.*=1/s"))
    site.limiter.hand_out(0.5)
    assert site.served == ["0"]
    site.limiter.follow_alarms(stretched(1.0))
    assert site.served == ["0", "1"]


def test_builds_of_all_senders_go_on_beside_a_new_rule() -> None:
    """Waiters of every build are queued again, and the queues are empty once all are served."""
    site = Site("*=1")
    for sender in ("x", "y"):
        for build in ("1", "2"):
            site.limiter.open(sender + build, (), sender)
            for number in range(3):
                site.ask(sender + build, f"{sender}{build}{number}")
    adopt(site.limiter, parse_limits("vpc.*.*=1"))
    site.limiter.hand_out(0.0)
    while len(site.served) < 12:
        site.give_back(site.served[-1][:2])
    assert len(set(site.served)) == 12
    assert site.limiter.waiters == 0


@pytest.mark.parametrize(("note", "said"), [("", "vpc.*.*=3"), ("1 here", "vpc.*.*=3 (1 here)")])
def test_a_limit_says_what_part_is_for_this_instance(note: str, said: str) -> None:
    """The note of a part follows the limit as the fleet has it, not as the setting wrote it."""
    site = Site("vpc.*.*=5")
    site.allot("vpc.*.*=3", 0, note=note)
    (label,) = blocking(site.limiter.usages, "a", VPC, 0.0)
    assert (label, note_of(site.limiter, label)) == ("vpc.*.*=3", said)


def test_waiting_requests_are_counted_in_slices() -> None:
    """Of thousands of builds each slice has some hundreds, and the last numbers are complete."""
    limiter = Limiter(parse_limits("vpc.create.*=5, *.*.aws=10"), per_instance=1_000, per_build=500)
    for number in range(2_000):
        limiter.open(number)
        for kind in ("vpc", "net"):
            limiter.queue(number, f"{kind}.create.aws", 1.0, lambda _: None)
        limiter.call_all(number)
    limiter.hand_out(0.0)
    steps = [dict(found) for found in counting(limiter)]
    assert len(steps) >= 4
    assert steps[-1]["*.*.aws"] == limiter.waiters == 4_000 - 10
    assert standing(limiter, 0.0)["*.*.aws"] == (10, 10)
