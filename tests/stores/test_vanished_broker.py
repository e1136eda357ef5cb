"""A real server whose streams are purged and removed, whose limits change, and whose disk fails."""

import json
import os
import resource
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from attrs import define, evolve, field
from conftest import ServerFactory
from support.brokers import NatsServer, eventually
from support.builds import Run, build
from support.builds import change as node
from support.fakes import JSON, change, document, encode, states

from scheduler.bus import Message
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.config import Settings
from scheduler.errors import LogMissing
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import LOG, REPORTS, log_subject
from scheduler.journal.events import Accepted, Finished
from scheduler.plan.summary import report_of
from scheduler.process import open_store
from scheduler.service import Service
from scheduler.stores.jetstream import JetStreamStore
from scheduler.supervision.reporting import Recorder

pytestmark = pytest.mark.integration

MIB = 1024 * 1024


@define
class Scene:
    """The service on a real server, and a connector that answers on command."""

    server: NatsServer
    bus: NatsBus
    js: JetStream
    service: Service
    requests: dict[str, tuple[Message, JSON]] = field(factory=dict)
    reports: list[tuple[str, JSON]] = field(factory=list)

    async def listen(self) -> None:
        await self.bus.subscribe("*.create.aws", self._request)
        for suffix in ("done", "error"):
            await self.bus.subscribe(f"build.create.{suffix}", self._report)

    def _request(self, message: Message) -> None:
        body = json.loads(message.data)
        self.requests[body["_component_id"]] = (message, body)

    def _report(self, message: Message) -> None:
        self.reports.append((message.subject, json.loads(message.data)))

    async def submit(self, value: JSON) -> None:
        with trio.fail_after(20):
            answer = json.loads((await self.bus.request("build.create", encode(value))).data)
        assert answer["status"] == "accepted", answer

    async def asked(self, name: str) -> None:
        await eventually(lambda: name in self.requests, 20)

    def answer(self, name: str) -> None:
        message, body = self.requests[name]
        self.bus.publish(message.reply, encode({**body, "_state": "completed"}))

    async def ask(self, verb: str, **document: Any) -> JSON:
        with trio.fail_after(20):
            body = encode(document)
            answer: JSON = json.loads((await self.bus.request(f"scheduler.build.{verb}", body)).data)
        return answer

    async def reported(self, count: int = 1) -> JSON:
        await eventually(lambda: len(self.reports) >= count, 30)
        return self.reports[count - 1][1]

    async def reload(self, **config: Any) -> None:
        """Have the server read a changed configuration."""
        self.server.config.update(config)
        (self.server.folder / "server.conf").write_text(json.dumps(self.server.config))
        os.kill(self.server.pid, signal.SIGHUP)
        await eventually(lambda: "Reloaded server configuration" in self.server.log, 10)


@asynccontextmanager
async def open_scene(server: NatsServer) -> AsyncIterator[Scene]:
    with trio.fail_after(110):
        async with open_bus(BusOptions((server.url,)), connect_deadline=5) as bus:
            settings = Settings(store="jetstream", grace=0.1)
            store = await open_store(settings, bus)
            assert isinstance(store, JetStreamStore)
            service = Service(settings, bus, store)
            async with trio.open_nursery() as nursery:
                await nursery.start(service.run)
                scene = Scene(server, bus, store.js, service)
                await scene.listen()
                yield scene
                nursery.cancel_scope.cancel()


async def test_a_report_of_more_than_32_mib(start_nats_server: ServerFactory) -> None:
    """The server takes messages of 64 MiB, and its file store does not: it goes by the object store."""
    server = start_nats_server({"max_payload": 64 * MIB}, jetstream=True)
    async with open_scene(server) as scene:
        run = Run(build(node("a"), id="b9"))
        run.send("a")
        run.reply("a")
        small = report_of(run.plan)
        report = evolve(small, fields={**small.fields, "notes": "x" * (33 * MIB)})
        store = scene.service.persistence.store
        assert isinstance(store, JetStreamStore)
        await store.append("b9", [Accepted({"id": "b9"}, "d1")])
        await store.append("b9", [Finished(None)])
        await Recorder(scene.bus, store).report("b9", report)
        told = await scene.reported()
        data = await Objects(scene.js).get(told["object"], most=64 * MIB)
        assert data == b"".join(report.chunks())


