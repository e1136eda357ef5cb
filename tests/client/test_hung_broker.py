"""A server of a real cluster that hangs: orders get through all the same, and are carried out once."""

import json

import pytest
import trio
from support.brokers import eventually
from support.clusters import await_path, cluster
from support.fakes import document

from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.client.ask import get_history, give_order
from scheduler.client.submit import submit
from scheduler.config import Settings
from scheduler.control.endpoint import Control
from scheduler.control.eta import EtaEstimator
from scheduler.control.parts import Parts
from scheduler.service import Service
from scheduler.stores.memory import MemoryStore

pytestmark = pytest.mark.integration

_MEMBERS = 6
"""Further members of the queue group on servers that work: five tries in a row hardly ever hit the other."""
_ORDERS = 100
"""Most orders until one is handed to the server that hangs; each is by one in eight."""


async def test_an_order_gets_through_and_is_carried_out_once() -> None:
    """Within 12 s, though its first copy vanishes; when that is delivered, nothing is done again."""
    with cluster(jetstream=False) as servers:
        near, working, hung = servers.servers
        await_path(near, hung)
        await_path(near, working)
        async with (
            open_bus(BusOptions((working.url,))) as bus,
            open_bus(BusOptions((hung.url,))) as second,
            open_bus(BusOptions((near.url,))) as client,
            trio.open_nursery() as nursery,
        ):
            settings, store = Settings(store="memory", start_timeout=600), MemoryStore()
            service = Service(settings, bus, store)
            await nursery.start(service.run)
            eta = EtaEstimator(service.planner.durations, (), 1)
            parts = Parts.of(service.roster, store, service.slots, eta=eta, reader=service.reader)
            for _ in range(_MEMBERS):
                await nursery.start(Control(bus, parts).run)
            other = Control(second, parts)
            await nursery.start(other.run)
            assert (await submit(client, "build.create", json.dumps(document("a")).encode())).accepted
            hung.pause()
            try:
                given, took = 0, 0.0
                while took < 2 and given < _ORDERS:
                    verb = ("pause", "resume")[given % 2]
                    given, began = given + 1, trio.current_time()
                    answer = await give_order(client, verb, {"id": "b1"})
                    assert answer["text"].startswith(("paused", "resumed")), answer
                    took = trio.current_time() - began
                    assert took < 12
            finally:
                hung.resume()
            assert took >= 2, "no order was handed to the server that hangs"
            await eventually(lambda: other.endpoints[verb].requests > 0, 10)
            orders = (await get_history(client, "b1"))["orders"]
            assert len(orders) == len({one["order"] for one in orders}) == given
            assert other.endpoints[verb].errors == 0
            nursery.cancel_scope.cancel()
