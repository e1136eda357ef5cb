"""The Ernest store against the fake service in a process of its own, over a real broker."""

from pathlib import Path
from typing import Any

import pytest
import trio
from support.brokers import NatsServer
from support.ernest_service_store import spawn

from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.definition.strictjson import encode
from scheduler.errors import BuildLost, StoreError, StoreUnavailable
from scheduler.journal.events import Accepted, Finished, Settled, Started
from scheduler.stores.ernest import ErnestStore

pytestmark = pytest.mark.integration


def _change(id_: str, **fields: Any) -> dict[str, Any]:
    return {"_component_id": id_, "_state": "waiting", **fields}


def _build(id_: str, size: int) -> dict[str, Any]:
    changes = [_change(f"vpc::{n}", service=id_) for n in range(size)]
    return {"id": id_, "action": "build.create", "components": None, "changes": changes, "edges": []}


async def test_a_build_from_intake_to_report(nats_server: NatsServer, tmp_path: Path) -> None:
    """The service is asked in the order of the wire, holds the build, and ends it on its report."""
    with spawn(nats_server.url, tmp_path / "record") as service, trio.fail_after(30):
        async with open_bus(BusOptions((nats_server.url,)), connect_deadline=5) as bus:
            store = ErnestStore(bus)
            change = _change("vpc::0", service="b")
            done = {**change, "_state": "completed", "n": 2**70}
            await store.append("b", [Accepted(_build("b", 2))])
            await store.append("b", [Started("vpc::0", "b/vpc::0/1", encode(change))])
            assert [build async for build in store.unfinished()] == ["b"]
            await store.append("b", [Settled("vpc::0", done, upserts=(done,), deletes=(_change("vpc::x"),))])
            loaded = await store.load("b")
            assert loaded is not None
            assert loaded["changes"] == [done, _change("vpc::1", service="b")]
            await store.append("b", [Finished(None)])
            bus.publish("build.create.done", b'{"id":"b"}')
            assert [build async for build in store.unfinished()] == []
            assert await store.load("unknown") is None
            with pytest.raises(BuildLost, match="record not found"):
                await store.append("unknown", [Started("vpc::0", "", encode(change))])
            with pytest.raises(StoreError, match="change not found"):
                await store.append("b", [Started("vpc::9", "", encode(_change("vpc::9")))])
    subjects = [record["subject"].removeprefix("build.") for record in service.records()]
    change_set, component_set = "set.mapping.change", "set.mapping.component"
    assert subjects[:8] == [
        "set.mapping",
        change_set,
        # In progress, syncing, and waiting for a person.
        "find",
        "find",
        "find",
        change_set,
        component_set,
        "del.mapping.component",
    ]
    assert subjects[8:] == [
        "get.mapping",
        "create.done",
        "find",
        "find",
        "find",
        "get.mapping",
        change_set,
        change_set,
    ]
    assert [record["n"] for record in service.records()] == list(range(1, 17))


async def test_a_strict_service_knows_only_what_was_created(nats_server: NatsServer, tmp_path: Path) -> None:
    """As in the real one, the mapping of a build without a record is refused."""
    with spawn(nats_server.url, tmp_path / "record", "--strict", "--all"), trio.fail_after(30):
        async with open_bus(BusOptions((nats_server.url,)), connect_deadline=5) as bus:
            with pytest.raises(BuildLost):
                await ErnestStore(bus).append("b", [Accepted(_build("b", 1))])
            await bus.request("build.set", b'{"id":"b"}')
            await ErnestStore(bus).append("b", [Accepted(_build("b", 1))])


async def test_nothing_is_lost_over_a_restart_of_the_broker(nats_server: NatsServer, tmp_path: Path) -> None:
    """Builds that are being persisted while the broker is killed resume when it is back."""
    with spawn(nats_server.url, tmp_path / "record", "--delay", "2"), trio.fail_after(60):
        async with open_bus(BusOptions((nats_server.url,)), connect_deadline=5) as bus:
            store = ErnestStore(bus, timeout=1, store_timeout=8)

            async def run(build: str) -> None:
                await store.append(build, [Accepted(_build(build, 40))])
                for n in range(40):
                    await store.append(build, [Started(f"vpc::{n}", "", encode(_change(f"vpc::{n}")))])

            async with trio.open_nursery() as nursery:
                for n in range(6):
                    nursery.start_soon(run, f"b{n}")
                await trio.sleep(0.2)
                await trio.to_thread.run_sync(nats_server.restart)
            for n in range(6):
                loaded = await store.load(f"b{n}")
                assert loaded is not None
                assert {change["_state"] for change in loaded["changes"]} == {"running"}


async def test_a_service_that_dies_is_noticed(nats_server: NatsServer, tmp_path: Path) -> None:
    """Without the service the broker says 503, and past the deadline that is what is reported."""
    with trio.fail_after(30):
        async with open_bus(BusOptions((nats_server.url,)), connect_deadline=5) as bus:
            store = ErnestStore(bus, timeout=0.5, store_timeout=1)
            with spawn(nats_server.url, tmp_path / "record") as service:
                await store.append("b", [Accepted(_build("b", 1))])
                await trio.to_thread.run_sync(service.stop)
            with pytest.raises(StoreUnavailable, match=r"within 1 s: nobody is subscribed to it"):
                await store.append("b", [Accepted(_build("b", 1))])
