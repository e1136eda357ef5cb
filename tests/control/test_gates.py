"""Gates as operators see them: what is told of them, what is refused, and what a restart leaves."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from typing import Any

import pytest
import trio
from support.asking import ask, refused, running
from support.durable import Plant, flat, until
from support.fakes import JSON, Reply, Site, change, document, ignore, states
from trio.testing import MockClock, wait_all_tasks_blocked

GATE = "approve::g"


def gated(**fields: Any) -> JSON:
    """A component, a gate behind it, and a component behind that."""
    gate = change(GATE, action="approve", **fields)
    return document(["a", gate, "z"], [("a", GATE), (GATE, "z")])


async def component_of(site: Site, name: str) -> JSON:
    found: list[JSON] = (await ask(site, "get"))["components"]
    return next(one for one in found if one["id"] == name)


async def reached(site: Site) -> None:
    """Let the gate be reached."""
    site.cloud.answer("a")
    await wait_all_tasks_blocked()


async def test_a_gate_that_waits_is_gated_to_who_asks() -> None:
    """Before that it waits for what it depends on; among the counts it is waiting."""
    async with running(gated()) as site:
        assert (await component_of(site, GATE))["state"] == "waiting"
        assert "gated" not in await ask(site, "get")
        await reached(site)
        told = await ask(site, "get")
        assert (told["gated"], told["counts"]["waiting"], told["status"]) == (1, 2, "running")
        one = await component_of(site, GATE)
        assert (one["state"], one["gate"]) == ("gated", True)
        assert (await ask(site, "list"))["builds"][0]["gated"] == 1


async def test_why_says_who_has_to_do_what() -> None:
    """For the gate, for what is behind it, and for the build."""
    async with running(gated(_timeout=600)) as site:
        await reached(site)
        text = (
            f"it waits for approval, and fails in 10m00s without it: scheduler approve b1 {GATE}, or reject"
        )
        [reason] = (await ask(site, "why", component=GATE))["reasons"]
        assert (reason["text"], reason["state"]) == (text, "gated")
        assert (await ask(site, "why"))["reasons"][0]["text"] == text
        [reason] = (await ask(site, "why", component="z"))["reasons"]
        assert reason["text"] == f"it waits for {GATE} (gated)"


async def test_a_gate_that_waits_is_not_sent_again_now() -> None:
    """The refusal calls it what it is."""
    async with running(gated()) as site:
        await reached(site)
        code, text = await refused(site, "retry", component=GATE, now=True)
        assert code == "conflict"
        assert text == f"{GATE} is a gate: nothing of it is sent that could be sent again"


async def test_a_proposed_command_is_safe_to_paste() -> None:
    """Whoever submits a build chooses ids, and whoever approves copies them into a shell."""
    name = "g $(rm -r ~)"
    async with running(document([change(name, action="approve")])) as site:
        await wait_all_tasks_blocked()
        [reason] = (await ask(site, "why", component=name))["reasons"]
        assert reason["text"].endswith(f"scheduler approve b1 '{name}', or reject")
        _, text = await refused(site, "skip", component=name)
        assert text.endswith(f"scheduler approve b1 '{name}'")
        await ask(site, "reject", component=name)


async def test_a_decision_stands_in_the_history() -> None:
    """With the name, the time and the reason of who decided."""
    async with running(gated()) as site:
        await reached(site)
        answer = await ask(site, "approve", component=GATE, by="ann", reason="seen")
        assert answer == {"id": "b1", "status": "running", "text": f"{GATE} is approved", "components": 1}
        [order] = (await ask(site, "history"))["orders"]
        assert (order["verb"], order["component"], order["by"], order["reason"]) == (
            "approve",
            GATE,
            "ann",
            "seen",
        )


async def test_the_wait_for_a_person_is_told_as_an_event() -> None:
    """`gated`, with the component; then `approved`, with who did."""
    async with running(gated()) as site:
        await reached(site)
        await ask(site, "approve", component=GATE, by="ann")
        await wait_all_tasks_blocked()
        site.cloud.answer("z")
        await wait_all_tasks_blocked()
        messages = [one for one in site.bus.published if one.subject.startswith("scheduler.event.")]
        events = [event for one in messages for event in json.loads(one.data)["events"] if "event" in event]
        assert [(one["event"], one.get("component"), one.get("by")) for one in events] == [
            ("gated", GATE, None),
            ("approved", GATE, "ann"),
            ("finished", None, None),
        ]


async def test_a_gate_is_not_skipped() -> None:
    """Who may skip components is not thereby who may approve: the cure is told."""
    async with running(gated()) as site:
        for _ in range(2):
            code, text = await refused(site, "skip", component=GATE)
            assert (code, text) == (
                "conflict",
                f"{GATE} is a gate, and not to be skipped; approve it: scheduler approve b1 {GATE}",
            )
            await reached(site)


async def test_a_reason_holds_no_secret_of_the_build() -> None:
    """Everybody who asks is shown it, and it stands in the report."""
    async with running(gated(password="hunter2-hunter2")) as site:
        await reached(site)
        await ask(site, "reject", component=GATE, by="bob", reason="it says hunter2-hunter2")
        await wait_all_tasks_blocked()
        assert site.report[1]["error"] == f"{GATE}: rejected by bob: it says ***"


async def test_a_gate_has_no_say_in_when_the_rest_ends() -> None:
    """The end is predicted as if everybody decided at once: a second each for the two components."""
    async with running(gated()) as site:
        answer = await ask(site, "get")
        assert answer["eta"] == pytest.approx(2, abs=0.1)
        assert answer["overdue"] is None


async def test_a_gate_waits_on_in_the_next_process(autojump_clock: MockClock) -> None:
    """Neither asked for anew nor passed: it is approved there, and its dependents begin."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(gated())
        await until(lambda: process.requests == ["a"])
        await trio.sleep(5)
    async with plant.run() as process:
        await trio.sleep(5)
        one = await component_of(process, GATE)
        assert one["state"] == "gated"
        assert process.requests == []
        await ask(process, "approve", component=GATE, by="ann")
        await until(lambda: process.reports)
        assert process.requests == ["z"]
        assert set(states(process.reports[-1][1]).values()) == {"completed"}
    assert f"settled {GATE}" in flat(plant.broker.told())


