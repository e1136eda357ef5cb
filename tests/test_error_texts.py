"""What a connector says of a failure: kept and reported byte for byte, and shown without a secret in it."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
import trio
from support.asking import ask, refused
from support.durable import Plant, until
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, Reply, Site, change, document, encode, ignore, open_service
from support.leaving import leave_service
from trio.testing import MockClock

from scheduler.definition.template import Templates
from scheduler.journal.events import Finished, Retrying, Settled
from scheduler.stores.ernest import ErnestStore

CANARY = "c4nary-bird"
SENT = "s3nt-along"
"""Secret in a request alone: nothing that is kept of a component names it as one."""
ERROR = (
    "public IP quota exceeded for publicIPAddresses/pip1; network prod-web not found at "
    f"https://vc.example.com/api;\tlogged in\nwith {CANARY} and {SENT}"
)
SHOWN = ERROR.replace(CANARY, "***").replace(SENT, "***")
CREDENTIALS = {
    "_component_id": "credentials::azure", "_component": "credentials", "_action": "none",
    "_provider": "fake", "_state": "waiting", "name": "c", "region": "r", "vdc": "prod",
    "azure_environment": "public",
    "vcloud_url": "https://vc.example.com", "azure_client_secret": CANARY, "blob": SENT,
}  # fmt: skip
BLOB = '$(components.#[_component_id="credentials::azure"].blob)'


def failing(**fields: Any) -> JSON:
    """A build of which `a` fails while `b` is in flight; `c` is never sent."""
    first = change("a", password=BLOB, **fields)
    return document([first, "b", "c"], [("b", "c")], components=[CREDENTIALS])


def says(text: str = ERROR) -> Reply:
    return Reply("errored", fields={"error": text}, drop=("password",))


@pytest.fixture(autouse=True)
def _no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread is no task: a clock that jumps would not wait for it."""

    async def run_sync(function: Any, *arguments: Any, **_: Any) -> Any:
        await trio.lowlevel.checkpoint()
        return function(*arguments)

    monkeypatch.setattr("trio.to_thread.run_sync", run_sync)


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    """What is logged, before the log itself masks anything."""
    with structlog.testing.capture_logs() as lines:
        yield lines


def is_clean(*shown: object) -> bool:
    """Whether none of this shows a secret, and all that is none."""
    text = json.dumps(shown, default=str)
    return CANARY not in text and SENT not in text


def events(bus: FakeBus) -> list[JSON]:
    """What was told of the build's components."""
    messages = [json.loads(one.data) for one in bus.published if one.subject.startswith("scheduler.event.")]
    return [event for message in messages for event in message["events"]]


async def is_shown_without(site: Site, *, over: bool = False) -> None:
    """Whatever an operator asks shows the text without secrets."""
    whole = await ask(site, "get", graph=True)
    [failed] = [one for one in whole["components"] if one["state"] == "errored"]
    assert (failed["error"], whole["error"]) == (SHOWN, f"a: {SHOWN}")
    reasons = [await ask(site, "why"), await ask(site, "why", component="a")]
    assert all(SHOWN in reason["text"] for answer in reasons for reason in answer["reasons"] if "a" in reason)
    assert SHOWN in reasons[0]["reasons"][0]["text"]
    assert SHOWN in reasons[1]["reasons"][0]["text"]
    others = [await ask(site, "why", component="c"), await ask(site, "list", all=True)]
    if not over:
        assert SHOWN in others[0]["reasons"][0]["text"]
        assert others[1]["builds"][0]["error"] == f"a: {SHOWN}"
        code, text = await refused(site, "pause")
        assert (code, text) == ("conflict", f"nothing new is sent any more: a: {SHOWN}")
    assert is_clean(whole, reasons, others)


async def test_in_a_log_and_in_a_report_it_stands_as_it_was_said(
    autojump_clock: MockClock, logs: list[Any]
) -> None:
    """Events, answers and lines of the log show it without the secrets, over restarts and after the end."""
    plant = Plant(ignore, templates=Templates.ERNEST)
    async with plant.run() as process:
        assert (await process.submit(failing()))["status"] == "accepted"
        await until(lambda: len(plant.requests) == 2)
        plant.answer("a", says())
        await trio.sleep(1)
        await is_shown_without(process)
        told = events(process.bus)
        assert [one["error"] for one in told if one.get("state") == "errored"] == [SHOWN]
    async with plant.run() as process:
        await trio.sleep(1)
        await is_shown_without(process)
        plant.answer("b")
        await until(lambda: len(process.reports) == 1)
        await trio.sleep(1)
        await is_shown_without(process, over=True)
        subject, report = process.report
        assert subject == "build.create.error"
        told += events(process.bus)
    kept = [event for record in plant.broker.records() for event in record.events]
    assert [one.body["error"] for one in kept if isinstance(one, Settled) and "error" in one.body] == [ERROR]
    assert [one.error for one in kept if isinstance(one, Finished)] == [f"a: {ERROR}"]
    assert report == plant.broker.reports()[0]
    assert (report["error"], report["changes"][0]["error"]) == (f"a: {ERROR}", ERROR)
    assert is_clean(told, logs)
    assert any(line["event"] == "component failed" and line["error"] == SHOWN for line in logs)
    assert any(line["event"] == "build failed" and line["error"] == f"a: {SHOWN}" for line in logs)


