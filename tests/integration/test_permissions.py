"""The shipped permissions, on a real broker: everybody can do their part, and nothing else."""

import json
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.brokers import NatsServer

from integration.builds import build, chain, component, failing, held, silent
from integration.harness import Client, Connectors, Feed, Scheduler, Submitter, states
from scheduler.commands.permissions import read_permissions
from scheduler.diagnosis.permissions import SUBSCRIPTIONS, publishes
from scheduler.dispatch.senders import sender_of

pytestmark = pytest.mark.integration

USERS = ("scheduler", "connector", "uploader", "submitter", "operator")
PASSWORDS = {user: f"{user}-password" for user in USERS}


class Recorder(Client):
    """A client that keeps what the broker holds against it."""

    def __init__(self, url: str, **options: Any) -> None:
        self.violations: Feed[str] = Feed()
        super().__init__(url, **options)

    async def _ignore(self, error: Exception) -> None:
        self.violations.append(str(error))


class Guarded:
    """A broker with the shipped configuration."""

    def __init__(self, stack: ExitStack, folder: Path) -> None:
        variables = {f"NATS_{user.upper()}_PASSWORD": password for user, password in PASSWORDS.items()}
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in {**variables, "NATS_STORE_DIR": str(folder / "store")}.items():
            patch.setenv(name, value)
        self._stack = stack
        self.server = NatsServer(folder)
        self.server.text = self.text()
        self.server.start()
        stack.callback(self.server.kill)

    @staticmethod
    def text(*providers: str) -> str:
        """The shipped configuration, where these providers' replies are captured apart."""
        # The one line that a test cannot use: its port is the system's choice.
        text, number = re.subn(r"(?m)^listen: .*$", "", read_permissions(providers))
        assert number == 1
        return text

    def url(self, user: str) -> str:
        return f"nats://{user}:{PASSWORDS[user]}@127.0.0.1:{self.server.port}"

    def scheduler(
        self,
        *arguments: str,
        user: str = "scheduler",
        ready: bool = True,
        cwd: Path | None = None,
        **more: str,
    ) -> Scheduler:
        variables = {"NATS_URL": self.url(user), "SCHEDULER_STORE": "", **more}
        scheduler = Scheduler(*arguments, env=variables, cwd=cwd)
        self._stack.callback(scheduler.close)
        if ready:
            scheduler.await_log("ready", store="jetstream")
        return scheduler

    def command(self, user: str, *arguments: str, **variables: str) -> Scheduler:
        """Run a command to its end."""
        command = self.scheduler(*arguments, user=user, ready=False, cwd=None, **variables)
        command.wait()
        return command

    def connectors(self) -> Connectors:
        connectors = Connectors(self.url("connector"))
        self._stack.callback(connectors.close)
        return connectors

    def client(self, user: str) -> Recorder:
        client = Recorder(self.url(user), inbox_prefix=f"_INBOX.{user}".encode())
        self._stack.callback(client.close)
        return client

    def check_log(self) -> None:
        """Nobody has tried what they may not."""
        assert not [line for line in self.server.log.splitlines() if "iolation" in line]


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Guarded]:
    """A broker of the test's own."""
    with ExitStack() as stack:
        yield Guarded(stack, tmp_path)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """One for all who are refused, with a scheduler and a finished build."""
    with ExitStack() as stack:
        guarded = Guarded(stack, tmp_path_factory.mktemp("guarded"))
        guarded.scheduler()
        guarded.connectors()
        submitter = Submitter(guarded.client("submitter"))
        submitter.run(build(component("vpc::1"), id="finished"))
        secret = component("vpc::1", password="hunter2hunter2", text="x" * 9_000)
        submitter.run(build(secret, id="secret"))
        yield guarded


