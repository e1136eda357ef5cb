"""Service discovery by ADR-32: who is asked how, and what the answers say."""

import json
from collections.abc import Sequence

import pytest
import trio
from support.fake_bus import FakeBus
from support.fakes import JSON
from trio.testing import wait_all_tasks_blocked

from scheduler.bus.discovery import Discovery, Identity, ServiceEndpoint
from scheduler.errors import NoResponders

IDENTITY = Identity("scheduler", "ID1", "1.2.3", "Runs builds")
VERBS = ("PING", "INFO", "STATS")
TAILS = ("", ".scheduler", ".scheduler.ID1")


@pytest.fixture
def endpoint() -> ServiceEndpoint:
    return ServiceEndpoint("build-create", "build.create", "scheduler")


@pytest.fixture
def discovery(fake_bus: FakeBus, endpoint: ServiceEndpoint) -> Discovery:
    return Discovery(fake_bus, IDENTITY, [endpoint])


async def ask(bus: FakeBus, subject: str) -> JSON:
    answer: JSON = json.loads((await bus.request(subject, b"")).data)
    return answer


@pytest.mark.parametrize("tail", TAILS)
@pytest.mark.parametrize("verb", VERBS)
async def test_each_question_is_answered_for_all_for_our_name_and_for_us(
    fake_bus: FakeBus, discovery: Discovery, verb: str, tail: str
) -> None:
    """PING, INFO and STATS are answered with our name, id and version on three subjects each."""
    await discovery.open()
    answer = await ask(fake_bus, f"$SRV.{verb}{tail}")
    assert answer["type"] == f"io.nats.micro.v1.{verb.lower()}_response"
    assert {key: answer[key] for key in ("name", "id", "version")} == {
        "name": "scheduler",
        "id": "ID1",
        "version": "1.2.3",
    }
    assert answer["metadata"] == {}


async def test_no_answer_goes_to_a_subject_of_the_system(fake_bus: FakeBus, discovery: Discovery) -> None:
    """A question cannot have us write into a log."""
    await discovery.open()
    fake_bus.deliver("$SRV.PING", b"", reply="scheduler.log.b1")
    await wait_all_tasks_blocked()
    assert fake_bus.published == []


async def test_in_a_flood_few_answers_wait(fake_bus: FakeBus) -> None:
    """An answer with schemas is a hundred times as large as its question; later all are answered again."""
    large = ServiceEndpoint("large", "large", "scheduler", metadata={"schema": "x" * 100_000})
    await Discovery(fake_bus, IDENTITY, [large]).open()
    for _ in range(3):
        fake_bus.published.clear()
        for _ in range(500):
            fake_bus.deliver("$SRV.INFO", b"", reply="_INBOX.them")
        await wait_all_tasks_blocked()
        assert 40 < len(fake_bus.published) < 50
    assert (await ask(fake_bus, "$SRV.INFO"))["endpoints"]


async def test_nobody_answers_for_another_service_or_instance(
    fake_bus: FakeBus, discovery: Discovery
) -> None:
    """A question for somebody else is not ours."""
    await discovery.open()
    for subject in ("$SRV.PING.other", "$SRV.PING.scheduler.ID2", "$SRV.OTHER"):
        with pytest.raises(NoResponders):
            await ask(fake_bus, subject)


async def test_before_it_is_opened_and_after_it_is_closed_nobody_answers(
    fake_bus: FakeBus, discovery: Discovery
) -> None:
    """Who does not take builds yet, or any more, is not found."""
    for step in (None, discovery.open, discovery.close):
        if step is not None:
            await step()
        if step == discovery.open:
            await ask(fake_bus, "$SRV.PING.scheduler")
        else:
            with pytest.raises(NoResponders):
                await ask(fake_bus, "$SRV.PING.scheduler")
    assert fake_bus.subjects == []


async def test_info_lists_the_endpoints(fake_bus: FakeBus, discovery: Discovery) -> None:
    """INFO says what we are and on which subjects, in which queue group, we take builds."""
    await discovery.open()
    answer = await ask(fake_bus, "$SRV.INFO.scheduler")
    assert answer["description"] == "Runs builds"
    assert answer["endpoints"] == [
        {"name": "build-create", "subject": "build.create", "queue_group": "scheduler", "metadata": {}}
    ]


async def test_stats_count_requests_errors_and_time(
    fake_bus: FakeBus, discovery: Discovery, endpoint: ServiceEndpoint
) -> None:
    """STATS has the counters of each endpoint, its last error and its mean time, in nanoseconds."""
    await discovery.open()
    [before] = (await ask(fake_bus, "$SRV.STATS"))["endpoints"]
    assert (before["num_requests"], before["average_processing_time"]) == (0, 0)
    endpoint.served(0.5)
    endpoint.served(1.5, "busy " * 100)
    answer = await ask(fake_bus, "$SRV.STATS")
    assert answer["started"].endswith("Z")
    [stats] = answer["endpoints"]
    assert stats == {
        "name": "build-create",
        "subject": "build.create",
        "queue_group": "scheduler",
        "num_requests": 2,
        "num_errors": 1,
        "last_error": ("busy " * 100)[:200],
        "processing_time": 2_000_000_000,
        "average_processing_time": 1_000_000_000,
    }


async def test_a_question_without_an_address_to_answer_is_passed_over(
    fake_bus: FakeBus, discovery: Discovery
) -> None:
    """Whoever asks without a reply subject, or with one that is not allowed, gets nothing."""
    await discovery.open()
    fake_bus.deliver("$SRV.PING", b"")
    fake_bus.deliver("$SRV.PING", b"", reply="not allowed.*")
    await wait_all_tasks_blocked()
    assert fake_bus.published == []
    await ask(fake_bus, "$SRV.PING")


async def test_ping_is_left_to_who_answers_it_in_our_place(fake_bus: FakeBus) -> None:
    """While it does; the loop listens all the same, so that nobody is told that there is nobody."""

    class Presence:
        answering = False
        announced: tuple[list[str], bytes] = ([], b"")

        async def announce(self, subjects: Sequence[str], answer: bytes) -> None:
            assert not any("PING" in subject for subject in fake_bus.subjects), "nothing came to both"
            self.announced = list(subjects), answer

    presence = Presence()
    await Discovery(fake_bus, IDENTITY, [], presence).open()
    subjects, answer = presence.announced
    assert subjects == [f"$SRV.PING{tail}" for tail in TAILS]
    assert await ask(fake_bus, "$SRV.PING") == json.loads(answer)
    presence.answering = True
    with trio.move_on_after(1) as silent:
        await ask(fake_bus, "$SRV.PING")
    assert silent.cancelled_caught
    await ask(fake_bus, "$SRV.STATS")
