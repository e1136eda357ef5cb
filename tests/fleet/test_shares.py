"""Shares of an instance in the limits over the fleet: what it may use, claims and gives up."""

from collections.abc import Collection, Mapping

import pytest

from scheduler.definition.rules import parse_limits
from scheduler.fleet.ledger import (
    Demand,
    Holder,
    ShareLedger,
    divide,
    encode_ledger,
    limits_of,
    read_ledger,
    rule_of,
)
from scheduler.fleet.shares import PATIENCE, Situation, Stake
from scheduler.limiter import Use

VPC = "vpc.create.*"
RATE = "vpc.*.*/m"


class Table:
    """The document, and the instances that share it; each write is stored at once, unless it is said."""

    def __init__(self, limits: Mapping[str, int], *names: str) -> None:
        self.ledger = ShareLedger()
        self.revision = 0
        self.writes = 0
        self.now = 0.0
        self.live = set(names)
        self.stakes = {name: Stake(name, limits) for name in names}
        self.use = {name: dict.fromkeys(limits, Use()) for name in names}

    def seen(
        self,
        name: str,
        awaited: Collection[str] = (),
        freed: Mapping[str, Collection[str]] | None = None,
    ) -> Situation:
        gone = {one for one, kinds in (freed or {}).items() if VPC in kinds}
        return Situation(self.now, self.use[name], self.live, awaited, freed or {}, gone)

    def turn(
        self,
        name: str,
        awaited: Collection[str] = (),
        freed: Mapping[str, Collection[str]] | None = None,
    ) -> bool:
        """Let one look, and write what it wants to; says whether it wrote."""
        stake = self.stakes[name]
        stake.read(self.ledger, self.revision)
        draft = stake.plan(self.seen(name, awaited, freed))
        if draft is None:
            return False
        stake.send(draft)
        self.store(name)
        stake.stored(self.revision)
        return True

    def store(self, name: str) -> None:
        draft = self.stakes[name].draft
        assert draft is not None
        self.ledger, self.revision, self.writes = draft, self.revision + 1, self.writes + 1

    def settle(self) -> None:
        """Let all take turns until nobody writes any more."""
        for _ in range(20):
            wrote = [self.turn(name) for name in sorted(self.live)]
            if not any(wrote):
                return
        raise AssertionError("they never stop writing")

    def want(self, name: str, used: int, waiting: int = 0, kind: str = VPC) -> None:
        self.use[name][kind] = Use(used, waiting)

    def has(self, kind: str = VPC) -> dict[str, int]:
        return {name: self.stakes[name].capacity(kind) for name in sorted(self.stakes)}


def test_one_alone_takes_the_whole_limit_with_one_write() -> None:
    """Nobody else is asked for anything, and nothing is written after that, busy or not."""
    table = Table({VPC: 5}, "a")
    assert table.has() == {"a": 0}
    table.settle()
    assert (table.has(), table.writes) == ({"a": 5}, 1)
    for use in (Use(5, 100), Use(2), Use()):
        table.use["a"][VPC] = use
        table.settle()
    assert table.writes == 1


def test_one_that_comes_gets_nothing_that_nobody_gave_up() -> None:
    """The share of the first stays while the second needs none, and nothing more is written."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    assert table.has() == {"a": 5, "b": 0}
    writes = table.writes
    table.settle()
    assert table.writes == writes


def test_what_an_idle_one_holds_goes_to_the_one_that_needs_it() -> None:
    """Just as much as is needed changes hands."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    table.want("b", 0, 3)
    table.settle()
    assert table.has() == {"a": 2, "b": 3}