def test_everybody_can_do_their_part(guarded: Guarded) -> None:
    """Builds, errors, replies of either kind, also while no scheduler is there, events: all is allowed."""
    scheduler, connectors = guarded.scheduler(), guarded.connectors()
    client = guarded.client("submitter")
    submitter, events = Submitter(client), client.listen("scheduler.event.*")
    first = chain(
        component("vpc::1"), component("net::1", {"on": "inbox"}), component("vm::1", action="find")
    )
    assert set(states(submitter.run(first)).values()) == {"completed"}
    document = build(failing("vpc::1"), action="build.delete")
    submitter.accepted(document)
    submitter.failed(document)
    events.first(lambda message: message.json["build"] == first["id"])
    client.ping("scheduler")
    assert len(client.request_many("$SRV.INFO", 1)) == 1
    broken = build(component("vpc::1", _action="explode"))
    assert submitter.submit(broken)["status"] == "rejected"
    submitter.publish(broken)
    submitter.reports.first(lambda message: message.subject == "build.create.error", what="the refusal")
    # A reply while no scheduler is there, and a request that follows from it.
    cut = chain(held("vpc::2", "gate"), component("net::2"))
    submitter.accepted(cut)
    connectors.await_requests(cut["id"], "vpc::2")
    scheduler.kill()
    connectors.release("gate")
    connectors.await_event("reply", build=cut["id"], id="vpc::2")
    scheduler = guarded.scheduler()
    assert set(states(submitter.done(cut)).values()) == {"completed"}
    # A look at it, which submitters have too, and a new run, which takes an operator.
    operator = guarded.client("operator")
    broken = build(failing("vpc::3"))
    submitter.accepted(broken)
    submitter.failed(broken)
    assert client.request("scheduler.build.get", {"id": broken["id"]})["status"] == "errored"
    assert operator.request("scheduler.build.retry", {"id": broken["id"]})["components"] == 1
    scheduler.end()
    assert not list(client.violations)
    assert not list(operator.violations)
    guarded.check_log()


def test_a_connector_beats_is_told_what_is_given_up_and_comes_back(guarded: Guarded) -> None:
    """On plain NATS, under its own user: also for requests of a scheduler that was killed."""
    scheduler = guarded.scheduler()
    connector, operator = guarded.client("connector"), guarded.client("operator")
    requests, cancelled = connector.listen("*.create.aws"), connector.listen("scheduler.cancel.*.*.aws")
    events, submitter = operator.listen("scheduler.event.*"), Submitter(operator)

    document = build(component("vpc::1", _heartbeat=3_600))
    submitter.accepted(document)
    first = requests.first(lambda _: True)
    assert first.headers["Scheduler-Heartbeat-Within"] == "3600"
    said = {"instance": "aws-7", "progress": 0.4, "message": "attaching"}
    connector.publish(first.headers["Scheduler-Heartbeat"], said)
    [beat] = events.first(lambda message: "beats" in message.json).json["beats"]
    assert beat.items() >= {"component": "vpc::1", "attempt": 1, **said}.items()
    question = {"id": document["id"], "components": True}
    [told] = operator.request("scheduler.build.get", question)["components"]
    assert told.items() >= said.items()

    scheduler.kill()
    scheduler = guarded.scheduler()
    # On the subject of the one that was killed.
    connector.publish(first.headers["Scheduler-Heartbeat"], {**said, "progress": 0.6})
    events.first(lambda message: message.json.get("beats", [{}])[0].get("progress") == 0.6)
    attempt = first.headers["Nats-Msg-Id"]
    connector.publish("scheduler.returned.aws", {"instance": "aws-7", "attempts": [attempt, "x"]})
    second = requests.count(2)[1]
    assert (second.headers["Nats-Msg-Id"], second.data) == (attempt, first.data)
    connector.publish(second.reply, {**second.json, "_state": "completed"})
    assert set(states(submitter.done(document)).values()) == {"completed"}

    lost = build(component("vpc::2", _heartbeat=0.3))
    submitter.accepted(lost)
    text = "connector lost: no heartbeat for 0.3 s (it never sent one)"
    assert submitter.failed(lost)["error"] == f"vpc::2: {text}"
    message = cancelled.first(lambda _: True)
    assert (message.subject, message.reply) == ("scheduler.cancel.vpc.create.aws", "")
    assert message.json.items() >= {"component": "vpc::2", "reason": text}.items()
    assert message.json["attempt"] == requests.count(3)[2].headers["Nats-Msg-Id"]
    assert not list(connector.violations)
    guarded.check_log()