async def test_in_the_ernest_store_and_in_a_report_it_stands_as_it_was_said(
    autojump_clock: MockClock, fake_bus: FakeBus, logs: list[Any]
) -> None:
    """The same where another process takes the build up from there."""
    service = ServiceStore()
    await service.attach(fake_bus)
    settings: Any = {"bus": fake_bus, "script": ignore, "store_timeout": 30.0}
    async with open_service(store=ErnestStore(fake_bus), **settings) as first:
        await first.publish(failing())
        await trio.sleep(1)
        first.cloud.answer("a", says())
        await trio.sleep(1)
        await is_shown_without(first)
    assert service.mapping("b1")["changes"][0]["error"] == ERROR
    leave_service(fake_bus)
    async with open_service(store=ErnestStore(fake_bus), **settings) as second:
        await trio.sleep(1)
        body = {"service": "b1", "_component_id": "b", "_state": "completed"}
        second.bus.deliver("vpc.create.aws.done", encode(body))
        await trio.sleep(1)
        subject, report = second.report
    assert subject == "build.create.error"
    assert (report["error"], report["changes"][0]["error"]) == (f"a: {ERROR}", ERROR)
    assert CANARY not in json.dumps(events(fake_bus))
    assert CANARY not in json.dumps(logs, default=str)


async def test_what_is_tried_again_is_kept_as_it_was_said(autojump_clock: MockClock, logs: list[Any]) -> None:
    """And shown without the secrets, while it pauses and after a restart."""
    plant = Plant(ignore, templates=Templates.ERNEST)
    value = failing(_retry={"attempts": 2, "backoff": 100})
    async with plant.run() as process:
        await process.submit(value)
        await until(lambda: len(plant.requests) == 2)
        plant.answer("a", Reply("errored", fields={"error": ERROR, "retry_after": 90}, drop=("password",)))
        await trio.sleep(1)
        answers = [await ask(process, "get"), await ask(process, "why", component="a")]
        told = events(process.bus)
        assert [one["error"] for one in told if one.get("state") == "retrying"] == [SHOWN]
    async with plant.run() as process:
        await trio.sleep(1)
        answers += [await ask(process, "get"), await ask(process, "why", component="a")]
        assert [one["components"][0]["error"] for one in answers[::2]] == [SHOWN, SHOWN]
        assert all(SHOWN in one["reasons"][0]["text"] for one in answers[1::2])
        await ask(process, "cancel", reason=f"no {CANARY}")
        await trio.sleep(1)
        answers.append(await ask(process, "get"))
        assert answers[-1]["error"] == "cancelled: no ***"
        plant.answer("b")
        await until(lambda: len(process.reports) == 1)
        report = process.report[1]
    kept = [event for record in plant.broker.records() for event in record.events]
    assert [one.error for one in kept if isinstance(one, Retrying)] == [ERROR]
    assert report["error"] == "cancelled: no ***"
    assert report["changes"][0]["error"].startswith(ERROR)
    assert is_clean(answers, told, logs)


@pytest.mark.parametrize(
    "text",
    ["", " ", "ü ✓ \u2028", "a\r\n\tb\x00", "password=hunter22 https://joe:hunter22@host/", "x" * 3_000],
    ids=["empty", "space", "unicode", "control", "named", "long"],
)
async def test_texts_of_all_kinds_are_reported_byte_for_byte(autojump_clock: MockClock, text: str) -> None:
    """Nothing of them is cut, escaped or masked; of an empty one that nothing was said."""

    def script(component: JSON) -> list[Reply]:
        return [Reply("errored", fields={"error": text})]

    async with open_service(script=script) as site:
        await site.submit(document("a"))
        await trio.sleep(1)
        report = site.report[1]
    expected = text or "the connector reported an error and did not say why"
    assert (report["changes"][0]["error"], report["error"]) == (expected, f"a: {expected}")


async def test_what_a_store_says_is_reported_as_it_was_said_and_shown_without_secrets(
    autojump_clock: MockClock, fake_bus: FakeBus, logs: list[Any]
) -> None:
    """A store may quote what it was told; whoever submits such a build is not shown its secrets either."""
    service = ServiceStore()
    await service.attach(fake_bus)
    refusal = json.dumps({"_error": f"bad value {CANARY}"}).encode()
    async with open_service(store=ErnestStore(fake_bus), bus=fake_bus) as site:
        service.script("build.set.mapping", refusal)
        answer = await site.submit(failing())
        assert answer["error"]["message"] == "store: build.set.mapping: bad value ***"
        service.script("build.set.mapping.change", refusal)
        assert (await site.submit(failing()))["status"] == "accepted"
        await trio.sleep(1)
        assert site.report[1]["error"] == f"store: build.set.mapping.change: bad value {CANARY}"
    assert is_clean(logs, answer)
