"""The figures of a service: they agree with the reports, and cost the loop little."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.durable import until
from support.ernest_service_store import ServiceStore
from support.fake_bus import FakeBus
from support.fakes import JSON, Reply, change, document, ignore, open_service
from support.stretches import measured_stretches
from trio.testing import MockClock, wait_all_tasks_blocked

from scheduler.bus import Message
from scheduler.config.addresses import Address
from scheduler.metrics.catalogue import METRICS, PROCESS
from scheduler.metrics.tally import SERIES
from scheduler.service import Service
from scheduler.stores.ernest import ErnestStore
from scheduler.stores.ernest_protocol import DELETE_COMPONENT, SET_CHANGE, SET_COMPONENT, SET_MAPPING
from scheduler.web.board import Board
from scheduler.web.exposition import exposition

SOMEWHERE = Address("127.0.0.1", 0)
Numbers = dict[tuple[str, ...], float]


def failing(component: JSON) -> Sequence[Reply]:
    """Fail what is called so, and complete the rest."""
    return (
        [Reply("errored", fields={"error": "no"})]
        if component["_component_id"].startswith("bad")
        else [Reply()]
    )


async def text_of(service: Service) -> str:
    """What a service exports."""
    return exposition([family async for family in service.figures.families()]).decode()


def numbers_of(text: str) -> dict[str, Numbers]:
    """The samples of an exposition by name, and by the values of their labels in the catalogue's order."""
    found: dict[str, Numbers] = {}
    for family in text_string_to_metric_families(text):
        order = next((one.labels for one in METRICS if one.name.removesuffix("_total") == family.name), ())
        for sample in family.samples:
            labels = [sample.labels[label] for label in order]
            labels += [value for label, value in sample.labels.items() if label not in order]
            found.setdefault(sample.name, {})[tuple(labels)] = sample.value
    return found


async def numbers(service: Service) -> dict[str, Numbers]:
    """The samples that a service exports now."""
    return numbers_of(await text_of(service))


def ordered(number: int, name: str) -> JSON:
    """A build of types and actions of all kinds: a chain that fails, one that does not, and single ones."""
    changes = [
        change(f"{kind}{which}", _component=kind, _action=action)
        for which, (kind, action) in enumerate(
            [("vpc", "create"), ("vpc", "delete"), ("net", "create"), ("bad", "create"), ("net", "none")]
            + [("vpc", "create")] * number
        )
    ]
    built = document(changes, id=name, options={"on_error": "continue"})
    built["edges"] = [{"source": "bad3", "destination": one["_component_id"]} for one in changes[5:7]]
    return built


async def test_the_counters_agree_with_the_reports(autojump_clock: MockClock) -> None:
    """By type, action, provider and outcome; and the builds by their status."""
    async with open_service(script=failing, metrics=SOMEWHERE) as site:
        for which in range(3):
            await site.submit(ordered(4, f"b{which}"))
        await site.submit(document("ab", [("a", "b")], id="good"))
        await until(lambda: len(site.reports) == 4)
        await wait_all_tasks_blocked()
        found = await numbers(site.service)
        expected: Counter[tuple[str, ...]] = Counter()
        statuses: Counter[str] = Counter()
        for subject, report in site.reports:
            statuses["done" if subject.endswith(".done") else "errored"] += 1
            for one in report["changes"]:
                outcome = {"waiting": "skipped"}.get(one["_state"], one["_state"])
                expected[one["_component"], one["_action"], one["_provider"], outcome] += 1
        counted = {labels: number for labels, number in found["scheduler_components_total"].items() if number}
        assert counted == expected
        assert set(statuses) == {"done", "errored"}
        for status, number in statuses.items():
            assert found["scheduler_builds_ended_total"][status,] == number
        assert found["scheduler_submissions_total"] == {("accepted",): 4, ("refused",): 0}
        assert found["scheduler_builds_begun_total"]["submitted",] == 4
        requests = len([one for one in site.bus.published if one.reply.startswith("scheduler.reply.")])
        assert sum(found["scheduler_attempts_total"].values()) == requests
        assert sum(found["scheduler_attempt_duration_seconds_count"].values()) == requests
        assert sum(found["scheduler_component_wait_seconds_count"].values()) == requests
        assert found["scheduler_requests_in_flight"] == {(): 0}
        assert found["scheduler_builds"]["running",] == 0
        assert set(found["scheduler_build_components"].values()) == {0}, "a gap in a graph is no zero"
        assert len(found["scheduler_build_components"]) == 6


async def test_what_runs_and_waits_is_shown_as_it_is(autojump_clock: MockClock) -> None:
    """In flight, in the queue, by limit, and the states of components."""
    async with open_service(script=ignore, metrics=SOMEWHERE, max_in_flight=3) as site:
        await site.submit(document("abcde"))
        await site.submit(document("f", id="b2"))
        await wait_all_tasks_blocked()
        found = await numbers(site.service)
        assert found["scheduler_builds"] == {
            ("running",): 2, ("paused",): 0, ("halted",): 0, ("quarantined",): 0
        }  # fmt: skip
        assert found["scheduler_requests_in_flight"] == {(): 3}
        assert found["scheduler_queue_length"] == {(): 3}
        assert found["scheduler_limit_queue_length"] == {("max_in_flight",): 3}
        assert found["scheduler_limit_used"] == {("max_in_flight",): 3}
        assert found["scheduler_limit_size"] == {("max_in_flight",): 3}
        assert found["scheduler_build_components"]["running",] == 3
        assert found["scheduler_build_components"]["waiting",] == 3
        assert found["scheduler_connection_up"] == {("requests",): 1}
        assert found["scheduler_ready"] == {(): 1}