def test_with_permissions_of_an_earlier_version_builds_run_as_ever(guarded: Guarded) -> None:
    """What is refused is logged with its cure, and the absence of heartbeats fails nothing."""
    for refused in (', "scheduler.returned.*"', '"scheduler.beat.*.*.*"', '"scheduler.cancel.*.*.*"'):
        assert refused in guarded.server.text
        guarded.server.text = guarded.server.text.replace(refused, "")
    guarded.server.restart()
    scheduler, connectors = guarded.scheduler(), guarded.connectors()
    unheard = "heartbeats of connectors are not heard, and their absence fails nothing"
    scheduler.await_log(unheard, cure='"scheduler.beat.*.*.*"')
    scheduler.await_log("connectors that come back are not heard, and get no request again")
    submitter = Submitter(guarded.client("submitter"))
    document = build(component("vpc::1", {"latency": 1.0}, _heartbeat=0.1))
    assert set(states(submitter.run(document)).values()) == {"completed"}
    late = build(silent("vpc::2", _timeout=0.3))
    submitter.accepted(late)
    assert submitter.failed(late)["error"] == "vpc::2: timed out after 0.3 s"
    submitter.run(build(component("vpc::3")))
    assert connectors.ids(document["id"]) == ["vpc::1"]


def test_so_they_can_where_the_broker_restarts(guarded: Guarded) -> None:
    """Everything is subscribed and followed anew, without a violation."""
    scheduler, connectors = guarded.scheduler(), guarded.connectors()
    client = guarded.client("submitter")
    submitter = Submitter(client)
    submitter.run(build(component("vpc::1")))
    guarded.server.restart()
    client.reconnects.count(1)
    connectors.await_event("reconnected")
    scheduler.await_log("connected to the broker", times=2)
    submitter.run(build(component("vpc::1")))
    guarded.check_log()


def test_so_they_can_where_replies_are_captured_by_provider(guarded: Guarded) -> None:
    """A reply while no scheduler is there counts, captured before the setting is changed or after."""
    guarded.server.text = guarded.text("aws", "gcp")
    guarded.server.restart()
    scheduler, connectors = guarded.scheduler(), guarded.connectors()
    submitter = Submitter(guarded.client("submitter"))
    for number, providers in enumerate(("aws,gcp", "aws,gcp", "")):
        cut = chain(
            component(f"vpc::{number}", {"hold": f"gate {number}", "on": "inbox"}), component("net::1")
        )
        submitter.accepted(cut)
        connectors.await_requests(cut["id"], f"vpc::{number}")
        scheduler.kill()
        connectors.release(f"gate {number}")
        connectors.await_event("reply", build=cut["id"], id=f"vpc::{number}")
        scheduler = guarded.scheduler(SCHEDULER_CAPTURE_PROVIDERS=providers)
        assert set(states(submitter.done(cut)).values()) == {"completed"}
        assert connectors.ids(cut["id"]) == [f"vpc::{number}", "net::1"]
    doctor = guarded.command("scheduler", "doctor", SCHEDULER_CAPTURE_PROVIDERS="gcp")
    assert doctor.code == 0, doctor.output
    guarded.check_log()


def test_a_large_build_takes_an_uploader(guarded: Guarded, tmp_path: Path) -> None:
    """Through the object store there and back; a submitter is told that it is too large."""
    guarded.server.text = guarded.server.text.replace("max_payload: 8MB", "max_payload: 400KB")
    guarded.server.restart()
    guarded.scheduler()
    guarded.connectors()
    document = build(*(component(f"vpc::{number}", text="x" * 5_000) for number in range(200)))
    path = tmp_path / "large.json"
    path.write_bytes(json.dumps(document).encode())
    run = guarded.command("uploader", "run", str(path), SCHEDULER_INBOX_PREFIX="_INBOX.uploader")
    assert run.code == 0, run.errors
    assert run.errors == ""
    guarded.check_log()
    refused = guarded.command("submitter", "run", str(path))
    assert refused.code == 1
    assert "over the broker's limit" in refused.errors
    assert "may not put larger ones into the object store" in refused.errors


