"""An Ernest installation for integration tests: a store as another process, connectors, and a submitter."""

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from support.brokers import nats_server

from integration.conftest import World
from integration.harness import Connectors, Process, Scheduler, Submitter

JSON = dict[str, Any]


class ServiceStore(Process):
    """``tests/support/ernest_service_store.py``, with what it has recorded."""

    def __init__(self, url: str, folder: Path, *arguments: str) -> None:
        self.record = folder / "record"
        script = str(Path(__file__).parents[1] / "support" / "ernest_service_store.py")
        super().__init__(sys.executable, script, url, "--record", str(self.record), *arguments)
        self.out.first(lambda line: line == "ready")

    def requests(self, build_id: str | None = None) -> list[tuple[str, JSON]]:
        """What it was asked and told so far: subject and body."""
        lines = [json.loads(line) for line in self.record.read_text().splitlines()]
        return [
            (line["subject"], line["body"])
            for line in lines
            if build_id is None or build_id in {line["body"].get("id"), line["body"].get("service")}
        ]


class Ernest:
    """A broker with a store and connectors; schedulers are started by the tests."""

    def __init__(self, stack: ExitStack, folder: Path, *arguments: str, jetstream: bool = False) -> None:
        self.world = world = World(stack, stack.enter_context(nats_server(jetstream=jetstream)))
        self.store = ServiceStore(world.server.url, folder, *arguments)
        stack.callback(self.store.close)
        self.connectors: Connectors = world.connectors()
        self.submitter: Submitter = world.submitter()
        self.schedulers: list[Scheduler] = []

    def scheduler(self, *arguments: str, ready: bool = True) -> Scheduler:
        scheduler = self.world.scheduler("--store", "ernest", *arguments, ready=False)
        self.schedulers.append(scheduler)
        if ready:
            scheduler.await_log("ready")
        return scheduler

    def stored(self, document: JSON) -> JSON:
        """A build as the store has it."""
        return self.submitter.client.request("build.get.mapping", {"id": document["id"]})

    def check_one_report(self, document: JSON) -> None:
        self.submitter.client.flush()
        assert len(self.submitter.reports_of(document["id"])) == 1
