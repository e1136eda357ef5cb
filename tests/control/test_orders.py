"""Each order of an operator is carried out once, and not after its expiry."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import time
from typing import Any

import pytest
import trio
from attrs import define, field
from structlog.testing import capture_logs
from support.asking import CHAIN, STEERING, ask, ask_raw, flaky, refused, running
from support.durable import Plant, until
from support.fakes import JSON, FakeStore, encode, ignore
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.control import verbs
from scheduler.control.endpoint import VERBS
from scheduler.control.orders import ALLOWANCE, OrderBook
from scheduler.control.registry import json_schema
from scheduler.errors import CarriedOut, Fenced, Refused, StoreUnavailable
from scheduler.journal.events import Paused
from scheduler.journal.orders import Order, Orders

PAUSE = verbs.Pause(id="b1", order="o1")
ORDER = Order("pause", id="o1")
DONE = verbs.Done(id="b1", status="paused", text="paused: nothing new is sent")


@define
class FakeSeen:
    """Build as it is found."""

    orders: Orders = field(factory=Orders)
    status: str = "running"


@define
class Desk:
    """An order book, and what was carried out by it."""

    now: float = 1_000.0
    seen: FakeSeen = field(factory=FakeSeen)
    acts: int = 0
    outcome: verbs.Done | Exception = DONE
    gate: trio.Event | None = None
    book: OrderBook = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.book = OrderBook(self, lambda: self.now)  # type: ignore[arg-type]

    async def find(self, build: str) -> FakeSeen:
        """Implement `BuildFinder.find`."""
        return self.seen

    async def act(self) -> verbs.Done:
        """Carry it out."""
        self.acts += 1
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    async def give(self, command: verbs.Command = PAUSE, order: Order = ORDER) -> verbs.Done:
        """Give an order."""
        return await self.book.carry_out(command, order, self.act)

    async def give_and_catch(self) -> verbs.Done | Exception:
        """Give an order, and return what comes of it."""
        try:
            return await self.give()
        except Exception as error:  # noqa: BLE001 - a test looks at it
            return error


# The book alone.


async def test_an_order_that_comes_again_is_answered_in_the_same_words(autojump_clock: MockClock) -> None:
    """And is not carried out again."""
    desk = Desk()
    assert [await desk.give(), await desk.give()] == [DONE, DONE]
    assert desk.acts == 1


async def test_orders_without_an_id_are_carried_out_each_time(autojump_clock: MockClock) -> None:
    """As older clients give them."""
    desk = Desk()
    for _ in range(2):
        await desk.give(verbs.Pause(id="b1"), Order("pause"))
    assert desk.acts == 2


@pytest.mark.parametrize(
    ("command", "order"),
    [
        (verbs.Pause(id="b2", order="o1"), ORDER),
        (verbs.Pause(id="b1", order="o2"), Order("pause", id="o2")),
        (verbs.Resume(id="b1", order="o1"), Order("resume", id="o1")),
    ],
)
async def test_other_orders_are_carried_out(
    autojump_clock: MockClock, command: verbs.Command, order: Order
) -> None:
    """Of another build, id or verb."""
    desk = Desk()
    await desk.give()
    await desk.give(command, order)
    assert desk.acts == 2


@pytest.mark.parametrize("outcome", [DONE, Refused("conflict", "it is paused already")])
async def test_a_copy_at_the_same_moment_waits_for_the_first(
    autojump_clock: MockClock, outcome: verbs.Done | Exception
) -> None:
    """Each copy has the same answer, or is refused alike."""
    desk, answers = Desk(outcome=outcome, gate=trio.Event()), []
    assert desk.gate is not None

    async def give() -> None:
        answers.append(await desk.give_and_catch())

    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(give)
        await wait_all_tasks_blocked()
        assert answers == []
        desk.gate.set()
    assert desk.acts == 1
    assert len(answers) == 3
    assert {str(one) for one in answers} == {str(outcome)}


@pytest.mark.parametrize("outcome", [Refused("unavailable", "later"), StoreUnavailable("no answer")])
async def test_a_copy_is_carried_out_where_the_first_one_failed(
    autojump_clock: MockClock, outcome: Exception
) -> None:
    """What was wrong may be over."""
    desk = Desk(outcome=outcome)
    assert await desk.give_and_catch() is outcome
    desk.outcome = DONE
    assert await desk.give() == DONE


async def test_a_copy_is_carried_out_where_the_first_one_was_abandoned(autojump_clock: MockClock) -> None:
    """Nothing is left of one whose time was up."""
    desk = Desk(gate=trio.Event())
    with trio.move_on_after(1):
        await desk.give()
    desk.gate = None
    assert await desk.give() == DONE


async def test_answers_are_forgotten_after_two_minutes(autojump_clock: MockClock) -> None:
    """And the oldest where there are many."""
    desk = Desk()
    await desk.give()
    await trio.sleep(121)
    await desk.give()
    assert desk.acts == 2
    for number in range(1_000):
        await desk.give(verbs.Pause(id="b1", order=f"p{number}"), Order("pause", id=f"p{number}"))
    await desk.give()
    assert desk.acts == 1_003


async def test_of_one_that_the_log_knows_the_time_is_told(autojump_clock: MockClock) -> None:
    """Where no words are remembered."""
    desk = Desk(outcome=CarriedOut(1_800_000_000.0))
    answer = await desk.give()
    assert answer.text == "carried out already at 2027-01-15T08:00:00Z"
    assert answer.status == "running"


async def test_another_process_may_have_carried_out_another_copy(autojump_clock: MockClock) -> None:
    """It has written to the log in between; whether it was because of this order the log says."""
    desk = Desk(outcome=Fenced("another process"))
    assert isinstance(await desk.give_and_catch(), Fenced)
    desk.seen.orders.add(Order("pause", 1_800_000_000.0, id="o1"))
    assert (await desk.give()).text.startswith("carried out already")


@pytest.mark.parametrize(
    ("late", "taken"), [(-30.0, True), (0.0, True), (ALLOWANCE, True), (ALLOWANCE + 0.1, False)]
)
async def test_an_expired_order_is_refused(autojump_clock: MockClock, late: float, taken: bool) -> None:
    """Clocks may be apart by half a minute; an id is not needed for that."""
    desk = Desk()
    command = verbs.Pause(id="b1", expires=desk.now - late)
    if taken:
        assert await desk.give(command, Order("pause")) == DONE
    else:
        with pytest.raises(Refused, match=r"it expired 30\.1s ago, by its sender's clock") as caught:
            await desk.give(command, Order("pause"))
        assert caught.value.code == "expired"
        assert desk.acts == 0


# The service.


def test_every_command_takes_an_id_and_an_expiry() -> None:
    """On the wire, as `order` and `expires`."""
    for verb in STEERING:
        assert {"order", "expires"} <= set(json_schema(VERBS[verb].request)["properties"])


@pytest.mark.parametrize("id_", ["", "x" * 65, "a b", "ä", 5])
async def test_an_id_that_is_none_is_refused(id_: Any) -> None:
    """It has to fit into a header of the log."""
    async with running() as site:
        code, text = await refused(site, "pause", order=id_)
    assert code == "invalid"
    assert text == "order: a text of 1 to 64 letters, digits, - or _"


async def test_an_order_that_comes_twice_is_in_the_history_once() -> None:
    """With its id; between the copies the build may have been resumed, and it stays so."""
    async with running() as site:
        first = await ask(site, "pause", order="o1")
        await ask(site, "resume", order="o2")
        assert await ask(site, "pause", order="o1") == first
        assert (await ask(site, "get"))["status"] == "running"
        orders = (await ask(site, "history"))["orders"]
    assert [(one["verb"], one["order"]) for one in orders] == [("pause", "o1"), ("resume", "o2")]


async def test_an_expired_order_changes_nothing_and_is_logged() -> None:
    """The log of the service has its code and its text."""
    async with running() as site:
        with capture_logs() as lines:
            code, _ = await refused(site, "pause", order="o1", expires=time.time() - 60)
        assert code == "expired"
        assert (await ask(site, "get"))["status"] == "running"
    [line] = [one for one in lines if one["event"] == "an operator was refused"]
    assert (line["code"], line["build"], line["log_level"]) == ("expired", "b1", "warning")


async def test_an_order_without_expiry_is_taken() -> None:
    """As `nats req` sends it."""
    async with running() as site:
        assert (await ask_raw(site, "pause", encode({"id": "b1"}))).body["status"] == "paused"


async def test_an_order_is_known_after_a_restart(autojump_clock: MockClock) -> None:
    """To the process that takes the build up, which has its id from the log."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await ask(process, "pause", order="o1")
        await ask(process, "resume", order="o2")
    async with plant.run() as process:
        await trio.sleep(1)
        answer = await ask(process, "pause", order="o1")
        assert answer["text"].startswith("carried out already at 20")
        assert (await ask(process, "get"))["status"] == "running"
        assert len((await ask(process, "history"))["orders"]) == 2