async def test_retries_are_counted_apart_from_outcomes(autojump_clock: MockClock) -> None:
    """Each attempt, each repetition, and one outcome."""
    async with open_service(script=failing, metrics=SOMEWHERE) as site:
        await site.submit(document([change("bad", _retry={"attempts": 3, "backoff": 1})]))
        await until(lambda: len(site.reports) == 1)
        found = await numbers(site.service)
        assert list(found["scheduler_attempts_total"].values()) == [3]
        assert list(found["scheduler_retries_total"].values()) == [2]
        assert {labels[-1]: number for labels, number in found["scheduler_components_total"].items()} == {
            "completed": 0, "errored": 1, "skipped": 0
        }  # fmt: skip


async def test_every_metric_of_the_catalogue_is_exported_and_no_other() -> None:
    """Of this store those of commits and leases are not there; names and types are as they say."""
    absent = {"scheduler_commit", "scheduler_instances", "scheduler_lease", "scheduler_loop"}
    known = {one.name.removesuffix("_total"): one for one in METRICS}
    async with open_service(metrics=SOMEWHERE) as site:
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        families = {one.name: one for one in text_string_to_metric_families(await text_of(site.service))}
        assert families.keys() - known.keys() <= {name.removesuffix("_total") for name in PROCESS}
        missing = known.keys() - families.keys()
        assert all(name.startswith(tuple(absent)) for name in missing), missing
        for name in known.keys() & families.keys():
            assert families[name].type == known[name].sort.value
            for sample in families[name].samples:
                assert set(known[name].labels) == sample.labels.keys() - {"le"}


async def test_commits_of_an_ernest_store_are_exported(fake_bus: FakeBus, autojump_clock: MockClock) -> None:
    """As those of a log: in the metrics, and in the answer of service discovery."""
    ernest = ServiceStore()
    await ernest.attach(fake_bus)
    store = ErnestStore(fake_bus)
    async with open_service(metrics=SOMEWHERE, bus=fake_bus, store=store) as site:
        await site.submit(document("ab"))
        await until(lambda: len(site.reports) == 1)
        found = await numbers(site.service)
        changes = {SET_MAPPING, SET_CHANGE, SET_COMPONENT, DELETE_COMPONENT}
        stored = sum(subject in changes for subject in ernest.subjects())
        assert found["scheduler_commit_duration_seconds_count"] == {(): stored}
        assert found["scheduler_commit_size_bytes_count"] == {(): stored}
        assert found["scheduler_commit_retries_total"] == {(): 0}
        assert site.service.figures.brief()["commits"]["count"] == stored >= 5


async def test_a_board_shows_the_loop_and_then_the_service() -> None:
    """Before there is a service, the process is measured all the same."""
    board = Board()
    assert [family async for family in board.families()] == []
    assert board.trouble()
    async with open_service(metrics=SOMEWHERE) as site:
        with board.showing(site.service.figures):
            assert [family async for family in board.families()]
            assert not board.trouble()
    assert board.trouble()


async def test_thousands_of_types_stay_within_the_bounds(autojump_clock: MockClock) -> None:
    """No metric has more series than it may, and nothing gets lost."""
    async with open_service(metrics=SOMEWHERE, max_in_flight=10_000, max_in_flight_per_build=10_000) as site:
        changes = [change(f"c{n}", _component=f"t{n}", _provider=f"p{n}") for n in range(2_000)]
        await site.submit(document(changes))
        await until(lambda: len(site.reports) == 1)
        for family in text_string_to_metric_families(await text_of(site.service)):
            assert len(family.samples) <= SERIES, family.name
        found = await numbers(site.service)
        assert sum(found["scheduler_components_total"].values()) == 2_000


async def test_reading_the_figures_of_many_builds_does_not_hold_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is done in slices of less than ten milliseconds."""
    async with open_service(script=ignore, metrics=SOMEWHERE) as site:
        await site.submit(document("ab"))
        walks = site.service.roster.walks() * 30_000
        monkeypatch.setattr(site.service.roster, "walks", lambda: walks)
        with measured_stretches() as stretches:
            found = numbers_of(
                exposition([family async for family in site.service.figures.families()]).decode()
            )
        assert found["scheduler_builds"]["running",] == 30_000
        reading = [one for one in stretches.tasks if "figures" in one.task]
        assert reading[0].seconds < 0.01, reading


async def asked(service: Service, bus: Any, subject: str) -> JSON:
    """The answer to a question of service discovery."""
    answers: list[Message] = []
    await bus.subscribe("_INBOX.asked.1", answers.append)
    bus.deliver(subject, b"", reply="_INBOX.asked.1")
    await wait_all_tasks_blocked()
    answer: JSON = json.loads(answers[0].data)
    return answer


async def test_stats_has_the_same_figures(autojump_clock: MockClock) -> None:
    """Over NATS, whether or not there is a server of HTTP."""
    async with open_service(script=ignore, max_in_flight=1) as site:
        await site.submit(document("ab"))
        await wait_all_tasks_blocked()
        stats = await asked(site.service, site.bus, "$SRV.STATS.scheduler")
        assert {name: stats[name] for name in ("builds", "components", "in_flight", "queued", "ready")} == {
            "builds": 1, "components": 2, "in_flight": 1, "queued": 1, "ready": True
        }  # fmt: skip
        assert stats["type"] == "io.nats.micro.v1.stats_response"


async def test_without_metrics_components_are_not_counted() -> None:
    """What nobody asks for costs nothing."""
    async with open_service() as site:
        await site.submit(document("a"))
        await wait_all_tasks_blocked()
        assert "scheduler_components_total" not in await numbers(site.service)
        assert site.service.figures.tally is None
