"""What operators had done to a build: by whom and why, while it runs, afterwards, and after restarts."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs
from support.asking import CHAIN, NEEDED, STEERING, ask, flaky, refused, running
from support.durable import Fate, Plant, until
from support.fakes import JSON, document, encode, ignore
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.control.endpoint import VERBS
from scheduler.control.registry import json_schema
from scheduler.jetstream.api import JetStream
from scheduler.journal.orders import ORDER_CARRIED_OUT, Order
from scheduler.recovery.crash_loops import MOST_HANGS, record_hang, release

SAID = {"by": "anna@desk", "reason": "waiting for quota"}


async def history(site: Any, build: str = "b1", **fields: Any) -> list[JSON]:
    """Return the orders, each without its time, which must be one."""
    orders: list[JSON] = (await ask(site, "history", build, **fields))["orders"]
    assert all(isinstance(one.pop("time"), float) for one in orders)
    return orders


async def test_each_order_is_in_the_history() -> None:
    """With its component, who claims to have given it, and why; what was refused is not."""
    async with running(document("ab", [("a", "b")])) as site:
        for verb in ("pause", "resume", "extend", "limit", "skip", "cancel"):
            await ask(site, verb, **NEEDED.get(verb, {}), by="anna", reason=f"to {verb}")
        await refused(site, "pause", by="bob")
        orders = await history(site)
    assert [one["verb"] for one in orders] == ["pause", "resume", "extend", "limit", "skip", "cancel"]
    assert orders[0] == {"verb": "pause", "by": "anna", "vouched": False, "reason": "to pause"}
    assert orders[2]["component"] == "a"


async def test_a_secret_in_a_reason_is_masked() -> None:
    """As it is in the reason of a cancelled build; in a name, too."""
    secret = "hunter2hunter2"
    value = document(["a"])
    value["changes"][0]["password"] = secret
    async with running(value) as site:
        await ask(site, "pause", by=f"anna {secret}", reason=f"it is {secret}")
        [order] = await history(site)
        assert secret not in json.dumps(order)
        assert "***" in order["reason"]
        assert secret not in json.dumps(await ask(site, "get"))


async def test_the_state_of_a_build_names_its_order() -> None:
    """The pause while it is paused, although its limits were changed since; else the last one."""
    async with running() as site:
        assert (await ask(site, "get"))["order"] is None
        await ask(site, "pause", **SAID)
        await ask(site, "limit", limits={"*": 3})
        order = (await ask(site, "get"))["order"]
        assert (order["verb"], order["by"], order["reason"]) == ("pause", SAID["by"], SAID["reason"])
        why = (await ask(site, "why"))["reasons"][0]["text"]
        assert "paused by anna@desk (claimed): waiting for quota; nothing new" in why
        await ask(site, "resume")
        assert (await ask(site, "get"))["order"]["verb"] == "resume"


async def test_watchers_are_told_who_it_was() -> None:
    """The event of an order has its name and its reason."""
    async with running() as site:
        heard: list[JSON] = []

        def hear(message: Message) -> None:
            heard.extend(json.loads(message.data)["events"])

        await site.bus.subscribe("scheduler.event.b1", hear)
        await ask(site, "pause", **SAID)
        await trio.sleep(0.3)
        [event] = [one for one in heard if one.get("event") == "paused"]
        assert (event["by"], event["reason"]) == tuple(SAID.values())
        assert "vouched" not in event


async def test_the_broker_s_word_goes_before_a_claim() -> None:
    """It is believed of a request from another account alone."""
    headers = {"Nats-Request-Info": json.dumps({"acc": "TEAM", "user": "anna"})}
    async with running() as site:
        for verb, reply in (("pause", "_R_.x.1"), ("resume", "_INBOX.x.1")):
            data = encode({"id": "b1", "by": "root"})
            site.bus.publish(f"scheduler.build.{verb}", data, reply=reply, headers=headers)
            await wait_all_tasks_blocked()
        first, second = await history(site)
    assert (first["by"], first["vouched"], first["claim"]) == ("TEAM/anna", True, "root")
    assert (second["by"], second["vouched"]) == ("root", False)


async def test_pages_of_a_history() -> None:
    """They begin and end where the question says."""
    async with running() as site:
        for _ in range(3):
            await ask(site, "limit", limits={"*": 3})
        page = await ask(site, "history", limit=2)
        assert (len(page["orders"]), page["next"], page["dropped"]) == (2, 2, 0)
        rest = await ask(site, "history", "b1", **{"from": 2})
        assert (len(rest["orders"]), rest["next"]) == (1, None)
        assert await refused(site, "history", "nobody") == ("unknown", "there is no build 'nobody' here")


async def test_a_build_that_has_ended_in_memory_has_its_history() -> None:
    """As long as its report is kept."""
    async with running(document(["a"])) as site:
        await ask(site, "pause", **SAID)
        await ask(site, "resume")
        site.cloud.answer("a")
        await wait_all_tasks_blocked()
        assert not site.service.roster.ids()
        assert [one["verb"] for one in await history(site)] == ["pause", "resume"]


async def test_a_history_survives_restarts_and_new_runs(autojump_clock: MockClock) -> None:
    """What each process was told is in the log, and what began a run as well."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await ask(process, "pause", **SAID)
    async with plant.run(flaky("a", 1)) as process:
        await trio.sleep(1)
        order = (await ask(process, "get"))["order"]
        assert (order["verb"], order["by"], order["reason"]) == ("pause", *SAID.values())
        await ask(process, "cancel", now=True)
        await until(lambda: process.reports)
        await trio.sleep(1)
        await ask(process, "retry", by="bob", reason="quota is there")
        await until(lambda: len(process.reports) == 2)
    async with plant.run() as process:
        orders = await history(process)
        assert [(one["verb"], one.get("by")) for one in orders] == [
            ("pause", SAID["by"]),
            ("cancel", None),
            ("retry", "bob"),
        ]
        # Of what the process had told, nothing is written twice.
        assert await history(process) == orders


