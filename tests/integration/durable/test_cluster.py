"""Three brokers: one of them goes away, and streams of one copy become streams of three."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.clusters import ask, cluster

from integration.builds import build, component
from integration.durable.losing import KINDS, Trial
from integration.durable.reader import REPLIES
from integration.harness import Client, Connectors, Scheduler, Submitter

pytestmark = [pytest.mark.integration, pytest.mark.long]

OTHERS = ("SCHEDULER_LOG", "SCHEDULER_REPORTS", "OBJ_SCHEDULER_OBJECTS")


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def test_no_component_waits_for_its_timeout_when_a_broker_goes(stack: ExitStack, tmp_path: Path) -> None:
    """However it goes, where it led the stream of replies, and we were connected to it.

    ``python -m integration.durable.losing`` does the same twenty times each, with larger builds.
    """
    trial = Trial(stack, stack.enter_context(cluster()), tmp_path)
    for kind in KINDS:
        found = trial.round(kind, 1_000)
        assert (found.stuck, found.unasked) == (0, 0), found
    trial.service.check_log()


def test_from_one_copy_to_three(stack: ExitStack) -> None:
    """What the log names as the cure of each stream works; the captured replies' stream is made again."""
    servers = stack.enter_context(cluster())
    url = servers.servers[0].url

    def start(replicas: int) -> Scheduler:
        env = {"NATS_URL": servers.url, "SCHEDULER_STORE": "jetstream", "SCHEDULER_REPLICAS": str(replicas)}
        service = Scheduler(env=env)
        stack.callback(service.close)
        service.await_log("ready")
        return service

    connectors = Connectors(url)
    stack.callback(connectors.close)
    client = Client(url)
    stack.callback(client.close)
    submitter = Submitter(client)
    service = start(1)
    submitter.run(build(component("vpc::1")))
    service.end()
    service = start(3)
    deviations = [line["deviation"] for line in service.log if "deviation" in line]
    for stream in OTHERS:
        (line,) = (line for line in deviations if stream in line)
        assert line.endswith(f"change it: nats stream edit {stream} '--replicas=3'")
    (line,) = (line for line in deviations if REPLIES in line)
    assert line.endswith(f"while no build runs, nats stream rm {REPLIES}, then start again")
    service.end()
    # As `nats stream edit` does.
    for stream in (*OTHERS, REPLIES):
        config = ask(url, f"$JS.API.STREAM.INFO.{stream}")["config"] | {"num_replicas": 3}
        answer = ask(url, f"$JS.API.STREAM.UPDATE.{stream}", config)
        assert ("error" in answer) == (stream == REPLIES), answer
    for stream in OTHERS:
        servers.await_current(stream)
    assert ask(url, f"$JS.API.STREAM.DELETE.{REPLIES}")["success"]
    service = start(3)
    assert [line["deviation"] for line in service.log if "deviation" in line] == [
        f"stream {REPLIES} was missing beside SCHEDULER_LOG: it was made again, and what it held is lost"
    ]
    assert ask(url, f"$JS.API.STREAM.INFO.{REPLIES}")["config"]["num_replicas"] == 3
    submitter.run(build(component("vpc::2"), component("net::2"), edges="vpc::2 net::2"))
    service.end()