async def test_a_build_of_more_than_32_mib(start_nats_server: ServerFactory) -> None:
    """It is accepted, and reported."""
    server = start_nats_server({"max_payload": 64 * MIB}, jetstream=True)
    async with open_scene(server) as scene:
        exists = [{**change(f"e{n}", text="x" * 250_000), "_state": "completed"} for n in range(140)]
        await scene.submit({**document("a"), "components": exists})
        await scene.asked("a")
        scene.answer("a")
        told = await scene.reported()
        data = json.loads(await Objects(scene.js).get(told["object"], most=64 * MIB) or b"{}")
        assert len(data["components"]) == 141


async def test_a_limit_that_is_lowered_by_a_reload(start_nats_server: ServerFactory) -> None:
    """The build that runs ends as it would have; what is too large for a request now fails, clearly."""
    server = start_nats_server({"max_payload": 8 * MIB}, jetstream=True)
    async with open_scene(server) as scene:
        large = change("large", text="x" * 200_000)
        await scene.submit(document(["a", large, "z"], [("a", "large")]))
        await scene.asked("z")
        await scene.reload(max_payload=100_000)
        scene.answer("z")
        scene.answer("a")
        told = await scene.reported()
        assert scene.bus.max_payload == 100_000
        report = json.loads(await Objects(scene.js).get(told["object"], most=8 * MIB) or b"{}")
        assert states(report) == {"a": "completed", "large": "errored", "z": "completed"}
        assert "max_payload of 100000 bytes" in report["error"]


async def test_a_build_whose_log_is_purged(jetstream_server: NatsServer) -> None:
    """The only one there is: it is reported as failed, and the service continues."""
    async with open_scene(jetstream_server) as scene:
        await scene.submit(document("ab", [("a", "b")]))
        await scene.asked("a")
        await scene.js.purge(LOG, log_subject("b1"))
        scene.answer("a")
        report = await scene.reported()
        assert states(report) == {"a": "completed", "b": "waiting"}
        assert "removed from SCHEDULER_LOG" in report["error"]
        scene.requests.clear()
        await scene.submit(document("a"))
        await scene.asked("a")
        scene.answer("a")
        assert "error" not in await scene.reported(2)


async def test_a_purged_log_ends_the_service(jetstream_server: NatsServer) -> None:
    """Loudly, as where it is missing."""
    gone = pytest.RaisesExc(LogMissing, match="purged")
    with pytest.RaisesGroup(gone, allow_unwrapped=True, flatten_subgroups=True):
        async with open_scene(jetstream_server) as scene:
            await scene.submit(document("ab", [("a", "b")]))
            await scene.asked("a")
            await scene.js.purge(LOG, ">")
            scene.answer("a")
            await trio.sleep(20)


async def test_reports_that_are_removed(jetstream_server: NatsServer) -> None:
    """The report is published once there is a stream for it again; until then it is said that it waits."""
    async with open_scene(jetstream_server) as scene:
        await scene.submit(document("a"))
        await scene.asked("a")
        await scene.js.call(f"STREAM.DELETE.{REPORTS}")
        scene.answer("a")
        await trio.sleep(2)
        assert "SCHEDULER_REPORTS is gone" in (await scene.ask("get", id="b1"))["report"]
        assert [one["id"] for one in (await scene.ask("list", all=True))["builds"]] == ["b1"]
        await scene.reported()
        assert (await scene.js.info(REPORTS)).messages == 1


@pytest.mark.skipif(
    sys.platform != "linux", reason="the size of another process's files is limited by prlimit"
)
async def test_a_storage_that_has_failed(jetstream_server: NatsServer) -> None:
    """The server says nothing to what is written from then on: that is said, with what ends it."""
    async with open_scene(jetstream_server) as scene:
        await scene.submit(document("ab", [("a", "b")]))
        await scene.asked("a")
        await trio.sleep(1)
        limits = resource.prlimit(jetstream_server.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(jetstream_server.pid, resource.RLIMIT_FSIZE, (1, limits[1]))
        scene.answer("a")
        await trio.sleep(2)
        resource.prlimit(jetstream_server.pid, resource.RLIMIT_FSIZE, limits)
        store = scene.service.persistence.store
        assert isinstance(store, JetStreamStore)
        await eventually(lambda: "storage has failed" in store.trouble, 40)
        jetstream_server.stop()
        jetstream_server.start()
        await scene.asked("b")
        scene.answer("b")
        assert "error" not in await scene.reported()