@pytest.mark.parametrize(
    ("user", "arguments", "may_not"),
    [
        (
            "submitter",
            ("pause", "finished"),
            "pause builds: the broker refused to publish on scheduler.build.pause",
        ),
        (
            "submitter",
            ("cancel", "finished"),
            "cancel builds: the broker refused to publish on scheduler.build.cancel",
        ),
        (
            "submitter",
            ("report", "finished", "--secrets"),
            "look at reports with their secrets: the broker refused to publish on scheduler.build.unmasked",
        ),
        (
            "uploader",
            ("report", "finished", "--secrets"),
            "look at reports with their secrets: the broker refused to publish on scheduler.build.unmasked",
        ),
        (
            "connector",
            ("report", "finished"),
            "look at reports: the broker refused to publish on scheduler.build.report",
        ),
        ("connector", ("list",), "list builds: the broker refused to publish on scheduler.build.list"),
        ("connector", ("watch", "b"), "look at builds: the broker refused to publish on scheduler.build.get"),
        (
            "connector",
            ("run", "FILE"),
            "follow builds: the broker refused to subscribe to scheduler.event.small",
        ),
        (
            "scheduler",
            ("run", "FILE"),
            "follow builds: the broker refused to subscribe to build.create.done",
        ),
    ],
)
def test_what_a_user_may_not_is_said_at_once(
    shared: Guarded, tmp_path: Path, user: str, arguments: tuple[str, ...], may_not: str
) -> None:
    """As one line, without waiting for an answer that cannot come."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps(build(component("vpc::1"), id="small")))
    given = [str(path) if one == "FILE" else one for one in arguments]
    prefix = {"SCHEDULER_INBOX_PREFIX": f"_INBOX.{user}"}
    began = time.monotonic()
    command = shared.command(user, *given, **prefix)
    assert time.monotonic() - began < 9
    assert command.code == 1
    assert command.errors == f"scheduler: this user may not {may_not}"


def test_a_connector_is_told_what_it_may_not(shared: Guarded) -> None:
    """Simulated connectors for all providers take more than one connector's permissions."""
    command = shared.command("connector", "simulate", SCHEDULER_INBOX_PREFIX="_INBOX.connector")
    assert command.code == 1
    assert command.errors.startswith("scheduler: the broker refused to subscribe to *.create.*: allow it")
    assert len(command.errors.splitlines()) == 1


def test_a_scheduler_says_what_it_lacks(guarded: Guarded) -> None:
    """At once, and what would mend it."""
    guarded.server.text = guarded.server.text.replace('"scheduler.log.*", ', "")
    guarded.server.restart()
    scheduler = guarded.scheduler()
    client = guarded.client("submitter")
    client.publish("build.create", json.dumps(build(component("vpc::1"), id="lacking")).encode())
    said = scheduler.await_log("the broker refuses a message", subject="scheduler.log.lacking")
    assert "scheduler permissions" in said["cure"]
    said = scheduler.await_log("builds are suspended: nothing can be committed")
    assert "refused to publish on scheduler.log.lacking" in said["reason"]


def test_commands_do_with_it(guarded: Guarded, tmp_path: Path) -> None:
    """run as a submitter, twice; as the scheduler export, and doctor, before the first start and after."""
    doctor = guarded.command("scheduler", "doctor")
    assert doctor.code == 0, doctor.output
    assert "may publish and subscribe on all that it needs" in doctor.output
    guarded.scheduler()
    guarded.connectors()
    path = tmp_path / "small.json"
    path.write_text(json.dumps(build(component("vpc::1"), id="small")))
    run = guarded.command("submitter", "run", str(path))
    assert (run.code, run.errors) == (0, "")
    again = guarded.command("submitter", "run", str(path))
    assert (again.code, again.errors) == (0, "")
    *_, last = again.out
    assert re.fullmatch("done since .*; nothing was sent", last)
    doctor = guarded.command("scheduler", "doctor")
    assert doctor.code == 0, doctor.output
    assert "all set up as they should be" in doctor.output
    export = guarded.command("scheduler", "export", "small")
    assert export.code == 0
    assert export.errors == "scheduler: secrets are masked (***); --secrets shows them as stored"
    assert '"accepted"' in export.output
    guarded.check_log()


