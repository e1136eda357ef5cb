"""The commands, each as a process in a pipe."""

import json
import re
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Any

import pytest

from integration.builds import build, chain, component, failing, held
from integration.conftest import Site, World
from integration.harness import (
    CANARY,
    Client,
    Connectors,
    Scheduler,
    Submitter,
    await_death,
    states,
)
from scheduler import __version__

pytestmark = pytest.mark.integration

JSON = dict[str, Any]
COLOURS = re.compile("\x1b")


@pytest.fixture
def write(tmp_path: Path) -> Any:
    """Writes a build to a file; returns its name."""

    def write(document: JSON) -> str:
        path = tmp_path / f"{document['id']}.json"
        path.write_text(json.dumps(document, indent=2))
        return str(path)

    return write


@pytest.fixture
def start() -> Iterator[Any]:
    """Starts commands without a broker; what is left of them is killed."""
    started: list[Scheduler] = []

    def start(*arguments: str, **variables: str) -> Scheduler:
        started.append(Scheduler(*arguments, env=variables))
        return started[-1]

    yield start
    for command in started:
        command.close()


def test_run_ends_with_0_where_the_build_is_done(site: Site, write: Any) -> None:
    """It submits, follows, and says in plain lines what happened."""
    document = chain(component("vpc::1"), component("net::1"))
    command = site.world.command("run", write(document))
    assert command.code == 0, command.errors
    assert command.errors == ""
    assert "vpc::1" in command.output
    assert "net::1" in command.output
    assert "done" in command.output
    assert not COLOURS.search(command.output)
    site.submitter.done(document)


def test_run_ends_with_1_where_the_build_failed(site: Site, write: Any) -> None:
    """The error is shown."""
    document = chain(failing("vpc::1"), component("net::1"))
    command = site.world.command("run", write(document))
    assert command.code == 1
    assert "no more quota" in command.output + command.errors
    assert "Traceback" not in command.errors


def test_run_ends_with_1_where_the_build_is_invalid(site: Site, write: Any) -> None:
    """Every problem is shown, and nothing is submitted."""
    document = build(component("vpc::1", _action="explode"), component("vpc::1"))
    before = len(site.submitter.reports)
    command = site.world.command("run", write(document))
    assert command.code == 1
    assert "changes[0]._action" in command.errors
    assert CANARY not in command.errors
    site.client.flush()
    assert len(site.submitter.reports) == before


def test_run_ends_with_1_where_the_scheduler_rejects_it(site: Site, write: Any) -> None:
    """Its reason is shown."""
    document = build(held("vpc::1", "rejected"))
    site.submitter.accepted(document)
    command = site.world.command("run", write(document | {"name": "another"}))
    assert command.code == 1
    assert "is running, with other content" in command.errors
    site.connectors.release("rejected")
    site.submitter.done(document)


def test_a_build_is_run_twice(start_world: Any, write: Any) -> None:
    """The second time nothing is sent, and the last line says so; a fresh run has an id of its own."""
    world: World = start_world(jetstream=True)
    scheduler, connectors = world.scheduler("--store", "jetstream"), world.connectors()
    requests = world.client().listen("vpc.create.aws")
    name = write(build(component("vpc::1", size="{{ build.options.size | default(1) }}"), id="twice"))
    first = world.command("run", name)
    assert (first.code, first.errors) == (0, "")
    again = world.command("run", name)
    assert (again.code, again.errors) == (0, "")
    *_, last = again.out
    assert re.fullmatch(r"done since (today|yesterday) [0-9]{2}:[0-9]{2}; nothing was sent", last)
    (line,) = (one for one in again.out if one.startswith("done  1 component in "))
    assert line in list(first.out)
    *_, end = map(json.loads, world.command("run", name, "--json").out)
    assert (end["status"], end["replayed"], end["counts"]["completed"]) == ("done", True, 1)
    other = world.command("run", name, "--set", "size=3")
    assert (other.code, other.output) == (1, "")
    (complaint,) = other.err
    assert complaint.startswith("scheduler: twice ran before, with other content; nothing was sent: ")
    assert connectors.ids() == ["vpc::1"]
    fresh = world.command("run", name, "--set", "size=3", "--fresh")
    assert (fresh.code, fresh.errors) == (0, "")
    told = fresh.out.first(lambda line: line.startswith("twice ran before"))
    made = told.rpartition(" ")[2]
    assert re.fullmatch(r"twice-[0-9]{8}-[0-9]{6}-\w{5}", made)
    assert [(one.json["service"], one.json["size"]) for one in requests] == [("twice", 1), (made, 3)]
    scheduler.end()