async def test_a_cancel_is_known_after_the_end(autojump_clock: MockClock) -> None:
    """Of a build that is finished by then, also after a restart."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(1)
        first = await ask(process, "cancel", now=True, order="o1")
        await until(lambda: process.reports)
        await trio.sleep(1)
        assert await ask(process, "cancel", now=True, order="o1") == first
    async with plant.run() as process:
        answer = await ask(process, "cancel", now=True, order="o1")
        assert answer["text"].startswith("carried out already at 20")
        assert answer["status"] == "cancelled"


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(("verb", "fields"), [("retry", {}), ("skip", {"component": "b"})])
async def test_a_finished_build_is_reopened_once(
    autojump_clock: MockClock, verb: str, fields: JSON, restarted: bool
) -> None:
    """Although the copy comes when that run has ended, too."""
    plant = Plant(flaky("b", 2))
    async with plant.run() as process:
        await process.submit(CHAIN)
        await until(lambda: process.reports)
        await trio.sleep(1)
        first = await ask(process, verb, order="o1", **fields)
        assert first["text"].startswith("run 2 begins")
        await until(lambda: len(process.reports) == 2)
        await trio.sleep(10)
        if not restarted:
            assert await ask(process, verb, order="o1", **fields) == first
    if restarted:
        async with plant.run() as process:
            await trio.sleep(1)
            answer = await ask(process, verb, order="o1", **fields)
            assert answer["text"].startswith("carried out already at 20")
            await trio.sleep(10)
            assert process.reports == []


async def test_an_order_that_was_not_persisted_does_not_count() -> None:
    """It is not in the history, and its copy is not told that it was carried out."""
    store = FakeStore()
    async with running(store=store) as site:
        store.fail(lambda event: isinstance(event, Paused), StoreUnavailable("gone"))
        assert (await refused(site, "pause", order="o1"))[0] == "unavailable"
        assert (await refused(site, "pause", order="o1"))[0] == "conflict"
        assert (await ask(site, "history"))["orders"] == []