@pytest.mark.parametrize("user", ["submitter", "uploader", "operator"])
def test_reports_are_for_those_who_submit(shared: Guarded, tmp_path: Path, user: str) -> None:
    """With secrets masked, although none of them may read the store; operators get those, too."""
    prefix = {"SCHEDULER_INBOX_PREFIX": f"_INBOX.{user}"}
    report = shared.command(user, "report", "secret", **prefix)
    assert report.code == 0, report.errors
    [change] = json.loads(report.output)["changes"]
    assert (change["_state"], change["password"], len(change["text"])) == ("completed", "***", 9_000)
    one = shared.command(user, "report", "secret", "--component", "vpc::1", "--field", "password", **prefix)
    assert (one.code, one.output) == (0, "***")
    if user == "operator":
        path = tmp_path / "report.json"
        written = shared.command(user, "report", "secret", "--secrets", "--output", str(path), **prefix)
        assert written.code == 0, written.errors
        assert json.loads(path.read_bytes())["changes"][0]["password"] == "hunter2hunter2"
        assert path.stat().st_mode & 0o777 == 0o600


def test_the_broker_says_which_operator_it_was(guarded: Guarded) -> None:
    """Whatever the operator claims; those who submit may ask for it, and give no orders."""
    guarded.scheduler()
    connectors = guarded.connectors()
    document = chain(held("vpc::1", "go"), component("net::1"), id="ordered")
    Submitter(guarded.client("submitter")).accepted(document)
    connectors.await_requests("ordered", "vpc::1")
    for user, code in (("operator", 0), ("submitter", 1), ("uploader", 1)):
        prefix = {"SCHEDULER_INBOX_PREFIX": f"_INBOX.{user}"}
        paused = guarded.command(user, "pause", "ordered", "--as", "root", "--reason", "quota", **prefix)
        assert paused.code == code, paused.errors
    for user in ("operator", "submitter", "uploader"):
        prefix = {"SCHEDULER_INBOX_PREFIX": f"_INBOX.{user}"}
        [order] = json.loads(guarded.command(user, "history", "ordered", "--json", **prefix).output)["orders"]
        assert (order["verb"], order["by"], order["vouched"]) == ("pause", "SUBMITTERS/operator", True)
        assert (order["claim"], order["reason"]) == ("root", "quota")


def test_the_operator_is_known_whichever_instance_it_reached(guarded: Guarded) -> None:
    """An instance takes another's word for who gave an order, and nobody else's."""
    for name in ("alpha", "beta"):
        guarded.scheduler(SCHEDULER_INSTANCE=name)
    connectors = guarded.connectors()
    document = chain(held("vpc::1", "go"), component("net::1"), id="ordered")
    Submitter(guarded.client("submitter")).accepted(document)
    connectors.await_requests("ordered", "vpc::1")
    operator = guarded.client("operator")
    for _ in range(6):
        operator.request("scheduler.build.pause", {"id": "ordered", "by": "root"})
        operator.request("scheduler.build.resume", {"id": "ordered", "by": "root"})
    orders = operator.request("scheduler.build.history", {"id": "ordered"})["orders"]
    assert len(orders) == 12
    assert {(one["by"], one["vouched"]) for one in orders} == {("SUBMITTERS/operator", True)}
    for user in ("operator", "submitter", "uploader", "connector"):
        client = guarded.client(user)
        client.publish_with(
            "scheduler.instance.alpha.pause", b'{"id": "ordered"}', "", {"Scheduler-User": "root"}
        )
        client.flush()
        client.violations.first(lambda text: "scheduler.instance" in text)
    assert len(operator.request("scheduler.build.history", {"id": "ordered"})["orders"]) == 12