def test_a_failed_build_is_not_run_again_by_itself(start_world: Any, write: Any) -> None:
    """The last line names the two ways on; after a retry that succeeded it is done."""
    world: World = start_world(jetstream=True)
    scheduler, _ = world.scheduler("--store", "jetstream"), world.connectors()
    name = write(build(failing("vpc::1"), id="fails"))
    assert world.command("run", name).code == 1
    again = world.command("run", name)
    assert again.code == 1
    *_, last = again.out
    assert last.startswith("errored since ")
    assert last.endswith("; nothing was sent: scheduler retry fails, or run --fresh")
    scheduler.end()


def test_one_file_is_many_builds(site: Site, tmp_path: Path) -> None:
    """In YAML, with ids that are made up, and values from a pipe; what nothing reads is a warning."""
    path = tmp_path / "b.yaml"
    path.write_text(
        "name: many\nchanges:\n- _component_id: vpc::1\n  _component: vpc\n  _action: create\n"
        "  _provider: aws\n  zone: '{{ build.options.zone }}'\n"
    )
    made, requests = [], site.client.listen("vpc.create.aws")
    for zone in ("a", "b"):
        flags = ["--id", "auto", "--values", "-", "--set", "zoen=1"]
        command = site.world.command("run", str(path), *flags, text=f"zone: {zone}")
        assert command.code == 0, command.errors
        (warning,) = command.err
        assert (
            warning == "scheduler: warning: --set zoen: nothing in the build reads it; did you mean 'zone'?"
        )
        made.append(command.out.first(lambda line: line.startswith("build many-")).removeprefix("build "))
    found = [one.json for one in requests if one.json["service"] in made]
    assert [(one["service"], one["zone"]) for one in found] == list(zip(made, ("a", "b"), strict=True))
    assert made == sorted(set(made))


@pytest.mark.parametrize("number", [SIGINT, SIGTERM])
def test_an_interrupted_run_leaves_the_build_alone(site: Site, write: Any, number: Any) -> None:
    """It ends with 128 and the signal's number; the build goes on without it."""
    document = build(held("vpc::1", f"interrupted {number}"))
    command = Scheduler("run", write(document), env={"NATS_URL": site.world.server.url})
    with command:
        site.connectors.await_requests(document["id"], "vpc::1")
        code, _ = command.stop(number)
        assert code == 128 + number
        assert "Traceback" not in command.errors
    site.connectors.release(f"interrupted {number}")
    site.submitter.done(document)


def test_without_a_scheduler_run_says_so(world: World, write: Any) -> None:
    """At once, with the cure."""
    command = world.command("run", write(build(component("vpc::1"))))
    assert command.code == 1
    assert "no scheduler answers" in command.errors
    assert len(list(command.err)) == 1


def test_a_build_over_max_payload_cannot_be_run(start_world: Any, write: Any) -> None:
    """The error names the broker's limit; the scheduler does not hear of it."""
    world: World = start_world({"max_payload": 20_000})
    scheduler = world.scheduler()
    command = world.command("run", write(build(component("vpc::1", text="x" * 20_000))))
    assert command.code == 1
    assert "20,000 bytes" in command.errors
    assert len(list(command.err)) == 1
    scheduler.end()