async def test_a_second_cancel_is_in_the_log(autojump_clock: MockClock) -> None:
    """Although no event follows from it."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
        await trio.sleep(1)
        await ask(process, "cancel", reason="first")
        await ask(process, "cancel", now=True, reason="second")
        await until(lambda: process.reports)
    async with plant.run() as process:
        assert [one["reason"] for one in await history(process)] == ["first", "second"]


async def test_a_release_is_in_the_history(autojump_clock: MockClock) -> None:
    """It is written past every service; the one that loads the build masks and logs it."""
    plant = Plant(ignore)
    value = document(["x"])
    value["changes"][0]["password"] = "hunter2hunter2"
    async with plant.run() as process:
        await process.submit(value)
    for _ in range(MOST_HANGS):
        await record_hang(JetStream(plant.broker.plug()), "b1")
    order = Order("release", claim="anna", reason="fixed hunter2hunter2")
    await release(JetStream(plant.broker.plug()), "b1", order)
    async with plant.run() as process:
        await trio.sleep(5)
        [told] = await history(process)
        assert (told["verb"], told["by"]) == ("release", "anna")
        assert "hunter2" not in told["reason"]


@pytest.mark.parametrize("fate", [Fate.MUTE, Fate.LOSE, Fate.HOLD])
async def test_a_release_without_an_answer_is_written_once(autojump_clock: MockClock, fate: Fate) -> None:
    """It is asked again, and its id tells whether the first one was written; a late one is refused."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(CHAIN)
    for _ in range(MOST_HANGS):
        await record_hang(JetStream(plant.broker.plug()), "b1")
    js = JetStream(plant.broker.plug())
    plant.broker.line.plan("scheduler.log.*", fate)
    await release(js, "b1", Order("release", claim="anna", id="o1"))
    plant.broker.line.release()
    async with plant.run() as process:
        await trio.sleep(5)
        assert [(one["verb"], one["order"]) for one in await history(process)] == [("release", "o1")]


def test_every_command_takes_a_reason_and_a_name() -> None:
    """On the wire, as `reason` and `by`."""
    for verb in STEERING:
        assert {"reason", "by"} <= set(json_schema(VERBS[verb].request)["properties"])


async def test_a_new_run_masks_its_reason(autojump_clock: MockClock) -> None:
    """The order that begins it is kept without the secrets of the build."""
    plant = Plant(flaky("a", 1))
    value = document(["a"])
    value["changes"][0]["password"] = "hunter2hunter2"
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
        await trio.sleep(1)
        await ask(process, "retry", reason="hunter2hunter2")
        await until(lambda: len(process.reports) == 2)
        [told] = await history(process)
        assert told["verb"] == "retry"
        assert "hunter2" not in told["reason"]
    assert not any("hunter2" in str(one.get("Scheduler-Orders")) for one in plant.broker.headers())


async def test_each_order_is_a_line_in_the_log_of_the_service() -> None:
    """Once it is carried out; one that is refused is not."""
    async with running() as site:
        with capture_logs() as lines:
            await ask(site, "pause", **SAID)
            await refused(site, "pause", **SAID)
    [line] = [one for one in lines if one["event"] == ORDER_CARRIED_OUT]
    assert {**SAID, "verb": "pause", "build": "b1", "vouched": False}.items() <= line.items()