def test_busy_ones_get_equal_parts() -> None:
    """What is left over of equal parts stays with the one that has it."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    for name in "ab":
        table.want(name, 0, 100)
    table.settle()
    assert table.has() == {"a": 3, "b": 2}


def test_a_request_in_flight_is_not_given_away() -> None:
    """Its unit stays reserved until it ends, although nothing new begins under it."""
    table = Table({VPC: 4}, "a", "b")
    table.settle()
    table.want("a", 4, 100)
    table.want("b", 0, 100)
    table.settle()
    assert table.has() == {"a": 2, "b": 0}
    table.want("a", 3, 100)
    table.settle()
    assert table.has() == {"a": 2, "b": 1}
    table.want("a", 2, 100)
    table.settle()
    assert table.has() == {"a": 2, "b": 2}


def test_where_there_is_one_unit_for_two_they_take_turns() -> None:
    """Nobody starves: each gives the only unit up when its request has ended, and the other waits."""
    table = Table({VPC: 1}, "a", "b")
    table.settle()
    served = []
    for _ in range(6):
        for name in "ab":
            table.want(name, 0, 100)
        for name in "ab":
            table.turn(name)
        for name in "ab":
            table.turn(name)
            if table.stakes[name].capacity(VPC):
                served.append(name)
    assert set(served[:3]) == {"a", "b"}
    assert abs(served.count("a") - served.count("b")) <= 1


def test_each_of_three_gets_one_of_two_units() -> None:
    """Over a few rounds all have had one, and never are there three."""
    table = Table({VPC: 2}, "a", "b", "c")
    table.settle()
    had = dict.fromkeys("abc", 0)
    for _ in range(12):
        for name in "abc":
            table.want(name, 0, 100)
            table.turn(name)
            for other in "abc":
                had[other] += table.stakes[other].capacity(VPC)
        assert sum(table.has().values()) <= 2
    assert min(had.values()) >= 8


def test_two_that_each_hold_what_the_other_needs_both_get_on() -> None:
    """Each is served in the end, as one that has its turn keeps it until all is there."""
    kinds = ["x.*.*", "y.*.*"]
    table = Table(dict.fromkeys(kinds, 1), "a", "b")
    table.settle()
    table.want("b", 0, 1, "y.*.*")
    table.settle()
    assert (table.has("x.*.*"), table.has("y.*.*")) == ({"a": 1, "b": 0}, {"a": 0, "b": 1})
    for name in "ab":
        for kind in kinds:
            table.want(name, 0, 9, kind)
    served = set()
    for _ in range(8):
        for name in "ab":
            table.turn(name)
            if all(table.stakes[name].capacity(kind) for kind in kinds):
                served.add(name)
        table.now += 1.0
    assert served == {"a", "b"}


def test_a_turn_ends_though_not_all_came_together() -> None:
    """One that holds the only unit of a limit, and waits long for another, lets the next one go before it."""
    kinds = ["x.*.*", "y.*.*"]
    table = Table(dict.fromkeys(kinds, 1), "a", "b", "c")
    table.settle()
    table.want("c", 0, 1, "y.*.*")
    table.settle()
    table.want("c", 1, 0, "y.*.*")
    for kind in kinds:
        table.want("a", 0, 9, kind)
    table.want("b", 0, 9, "x.*.*")
    for _ in range(5):
        for name in "abc":
            table.turn(name)
            assert table.has("x.*.*")["b"] == 0
    table.now += PATIENCE
    table.turn("a")
    table.turn("b")
    assert table.has("x.*.*")["b"] == 1


def test_a_lower_limit_of_one_holds_for_all() -> None:
    """The one that has more gives up what is beyond, and gets it back when the lower limit goes."""
    table = Table({VPC: 5}, "a", "b")
    table.stakes["b"].limits[VPC] = 3
    table.want("a", 5, 100)
    table.turn("a")
    assert table.has() == {"a": 5, "b": 0}
    table.turn("b")
    table.turn("a")
    assert table.has() == {"a": 3, "b": 0}
    assert table.stakes["a"].limit(VPC) == 3
    table.live.discard("b")
    table.turn("a", freed={"b": {VPC}})
    assert table.has() == {"a": 5, "b": 0}


def test_a_kind_that_only_others_limit_counts_as_well() -> None:
    """An instance without the rule counts it from when it hears of it; until then nobody claims it."""
    table = Table({VPC: 2}, "a", "b")
    table.stakes["a"].limits.clear()
    table.use["a"].clear()
    table.turn("a")
    table.want("b", 0, 2)
    table.turn("b", awaited="ab")
    assert table.has() == {"a": 0, "b": 0}
    table.stakes["a"].read(table.ledger, table.revision)
    assert table.stakes["a"].kinds() == {VPC}
    table.want("a", 2, 0)
    table.turn("a")
    table.want("b", 0, 2)
    table.turn("b", awaited="ab")
    assert table.has() == {"a": 1, "b": 0}
    table.want("a", 1, 0)
    table.turn("a")
    table.turn("b", awaited="ab")
    assert table.has() == {"a": 1, "b": 1}


def test_nothing_is_used_before_the_write_is_acknowledged() -> None:
    """A claim counts once it is stored; giving up counts from when it is sent."""
    table = Table({VPC: 4}, "a", "b")
    stake = table.stakes["a"]
    draft = stake.plan(table.seen("a"))
    assert draft is not None
    stake.send(draft)
    assert stake.capacity(VPC) == 0
    table.store("a")
    stake.stored(table.revision)
    assert stake.capacity(VPC) == 4
    table.want("b", 0, 100)
    table.turn("b")
    stake.read(table.ledger, table.revision)
    draft = stake.plan(table.seen("a"))
    assert draft is not None
    stake.send(draft)
    assert stake.capacity(VPC) == 0


def test_a_write_without_an_answer_counts_until_the_document_moved_on() -> None:
    """What was read meanwhile does not say that it is not stored later: the same is sent again."""
    table = Table({VPC: 4}, "a", "b")
    table.settle()
    table.want("b", 0, 4)
    table.turn("b")
    stake = table.stakes["a"]
    stake.read(table.ledger, table.revision)
    draft = stake.plan(table.seen("a"))
    assert draft is not None
    stake.send(draft)
    stake.read(table.ledger, table.revision)
    assert stake.capacity(VPC) == 0
    table.want("a", 0, 4)
    assert stake.plan(table.seen("a")) is draft
    table.revision += 1
    stake.read(table.ledger, table.revision)
    assert stake.capacity(VPC) == 4


def test_an_older_document_changes_nothing() -> None:
    """A server that was behind does not give back what was given up since."""
    table = Table({VPC: 4}, "a", "b")
    table.settle()
    old = table.ledger, table.revision
    table.want("b", 0, 4)
    table.settle()
    assert table.has() == {"a": 0, "b": 4}
    assert not table.stakes["a"].read(*old)
    assert table.has() == {"a": 0, "b": 4}


def test_a_suspended_one_uses_nothing_until_it_has_written_itself_in() -> None:
    """Its share is claimed anew, with what it has in flight counted."""
    table = Table({VPC: 5}, "a")
    table.settle()
    table.want("a", 2, 9)
    table.stakes["a"].suspend()
    assert table.has() == {"a": 0}
    assert table.turn("a")
    assert table.has() == {"a": 5}


def test_one_that_is_suspended_while_it_writes_itself_in_stays_suspended() -> None:
    """The answer to the earlier write does not end the later suspension."""
    table = Table({VPC: 5}, "a")
    stake = table.stakes["a"]
    draft = stake.plan(table.seen("a"))
    assert draft is not None
    stake.send(draft)
    stake.suspend()
    table.store("a")
    stake.stored(table.revision)
    assert table.has() == {"a": 0}
    table.settle()
    assert table.has() == {"a": 5}


def test_one_that_others_take_from_writes_itself_in_after_that() -> None:
    """A live instance that lost builds does not know what of them is in flight before it is counted."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    table.want("a", 3, 9)
    table.stakes["b"].taking["a"] = 1
    table.turn("b")
    table.stakes["a"].suspend()
    table.want("a", 0, 9)
    assert not table.turn("a")
    table.want("b", 3)
    del table.stakes["b"].taking["a"]
    table.turn("b")
    assert table.turn("a")
    assert table.has() == {"a": 2, "b": 0}


