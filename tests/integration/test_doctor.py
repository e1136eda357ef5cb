"""The doctor, as a process, on real brokers."""

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from signal import SIGINT
from typing import Any

import pytest
from nats.errors import TimeoutError as NatsTimeout
from support.brokers import NatsServer, nats_server

from integration.builds import build, component
from integration.conftest import World
from integration.harness import DEADLINE, Scheduler
from scheduler.diagnosis.permissions import publishes

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
Start = Callable[..., World]


@pytest.fixture
def start() -> Iterator[Start]:
    """Worlds with settings for the broker, and JetStream."""
    with ExitStack() as stack:

        def start(config: JSON | None = None, *, jetstream: bool = True) -> World:
            return World(stack, stack.enter_context(nats_server(config, jetstream=jetstream)))

        yield start


def doctor(world: World, *arguments: str) -> Scheduler:
    """Have the broker looked at, without a word about the store except in ``arguments``."""
    variables = {"NATS_URL": world.server.url, "SCHEDULER_STORE": "", "COLUMNS": "80"}
    with Scheduler("doctor", *arguments, env=variables) as command:
        command.wait()
    assert command.errors == ""
    return command


def diagnosis(world: World, *arguments: str) -> JSON:
    """The same, for programs; whether it is healthy is its exit code."""
    command = doctor(world, "--json", *arguments)
    document: JSON = json.loads(command.output)
    assert command.code == (0 if document["healthy"] else 1)
    return document


def levels(document: JSON) -> JSON:
    """The worst that was found of each check."""
    order = ["ok", "note", "warning", "failure"]
    found: JSON = {}
    for finding in document["findings"]:
        worst = max(found.get(finding["check"], "ok"), finding["level"], key=order.index)
        found[finding["check"]] = worst
    return found


def account(permissions: JSON | None = None, **limits: Any) -> JSON:
    """A broker's configuration with one user, and an account for it."""
    user = {"user": "me", "password": "secret", **({"permissions": permissions} if permissions else {})}
    return {"accounts": {"OURS": {"jetstream": limits or "enabled", "users": [user]}}}


def streams(world: World) -> list[str]:
    """The names of all streams on the broker."""
    answer = world.client().request("$JS.API.STREAM.NAMES", {})
    return answer["streams"] or []


def test_a_broker_that_is_well(start: Start) -> None:
    """Everything is tried, told in 80 columns without colours, and gone afterwards; the exit code is 0."""
    world = start()
    command = doctor(world)
    assert command.code == 0, command.output
    lines = list(command.out)
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in command.output
    assert lines[-1].startswith(("All is well.", "A service would run, with 1 warning."))
    assert "nats-server 2.15" in command.output
    assert streams(world) == []


def test_it_tells_programs_what_it_measured(start: Start) -> None:
    """Commits take time, and clocks of one machine agree."""
    document = diagnosis(start())
    assert levels(document)["clock"] == "ok"
    facts = document["facts"]
    assert facts["max_payload"] == 1_048_576
    assert facts["commits"]["count"] == 200
    assert 0 < facts["commits"]["p50_ms"] <= facts["commits"]["p99_ms"]
    assert abs(facts["clock"]["difference_ms"]) <= facts["clock"]["error_ms"] + 1
    assert facts["jetstream"]["limits"]["max_streams"] == -1


def test_no_broker_is_a_finding(start: Start) -> None:
    """With nobody there, or nobody who lets us in, that is all there is to say."""
    world = start(account())
    document = diagnosis(world)
    assert levels(document) == {"connection": "failure"}
    assert "refuses our credentials" in document["findings"][0]["text"]


def test_no_jetstream_is_a_failure_for_who_needs_it(start: Start) -> None:
    """And for nobody else."""
    world = start(jetstream=False)
    assert levels(diagnosis(world))["jetstream"] == "failure"
    assert levels(diagnosis(world, "--store", "memory"))["jetstream"] == "note"


def test_limits_that_are_too_tight_are_failures(start: Start) -> None:
    """An account's room for streams and bytes is compared with what a service takes."""
    world = start(account(max_file=500_000_000, max_streams=3))
    world.server.user_info = "me:secret"
    document = diagnosis(world)
    texts = " ".join(finding["text"] for finding in document["findings"] if finding["level"] == "failure")
    assert "3 streams" in texts
    assert "no room for 1 GiB of captured replies" in texts
    wider = diagnosis(world, "--reply-bytes", "100000000")
    assert "no room" not in str(wider["findings"])


def test_what_is_refused_is_named_with_its_cure(start: Start) -> None:
    """Real refusals of a real server, of both kinds; what needs them is not tried to no purpose."""
    permissions = {
        "publish": {"deny": ["scheduler.log.*", "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG", "*.delete.*"]},
        "subscribe": {"deny": ["build.import", "*.find.*.error"]},
    }
    world = start(account(permissions))
    world.server.user_info = "me:secret"
    document = diagnosis(world)
    assert levels(document)["permissions"] == "failure"
    cures = " ".join(finding["cure"] for finding in document["findings"] if finding["check"] == "permissions")
    for line in ("scheduler.log.*", "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG", "*.delete.*", "build.import"):
        assert f'"{line}"' in cures
    assert '"*.create.*"' not in cures