def test_a_connector_of_the_kit_is_found_and_checked(guarded: Guarded, tmp_path: Path) -> None:
    """It answers service discovery in both accounts, and the user of the service may check it."""
    (tmp_path / "mine.py").write_text(
        "from scheduler.connectors import Connectors\n\nconnectors = Connectors('aws')\n\n\n"
        "@connectors.create('vpc')\ndef create(request):\n    return request\n"
    )
    connector = guarded.scheduler("connect", "mine:connectors", user="connector", ready=False, cwd=tmp_path)
    connector.await_log("connector is ready")
    guarded.scheduler()
    submitter, uploader = guarded.client("submitter"), guarded.client("uploader")
    report = Submitter(submitter).run(build(component("vpc::1")))
    assert set(states(report).values()) == {"completed"}
    for client in (submitter, uploader):
        found = {one["name"]: one for one in client.request_many("$SRV.STATS", 2)}
        [endpoint] = found["connector-aws"]["endpoints"]
        assert endpoint["num_requests"] == 1
        assert not list(client.violations)
    checked = guarded.command("scheduler", "check-connector", "vpc.create.aws", "--hostile", "--yes")
    assert checked.code == 0, checked.output + checked.errors
    connector.end()
    guarded.check_log()


PUBLISHES = {
    "connector": [
        "build.create",  # submits a build
        "build.create.done",  # forges a report
        "vpc.create.aws",  # sends a request
        "vpc.create.azure.done",  # answers for another provider
        "scheduler.reply.own.azure.token",
        "scheduler.reply.x",
        "scheduler.event.b",
        "scheduler.log.finished",
        "scheduler.report.finished.1",
        "scheduler.build.cancel",
        "scheduler.build.get",
        "scheduler.build.report",
        "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG",  # reads the log
        "$JS.API.CONSUMER.CREATE.SCHEDULER_LOG.mine",
        "$JS.API.STREAM.PURGE.SCHEDULER_LOG",
        "$JS.API.STREAM.DELETE.SCHEDULER_REPLIES",
        "$JS.API.STREAM.CREATE.MINE",
        "$O.SCHEDULER_OBJECTS.M.x",
        "_INBOX.scheduler.x",  # forges the broker's answer to the scheduler
        "$SRV.PING.scheduler",
    ],
    "submitter": [
        "vpc.create.aws",
        "vpc.create.aws.done",  # answers a request
        "scheduler.reply.x",
        "build.create.done",
        "scheduler.event.finished",
        "scheduler.build.cancel",  # steers a build
        "scheduler.build.skip",
        "scheduler.build.unmasked",  # reads secrets
        "scheduler.log.finished",
        "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG",
        "$JS.API.STREAM.PURGE.SCHEDULER_LOG",
        "$JS.API.CONSUMER.CREATE.OBJ_SCHEDULER_OBJECTS.mine",
        "$O.SCHEDULER_OBJECTS.C.x",
    ],
    "operator": ["vpc.create.aws.done", "scheduler.reply.x", "scheduler.log.finished"],
    "uploader": [
        "vpc.create.aws.done",
        "scheduler.build.cancel",
        "scheduler.build.unmasked",
        "scheduler.reply.x",
        "scheduler.log.finished",
        "$JS.API.STREAM.MSG.GET.SCHEDULER_LOG",
        "$JS.API.STREAM.PURGE.SCHEDULER_LOG",
        "$JS.API.STREAM.DELETE.OBJ_SCHEDULER_OBJECTS",
    ],
    "scheduler": [
        "build.create",
        "vpc.create.aws.done",
        "scheduler.reply.x",
        "$JS.API.STREAM.DELETE.SCHEDULER_LOG",
        "$JS.API.STREAM.UPDATE.SCHEDULER_LOG",
        "$JS.API.STREAM.RESTORE.SCHEDULER_LOG",
        "$JS.API.STREAM.PURGE.SCHEDULER_REPLIES",
        "$JS.API.STREAM.DELETE.OTHERS",
        "$JS.API.ACCOUNT.PURGE.SCHEDULER",
    ],
}
SUBSCRIBES = {
    "connector": [
        "vpc.create.azure",  # another connector's requests
        "*.create.*",
        ">",
        "vpc.create.aws.done",  # another connector's replies
        "scheduler.reply.*",
        "build.create",
        "build.*.done",
        "scheduler.log.*",
        "_INBOX.>",
        "_INBOX.scheduler.>",
        "$JS.API.>",
    ],
    "submitter": [
        "vpc.create.aws",
        "*.create.*.done",
        "scheduler.reply.*",
        "build.create",
        "scheduler.log.*",
        ">",
    ],
    "uploader": ["vpc.create.aws", "scheduler.reply.*", "_INBOX.>", "_INBOX.scheduler.>", "$O.>"],
    "scheduler": [">", "_INBOX.submitter.>", "vpc.create.aws"],
}


