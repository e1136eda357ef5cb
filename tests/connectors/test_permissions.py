"""The shipped permissions let a connector of the kit do its part."""

import re
from pathlib import Path

import pytest
import trio
from support.brokers import NatsServer

from scheduler.bus import Message
from scheduler.bus.nats import NatsBus, open_bus
from scheduler.bus.options import BusOptions
from scheduler.commands.permissions import read_permissions
from scheduler.connectors import Connectors, Context, MemoryStore
from scheduler.connectors.bucket import BucketStore

pytestmark = pytest.mark.integration


class Returning(MemoryStore):
    """A record of an attempt without an answer."""

    durable = True

    async def unanswered(self) -> list[str]:
        return ["b/a/1"]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> NatsServer:
    """A broker with the shipped configuration, to be started."""
    for user in ("SCHEDULER", "CONNECTOR", "UPLOADER", "SUBMITTER", "OPERATOR"):
        monkeypatch.setenv(f"NATS_{user}_PASSWORD", "secret-password")
    monkeypatch.setenv("NATS_STORE_DIR", str(tmp_path / "store"))
    server = NatsServer(tmp_path)
    server.text = re.sub(r"(?m)^listen: .*$", "", read_permissions())
    return server


@pytest.mark.parametrize("bucket", ["", "connectors_aws"])
async def test_a_connector_may_do_all_that_it_does(server: NatsServer, bucket: str) -> None:
    """It answers, beats, listens for cancellations and returns, and the broker holds nothing against it.

    With a bucket, also all that its record needs, once the lines for that are no comments any more.
    """
    if bucket:
        server.text = re.sub(rf'(?m)# (".*{bucket}.*)$', r"\1", server.text)
    connectors = Connectors("aws", store=BucketStore(bucket) if bucket else Returning())
    answered = trio.Event()

    @connectors.create("vpc")
    async def create(context: Context) -> None:
        context.progress(0.5)

    def options(user: str) -> BusOptions:
        return BusOptions(
            (server.url,), user=user, password="secret-password", inbox_prefix=f"_INBOX.{user}"
        )  # fmt: skip

    def hear(message: Message) -> None:
        assert b'"completed"' in message.data, message.data
        answered.set()

    async def ask(bus: NatsBus) -> None:
        headers = {
            "Scheduler-Heartbeat": "scheduler.beat.o.aws.t",
            "Nats-Msg-Id": "b/a/1",
            "Scheduler-Component-Key": "b/a",
        }
        bus.publish("vpc.create.aws", b"{}", reply="scheduler.reply.o.aws.t", headers=headers)
        with trio.fail_after(20):
            await answered.wait()

    server.start()
    try:
        async with open_bus(options("scheduler")) as bus, open_bus(options("connector")) as theirs:
            await bus.subscribe("scheduler.reply.*.*.*", hear)
            async with trio.open_nursery() as nursery:
                await nursery.start(connectors.engine(theirs).run)
                await ask(bus)
                nursery.cancel_scope.cancel()
            await theirs.flush()
        assert [line for line in server.log.splitlines() if "iolation" in line] == []
    finally:
        server.kill()