def test_two_that_take_from_each_other_do_not_wait_for_each_other() -> None:
    """While it is suspended one still ends its taking over, and reserves what it counted by that."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    for taker, owner in ("ab", "ba"):
        table.stakes[taker].taking[owner] = 1
        table.turn(taker)
        table.stakes[taker].suspend()
    for taker in "ab":
        assert not table.turn(taker)
    table.stakes["a"].taking.clear()
    table.want("a", 7)
    assert table.turn("a")
    assert table.stakes["a"].suspended
    assert table.ledger.holders["a"].total(VPC) == 7
    table.stakes["b"].taking.clear()
    table.settle()
    assert not any(stake.suspended for stake in table.stakes.values())


def test_what_a_dead_one_holds_stays_reserved_until_it_is_freed() -> None:
    """Only then the living share it."""
    table = Table({VPC: 5}, "a", "b")
    table.settle()
    table.live.discard("a")
    table.want("b", 0, 9)
    table.settle()
    assert table.has()["b"] == 0
    table.turn("b", freed={"a": {VPC}})
    assert table.has()["b"] == 5
    assert set(table.ledger.holders) == {"b"}


def test_nothing_is_freed_while_somebody_takes_over() -> None:
    """Requests of the dead one may not be counted yet."""
    table = Table({VPC: 5}, "a", "b", "c")
    table.settle()
    table.live.discard("a")
    table.stakes["c"].taking["a"] = 1
    table.turn("c")
    table.want("b", 0, 9)
    table.turn("b", freed={"a": {VPC}})
    assert (table.has()["b"], "a" in table.ledger.holders) == (0, True)
    del table.stakes["c"].taking["a"]
    table.want("c", 4)
    table.turn("c")
    table.turn("b", freed={"a": {VPC}})
    assert (table.has()["b"], "a" in table.ledger.holders) == (1, False)


def test_dead_ones_that_took_from_each_other_are_freed() -> None:
    """What they were about to count was counted by those that took over from them."""
    table = Table({VPC: 5}, "a", "b", "c")
    table.settle()
    for taker, owner in ("ab", "ba"):
        table.stakes[taker].taking[owner] = 1
        table.turn(taker)
    table.live -= {"a", "b"}
    table.turn("c", freed={"a": {VPC}})
    assert set(table.ledger.holders) == {"a", "b", "c"}
    table.turn("c", freed={"a": {VPC}, "b": {VPC}})
    assert set(table.ledger.holders) == {"c"}
    assert table.has()["c"] == 5


def test_what_was_taken_over_gives_no_room_when_it_ends() -> None:
    """It may have ended long ago, and its unit be in use by another request of the dead one."""
    table = Table({VPC: 1}, "a", "b")
    table.settle()
    table.live.discard("a")
    table.stakes["b"].taking["a"] = 1
    table.turn("b")
    table.want("b", 1, 9)
    del table.stakes["b"].taking["a"]
    table.turn("b")
    table.want("b", 0, 9)
    table.settle()
    assert table.has()["b"] == 0
    table.turn("b", freed={"a": {VPC}})
    assert table.has()["b"] == 1


def test_a_dead_one_keeps_the_kinds_that_are_not_freed() -> None:
    """Starts of a rate are reserved for their period, requests for as long as builds are not taken over."""
    table = Table({VPC: 5, RATE: 7}, "a", "b")
    table.settle()
    table.live.discard("a")
    table.turn("b", freed={"a": {RATE}})
    assert (table.has(RATE)["b"], table.has(VPC)["b"]) == (7, 0)
    assert table.ledger.holders["a"].shares == {VPC: 5}


def test_one_that_leaves_frees_all_but_what_it_began_lately() -> None:
    """What it began under a rate stays reserved until the others find that a period is over."""
    table = Table({VPC: 5, RATE: 7}, "a", "b")
    table.settle()
    table.want("a", 3, 0, RATE)
    stake = table.stakes["a"]
    draft = stake.end(table.use["a"])
    assert draft is not None
    stake.send(draft)
    assert (stake.capacity(VPC), stake.capacity(RATE)) == (0, 0)
    table.store("a")
    table.live.discard("a")
    table.turn("b")
    assert (table.has(VPC)["b"], table.has(RATE)["b"]) == (5, 4)
    assert table.stakes["b"].limit(VPC) == 5


def test_one_that_is_taking_over_leaves_nothing_free() -> None:
    """What it was about to count is counted by those that come after it."""
    table = Table({VPC: 5}, "a")
    table.settle()
    table.stakes["a"].taking["z"] = 1
    assert table.stakes["a"].end(table.use["a"]) is None


def test_a_bucket_that_was_made_again_begins_from_nothing() -> None:
    """Nothing is used before this instance stands in the new document."""
    table = Table({VPC: 5}, "a")
    table.settle()
    table.stakes["a"].reset(ShareLedger(), 0)
    assert table.has() == {"a": 0}
    table.ledger, table.revision = ShareLedger(), 0
    table.settle()
    assert table.has() == {"a": 5}


@pytest.mark.parametrize(
    ("units", "demands", "parts"),
    [
        (5, {"a": Demand(9, 5, 0), "b": Demand(0, 0, 0)}, {"a": 5, "b": 0}),
        (5, {"a": Demand(9, 2, 0), "b": Demand(9, 3, 0)}, {"a": 2, "b": 3}),
        (10, {"a": Demand(9, 0, 0), "b": Demand(2, 0, 0), "c": Demand(9, 0, 0)}, {"a": 4, "b": 2, "c": 4}),
        (1, {"a": Demand(9, 1, 2), "b": Demand(9, 0, 1)}, {"a": 0, "b": 1}),
        (0, {"a": Demand(9, 1, 2), "b": Demand(9, 0, 1)}, {"a": 0, "b": 0}),
        (9, {"a": Demand(2, 9, 0), "b": Demand(3, 0, 0)}, {"a": 2, "b": 3}),
    ],
)
def test_units_are_divided_by_what_is_wanted(
    units: int, demands: dict[str, Demand], parts: dict[str, int]
) -> None:
    """Nobody gets more than it wants, and those that want more get equal parts."""
    assert divide(units, demands) == parts


def test_a_document_is_read_as_it_was_written() -> None:
    """A later version's, and anything else, is not read, and so never written over."""
    ledger = ShareLedger(holders={"a": Holder("n", 3, 1, {VPC: 5}, {VPC: 2}, {VPC: 1}, {VPC: 4}, 7, ("z",))})
    assert read_ledger(encode_ledger(ledger)) == ledger
    assert read_ledger(encode_ledger(ShareLedger(version=2))) is None
    assert read_ledger(b"[]") is None


@pytest.mark.parametrize("text", ["vpc.create.*=5", "*=500", "*.create.aws=20/s", "*=3/h"])
def test_a_rule_is_its_kind_and_its_number(text: str) -> None:
    """Both together give the rule again."""
    (rule,) = parse_limits(text)
    assert rule_of(rule.kind, rule.count) == rule


def test_of_several_rules_of_a_kind_the_lowest_counts() -> None:
    """As in one instance, where each holds."""
    assert limits_of(parse_limits("vpc.*.*=5, vpc.*.*=3, vpc.*.*=9/s")) == {"vpc.*.*": 3, "vpc.*.*/s": 9}