@pytest.mark.parametrize("user", PUBLISHES)
def test_nobody_publishes_what_is_not_theirs(shared: Guarded, user: str) -> None:
    """Each attempt is a violation; none reaches anybody, not even with an answer asked for."""
    client = shared.client(user)
    for subject in PUBLISHES[user]:
        client.publish(subject, b"{}", reply=f"_INBOX.{user}.answer")
    client.flush()
    expected = [f'nats: permissions violation for publish to "{one.lower()}"' for one in PUBLISHES[user]]
    assert list(client.violations) == expected


@pytest.mark.parametrize("user", SUBSCRIBES)
def test_nobody_hears_what_is_not_for_them(shared: Guarded, user: str) -> None:
    """Each attempt is a violation, in a queue group as well."""
    client = shared.client(user)
    for subject in SUBSCRIBES[user]:
        client.listen(subject)
    expected = [
        f'nats: permissions violation for subscription to "{one.lower()}"' for one in SUBSCRIBES[user]
    ]
    assert list(client.violations) == expected


def test_answers_cannot_be_sent_into_the_log(shared: Guarded) -> None:
    """Who asks names where the answer goes: a submitter's question names no subject of the scheduler's."""
    submitter, scheduler = shared.client("submitter"), shared.client("scheduler")
    last = {"last_by_subj": "scheduler.log.*"}
    before = scheduler.request("$JS.API.STREAM.MSG.GET.SCHEDULER_LOG", last)["message"]
    for subject in ("build.create", "build.delete", "$SRV.PING", "$SRV.INFO.scheduler"):
        submitter.publish(subject, b"{}", reply="scheduler.log.finished")
        submitter.publish(subject, b"{}", reply="scheduler.log.made-up")
    # The scheduler has seen to all of them when it has answered this.
    submitter.ping("scheduler")
    submitter.request("build.create", b"{}")
    assert scheduler.request("$JS.API.STREAM.MSG.GET.SCHEDULER_LOG", last)["message"] == before


def test_the_server_says_who_sends_a_build_from_another_account(shared: Guarded) -> None:
    """Whatever the client writes in its place: users have their turns by that."""
    heard = shared.client("scheduler").listen("build.create")
    mine = json.dumps({"acc": "SCHEDULER", "user": "somebody"})
    for user in ("submitter", "operator"):
        inbox = f"_INBOX.{user}.1"
        for reply, headers in (("", {}), (inbox, {}), (inbox, {"Nats-Request-Info": mine})):
            client = shared.client(user)
            client.publish_with("build.create", b"{", reply, headers)
            client.flush()
    heard.count(6)
    senders = [sender_of(one.reply, one.headers) for one in heard]
    assert senders == ["user SUBMITTERS submitter"] * 3 + ["user SUBMITTERS operator"] * 3


GUESSES = 2_000


def with_another_provider(text: str) -> str:
    """The shipped configuration with a second connector, for gcp."""
    connector = re.search(r"(?s)      \{\n        # A connector for everything.*?\n      \}\n", text)
    assert connector is not None
    other = connector[0].replace("aws", "gcp").replace("connector", "other").replace("CONNECTOR", "OPERATOR")
    return text.replace(connector[0], connector[0] + other)