def test_a_user_who_may_next_to_nothing(start: Start) -> None:
    """Neither JetStream's API nor our own inbox: it is told, and does not take for ever."""
    permissions = {"publish": {"allow": ["nothing"]}, "subscribe": {"allow": ["_INBOX.>"]}}
    world = start(account(permissions))
    world.server.user_info = "me:secret"
    found = levels(diagnosis(world))
    assert found["permissions"] == "failure"
    assert found["jetstream"] == "failure"


def test_nobody_hears_what_is_tried(start: Start) -> None:
    """No request, report or record of the doctor's reaches a subscriber, or a stream that captures them."""
    world = start()
    client = world.client()
    heard = client.listen(">")
    spy = {"name": "SPY", "subjects": ["doctor.*.*", "build.*.done", "scheduler.log.*"]}
    assert "error" not in client.request("$JS.API.STREAM.CREATE.SPY", spy)
    assert levels(diagnosis(world, "--store", "memory"))["permissions"] == "ok"
    diagnosis(world)
    client.flush()
    tried = {subject for need in publishes("jetstream") for subject in need.subjects}
    own = {"$SYS.REQ.USER.INFO", "$JS.API.INFO", "$JS.API.STREAM.NAMES", "scheduler.doctor.commits"}
    own |= {
        subject for subject in tried if subject.startswith("$JS.API.STREAM.") and subject.endswith("_DOCTOR")
    }
    own |= {subject for subject in tried if subject.startswith("$JS.API.STREAM.INFO.")}
    assert not {message.subject for message in heard} & (tried - own)
    assert client.request("$JS.API.STREAM.INFO.SPY", {})["state"]["messages"] == 0


def test_a_service_at_work_is_not_disturbed(start: Start) -> None:
    """Builds submitted while the doctor is at it run as always, and its streams are found to be well."""
    world = start()
    scheduler = world.scheduler(env={"NATS_URL": world.server.url, "SCHEDULER_STORE": ""})
    world.connectors()
    submitter = world.submitter()
    with Scheduler("doctor", "--json", env={"NATS_URL": world.server.url, "SCHEDULER_STORE": ""}) as command:
        while command.running:
            submitter.run(build(component("vpc::1")))
        command.wait()
    document = json.loads(command.output)
    assert document["healthy"], document
    assert levels(document)["streams"] == "ok"
    assert "SCHEDULER_DOCTOR" not in streams(world)
    scheduler.end()


def test_an_interrupted_doctor_leaves_nothing(start: Start) -> None:
    """SIGINT while it tries commits: 130, and its stream is gone."""
    world = start()
    client = world.client()
    commits = client.listen("scheduler.doctor.*")
    with Scheduler("doctor", env={"NATS_URL": world.server.url, "SCHEDULER_STORE": ""}) as command:
        commits.count(1)
        code, _ = command.stop(SIGINT)
    assert code in {130, 0}, command.output
    assert "Traceback" not in command.errors
    assert streams(world) == []


def cluster(stack: ExitStack, size: int) -> list[NatsServer]:
    """Servers with JetStream that know each other; any two of three have a quorum."""
    servers: list[NatsServer] = []
    known = ["nats://127.0.0.1:1", "nats://127.0.0.1:2"]
    for number in range(size):
        settings = {"name": "c", "listen": "127.0.0.1:-1", "routes": list(known)}
        config = {"server_name": f"s{number}", "cluster": settings}
        server = stack.enter_context(nats_server(config, jetstream=True))
        (line,) = (line for line in server.log.splitlines() if "Listening for route connections" in line)
        known = [f"nats://{line.split()[-1]}", *known[:1]]
        servers.append(server)
    return servers


def await_replicas(world: World, number: int) -> None:
    """Wait until so many servers of a cluster know of each other."""
    client = world.client()
    until = time.monotonic() + DEADLINE
    answer: JSON = {"error": "none"}
    while "error" in answer:
        assert time.monotonic() < until, f"the cluster does not come together: {answer}"
        config = {"name": "T", "subjects": ["t"], "num_replicas": number}
        # Without a leader nobody answers.
        with contextlib.suppress(NatsTimeout):
            answer = client.request("$JS.API.STREAM.CREATE.T", config, 1.0)
    client.request("$JS.API.STREAM.DELETE.T", {})


@pytest.mark.long
def test_replicas_in_a_cluster() -> None:
    """As many as there are servers can be had, more cannot; one alone is a warning there."""
    with ExitStack() as stack:
        world = World(stack, cluster(stack, 3)[0])
        await_replicas(world, 3)
        world.scheduler("--replicas", "3", env={"NATS_URL": world.server.url, "SCHEDULER_STORE": ""}).end()
        document = diagnosis(world, "--replicas", "3")
        assert levels(document)["replicas"] == "ok", document
        assert levels(document)["streams"] == "ok", document
        assert levels(diagnosis(world, "--replicas", "5"))["replicas"] == "failure"
        assert levels(diagnosis(world))["replicas"] == "warning"


def test_a_cluster_without_a_leader_is_a_failure() -> None:
    """It is told as such, and not as a broker without JetStream."""
    with ExitStack() as stack:
        world = World(stack, cluster(stack, 1)[0])
        document = diagnosis(world)
        (finding,) = (one for one in document["findings"] if one["check"] == "jetstream")
        assert finding["level"] == "failure"
        assert "have to be up for it to have a leader" in finding["cure"]