def test_validate_tells_good_from_bad(site: Site, write: Any) -> None:
    """0 and 1; a dash is standard input."""
    good = chain(component("vpc::1"), component("net::1"))
    bad = chain(component("vpc::1"), component("net::1"), component("vpc::1"))
    assert site.world.command("validate", write(good)).code == 0
    refused = site.world.command("validate", write(bad))
    assert refused.code == 1
    assert "changes[2]._component_id" in refused.errors + refused.output
    assert site.world.command("validate", "-", text=json.dumps(good)).code == 0
    assert site.world.command("validate", "-", text="{").code == 1


def test_validate_asks_for_connectors(site: Site, write: Any) -> None:
    """What nobody subscribes to is named."""
    good = build(component("vpc::1"))
    taken = site.world.command("validate", write(good), "--connectors")
    assert taken.code == 0, taken.errors
    bad = build(component("vpc::1", _provider="nobody"))
    untaken = site.world.command("validate", write(bad), "--connectors")
    assert untaken.code == 1
    assert "vpc.create.nobody" in untaken.output


def test_simulated_connectors_serve_a_build(world: World) -> None:
    """They answer for any type and provider, until a signal ends them with 0."""
    scheduler, submitter = world.scheduler(), world.submitter()
    simulator = Scheduler("simulate", "--latency=0.01", "--jitter=0", env={"NATS_URL": world.server.url})
    with simulator:
        simulator.out.first(lambda line: line.startswith("answering"))
        submitter.run(chain(component("vpc::1", _provider="azure"), component("net::1", action="find")))
        code, _ = simulator.stop()
        assert code == 0, simulator.errors
        assert "2 done" in simulator.output
        assert simulator.errors == ""
    scheduler.end()


@pytest.mark.parametrize("more", [[], ["--components", "30"]], ids=["example", "made up"])
def test_the_demo_in_a_pipe(start: Any, tmp_path: Path, more: list[str]) -> None:
    """Plain lines, exit code 0, and nothing left behind."""
    demo = start("demo", "--latency=0.01", "--jitter=0", *more, TMPDIR=str(tmp_path))
    assert demo.wait() == 0, demo.errors
    assert demo.errors == ""
    assert not COLOURS.search(demo.output)
    assert ("30 components" if more else "elb::test-elb") in demo.output
    assert not list(tmp_path.iterdir())


def test_run_with_everything_embedded(start: Any, write: Any) -> None:
    """One command, no broker, no scheduler, no connectors."""
    document = chain(component("vpc::1"), component("net::1"))
    command = start("run", write(document), "--embedded", "--simulate", "--latency=0.01", "--jitter=0")
    assert command.wait() == 0, command.errors
    assert "net::1" in command.output


def test_run_simulate_invents_what_references_ask_for(start: Any, write: Any, tmp_path: Path) -> None:
    """A build that needs a number in a list, with a script that lets each request fail once."""
    needy = component("net::1", first="{{ components['vpc::1'].servers[1].port + 1 }}")
    document = chain(component("vpc::1"), needy)
    document["options"] = {"retry": {"attempts": 2, "backoff": 0.01}}
    rules, report = tmp_path / "rules.yaml", tmp_path / "report.json"
    rules.write_text('"*":\n  seconds: 10ms\n  fail: {first: 1, error: no capacity}\n  output: {zone: a}\n')
    flags = ("--embedded", "--simulate", f"--behaviour={rules}", f"--output={report}")
    command = start("run", write(document), *flags)
    assert command.wait() == 0, command.errors
    changes = json.loads(report.read_text())["changes"]
    assert isinstance(changes[1]["first"], int)
    assert [change["zone"] for change in changes] == ["a", "a"]