def test_no_connector_answers_for_another_provider(guarded: Guarded) -> None:
    """It knows its own reply subjects, and may even know another's: whatever it makes of that, none lands."""
    guarded.server.text = with_another_provider(guarded.server.text)
    guarded.server.restart()
    guarded.scheduler()
    connectors = guarded.connectors()
    client = guarded.client("submitter")
    submitter = Submitter(client)
    PASSWORDS["other"] = PASSWORDS["operator"]
    gcp = guarded.client("other")
    requests = gcp.listen("*.create.gcp")
    document = build(
        component("vpc::aws", {"hold": "gate", "on": "inbox"}), component("vpc::gcp", _provider="gcp")
    )
    submitter.accepted(document)
    connectors.await_requests(document["id"], "vpc::aws")
    [wanted] = [one["inbox"] for one in connectors.requests(document["id"])]
    [seen] = [requests.first(lambda message: message.json["service"] == document["id"]).reply]
    forged = json.dumps(
        {"_component_id": "vpc::aws", "service": document["id"], "_state": "completed"}
    ).encode()
    subjects = [*guesses(seen, wanted, GUESSES)]
    subjects += [f"vpc.create.{one}.{suffix}" for one in ("gcp", "aws") for suffix in ("done", "error")]
    for body in (forged, b'{"_state": "completed"}'):
        gcp.publish_all([(subject, body, "") for subject in subjects])
    # Whatever has reached the scheduler is dealt with before this is answered.
    answer = client.request("scheduler.build.get", {"id": document["id"]})
    assert {one["id"]: one["state"] for one in answer["components"]} == {
        "vpc::aws": "running",
        "vpc::gcp": "running",
    }
    gcp.publish(seen, b'{"_state": "completed"}')
    connectors.release("gate")
    assert set(states(submitter.done(document)).values()) == {"completed"}


def guesses(seen: str, wanted: str, number: int) -> Iterator[str]:
    """What a connector of gcp may try that was asked on ``seen``; also with ``wanted``, as if it knew."""
    _, _, owner, _, mine = seen.split(".")
    *_, theirs = wanted.split(".")
    yield from (wanted, f"scheduler.reply.{owner}.gcp.{theirs}", f"scheduler.reply.{theirs}")
    yield from (f"scheduler.reply.{other}.gcp.{theirs}" for other in ("x", "aws", owner.swapcase()))
    for count in range(number):
        token = f"{(int(mine, 16) + count + 1) % 2**128:032x}"
        yield f"scheduler.reply.{owner}.{'aws' if count % 2 else 'gcp'}.{token}"


def test_nobody_gets_in_without_a_password(shared: Guarded) -> None:
    """There is no user for those who give none."""
    command = Scheduler("doctor", env={"NATS_URL": f"nats://127.0.0.1:{shared.server.port}"})
    with command:
        assert command.wait() == 1
        assert "refuses our credentials" in command.output


def test_a_probe_may_ask_under_the_login_of_the_service(guarded: Guarded) -> None:
    """Which instances there are; what else an operator may ask is refused to it."""
    scheduler = guarded.scheduler("--instance", "scheduler-0")
    probe = guarded.command("scheduler", "instances", "--json")
    assert (probe.wait(), '"scheduler-0"' in probe.output) == (0, True)
    assert guarded.command("scheduler", "list").wait() == 1
    assert scheduler.running


def test_the_file_allows_what_the_doctor_asks_for() -> None:
    """Neither knows of a permission that the other does not."""
    text = read_permissions().partition("user: connector")[0]
    lines = set(re.findall(r'^ *(?:"[^"]+",? *)+$', text, re.MULTILINE))
    publish, subscribe = text.split("subscribe {")
    allowed = [
        set(re.findall(r'"([^"]+)"', "\n".join(line for line in part.splitlines() if "#" not in line)))
        for part in (publish, subscribe)
    ]
    assert lines
    assert allowed[0] - {"$SYS.REQ.USER.INFO", "0.0.0.0:4222"} == {
        need.line for need in publishes("jetstream")
    }
    shorter = {re.sub(r"^\$SRV\.[A-Z]+", "$SRV.*", one).replace(".doctor", ".*") for one in SUBSCRIPTIONS}
    # The page is there without hearing events, just less quickly.
    assert allowed[1] - {"_INBOX.scheduler.>", "scheduler.event.*"} == shorter