async def test_an_approval_is_kept_by_the_log(autojump_clock: MockClock) -> None:
    """A process that is killed after it leaves nothing to be approved again."""
    plant = Plant(ignore)
    async with plant.run() as process:
        await process.submit(document([change(GATE, action="approve"), "z"], [(GATE, "z")]))
        await trio.sleep(5)
        await ask(process, "approve", component=GATE, by="ann")
    async with plant.run() as process:
        await trio.sleep(5)
        assert (await component_of(process, GATE))["state"] == "completed"
        code, text = await refused(process, "approve", component=GATE)
        assert (code, text) == ("conflict", f"{GATE} is approved already, by ann")
        [order] = (await ask(process, "history"))["orders"]
        assert (order["verb"], order["by"]) == ("approve", "ann")


async def test_the_time_of_a_gate_counts_over_restarts(autojump_clock: MockClock) -> None:
    """From when it was reached, with what operators added; a process that is away stops no clock."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(gated(_timeout=100))
        await until(lambda: process.requests == ["a"])
        await trio.sleep(30)
        await ask(process, "extend", component=GATE, seconds=50)
    await trio.sleep(30)
    async with plant.run() as process:
        await trio.sleep(5)
        one = await component_of(process, GATE)
        left = one["expires"] - (await ask(process, "get"))["now"]
        assert left == pytest.approx(150 - 65, abs=5)
        await until(lambda: process.reports)
        assert process.reports[-1][1]["error"] == f"{GATE}: not approved within 150 s"


async def test_a_rejected_gate_asks_again_in_a_new_run(autojump_clock: MockClock) -> None:
    """With all of its time."""
    plant = Plant()
    async with plant.run() as process:
        await process.submit(gated(_timeout=100))
        await trio.sleep(90)
        await ask(process, "reject", component=GATE, by="bob", reason="not yet")
        await until(lambda: process.reports)
        await trio.sleep(1)
        assert (await refused(process, "approve", component=GATE))[1] == "b1 is finished (errored)"
        answer = await ask(process, "retry")
        assert answer["text"] == "run 2 begins: 1 component will be sent; 1 gate will ask for approval again"
        await trio.sleep(90)
        assert (await component_of(process, GATE))["state"] == "gated"
        await ask(process, "approve", component=GATE, by="ann")
        await until(lambda: len(process.reports) == 2)
        assert process.reports[-1][0] == "build.create.done"
        assert process.requests == ["a", "z"]


async def test_a_gate_that_is_retried_in_a_later_run_has_all_of_its_time(autojump_clock: MockClock) -> None:
    """Its wait in an earlier run does not count, although that run's process is gone."""
    value = document([change(GATE, action="approve", _timeout=100), "b"], options={"on_error": "continue"})
    left = [1]

    def script(one: JSON) -> list[Reply]:
        left[0] -= 1
        return [Reply("errored")] if left[0] >= 0 else []

    plant = Plant(script)
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: process.reports)
    async with plant.run() as process:
        await trio.sleep(5)
        await ask(process, "retry", component="b")
        await trio.sleep(5)
        await ask(process, "retry", component=GATE)
        await trio.sleep(90)
        assert (await component_of(process, GATE))["state"] == "gated"