@pytest.mark.parametrize(
    ("arguments", "variables", "expected"),
    [
        (["--grace=soon"], {}, "--grace"),
        ([], {"SCHEDULER_GRACE": "-1"}, "SCHEDULER_GRACE"),
        (["--nats-url", f"nats://me:{CANARY}@host:port"], {}, "--nats-url"),
        (["--nonsense"], {}, "--nonsense"),
        (["run"], {}, "FILE"),
        (["--token", CANARY, "--user=me", f"--password={CANARY}"], {}, "--token"),
        (["--nkey", "/does/not/exist"], {}, "nkey"),
    ],
)
def test_a_wrong_value_is_one_clear_line(
    start: Any, arguments: list[str], variables: dict[str, str], expected: str
) -> None:
    """On standard error, naming the flag or the variable; exit code 2."""
    command = start(*arguments, **variables)
    assert command.wait() == 2, command.errors
    (line,) = command.err
    assert expected in line
    assert CANARY not in line
    assert command.output == ""


def test_the_version(start: Any) -> None:
    """It is printed, and that is all."""
    command = start("--version")
    assert command.wait() == 0
    assert list(command.out) == [__version__]


class Embedded:
    """A service with its own broker, and who connects to that."""

    def __init__(self, scheduler: Scheduler) -> None:
        scheduler.await_log("ready")
        self.broker: int = scheduler.await_log("started a broker")["pid"]
        self.url = scheduler.out.first(lambda line: line.startswith("broker: ")).removeprefix("broker: ")
        self.token = self.url.partition("//")[2].partition("@")[0]


def test_an_embedded_broker_serves_and_ends_with_the_service(start: Any, tmp_path: Path) -> None:
    """Connectors join by the printed URL; its token is not in the log; SIGTERM ends both."""
    scheduler = start("--embedded", f"--data-dir={tmp_path}")
    embedded = Embedded(scheduler)
    client = Client(embedded.url)
    with Connectors(embedded.url) as connectors, closing(client):
        document = chain(component("vpc::1"), component("net::1"))
        assert set(states(Submitter(client).run(document)).values()) == {"completed"}
        assert connectors.ids() == ["vpc::1", "net::1"]
    scheduler.end()
    await_death(embedded.broker)
    assert embedded.token not in scheduler.errors


def test_other_commands_find_an_embedded_broker(start: Any, write: Any, tmp_path: Path) -> None:
    """Without any flag, but not another service; after a restart it is where it was, with its token."""
    first = start("--embedded", f"--data-dir={tmp_path / 'data'}")
    embedded = Embedded(first)
    with start("simulate", "--latency=0.01", "--jitter=0") as connectors:
        connectors.out.first(lambda line: line.startswith("answering on"))
        command = start("run", write(chain(component("vpc::1"))))
        assert command.wait() == 0, command.errors
        assert "using the embedded broker at nats://127.0.0.1:" in command.errors
    assert embedded.token not in command.errors + command.output + connectors.errors
    listed = start("list", "--all")
    assert listed.wait() == 0, listed.errors
    refused = start("status", "no-such-build")
    assert refused.wait() == 1
    assert "(asked the embedded broker at nats://127.0.0.1:" in refused.errors
    first.end()
    again = start("--embedded", f"--data-dir={tmp_path / 'data'}")
    assert Embedded(again).url == embedded.url
    again.end()
    assert start("list", "--nats-url", "nats://127.0.0.1:1").wait() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel ends the child on Linux only")
def test_an_embedded_broker_does_not_survive_a_kill(start: Any, tmp_path: Path) -> None:
    """And its data directory can be used again at once."""
    scheduler = start("--embedded", f"--data-dir={tmp_path}")
    embedded = Embedded(scheduler)
    scheduler.kill()
    await_death(embedded.broker)
    again = start("--embedded", f"--data-dir={tmp_path}")
    again.await_log("ready")
    again.end()


def test_two_services_cannot_share_a_data_directory(start: Any, tmp_path: Path) -> None:
    """The second says who uses it, in one line, and the first is not disturbed."""
    first = start("--embedded", f"--data-dir={tmp_path}")
    first.await_log("ready")
    second = start("--embedded", f"--data-dir={tmp_path}")
    assert second.wait() == 1
    (line,) = second.err
    assert "is in use" in line
    assert str(first.pid) in line
    first.end()
