"""The loop of a real service on a real broker, while a build keeps its templates busy."""

import json

import pytest
import trio
from support.brokers import NatsServer
from support.stretches import measured_stretches

from integration.harness import Connectors
from scheduler.bus import Message
from scheduler.bus.nats import open_bus
from scheduler.bus.options import BusOptions
from scheduler.config import Settings
from scheduler.service import Service
from scheduler.stores.memory import MemoryStore

pytestmark = pytest.mark.integration

_MOST = 0.010
"""Seconds of CPU time for which the loop may be kept; to render a component takes 0.015 and more below."""
_HEAVY = 20
_HEALTHY = 10


def _change(name: str, **fields: object) -> dict[str, object]:
    return {
        "_component_id": name,
        "_component": "vpc",
        "_action": "create",
        "_provider": "aws",
        "_state": "waiting",
        **fields,
    }


def _build(name: str, *changes: dict[str, object]) -> bytes:
    hub = changes[0]["_component_id"]
    edges = [{"source": hub, "destination": one["_component_id"]} for one in changes[1:]]
    whole = {"id": name, "action": "build.create", "components": [], "changes": changes, "edges": edges}
    return json.dumps(whole).encode()


async def test_expressions_that_take_long_do_not_keep_the_loop(nats_server: NatsServer) -> None:
    """Each runs in a thread: no stretch of the loop is as long as one of them, and builds beside it go on."""
    numbers = [{"n": f"{number:05}", "text": "x" * 40} for number in range(400)]
    once = '(components["hub"].numbers | tojson | length)'
    heavy = "{{ " + " ~ ".join([once] * 15) + " }}"
    attack = _build(
        "heavy", _change("hub", numbers=numbers), *(_change(f"h{n}", x=heavy) for n in range(_HEAVY))
    )
    options = BusOptions(servers=(nats_server.url,), name="test")
    over: list[str] = []
    all_over = trio.Event()

    def on_report(message: Message) -> None:
        over.append(json.loads(message.data)["id"])
        if len(over) == _HEALTHY + 1:
            all_over.set()

    with Connectors(nats_server.url, "*.create.aws") as connectors:
        connectors.await_event("connected")
        async with open_bus(options) as bus, trio.open_nursery() as nursery:
            await bus.subscribe("build.create.done", on_report)
            await nursery.start(Service(Settings(), bus, MemoryStore()).run)
            with measured_stretches() as stretches, trio.fail_after(60):
                await bus.request("build.create", attack)
                for number in range(_HEALTHY):
                    await bus.request("build.create", _build(f"healthy{number}", _change("one")))
                await all_over.wait()
            nursery.cancel_scope.cancel()
    assert sorted(over) == sorted(["heavy", *(f"healthy{number}" for number in range(_HEALTHY))])
    # Not the longest: the first use of something, or the collector, may take as long once or twice.
    assert len(stretches.tasks) < _HEAVY
    assert stretches.tasks[-1].seconds < _MOST, stretches.tasks
