"""The connectors do as they are told, and write down all of it."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from support.brokers import NatsServer

from integration.builds import component
from integration.durable.scene import Recorder
from integration.harness import Client, Message

pytestmark = pytest.mark.integration

JSON = dict[str, Any]


class Desk:
    """Connectors, and somebody who asks them."""

    def __init__(self, stack: ExitStack, url: str, record: Path, options: JSON) -> None:
        self.recorder = Recorder(url, record, options, "*.create.aws")
        stack.callback(self.recorder.close)
        self.client = Client(url)
        stack.callback(self.client.close)
        self.answers = self.client.listen("*.create.aws.done", "*.create.aws.error", "inbox.*")

    def ask(self, name: str, attempt: str = "", **behaviour: Any) -> None:
        """Request a component."""
        body = component(name, service="b", behaviour=behaviour)
        kind = name.partition("::")[0]
        headers = {"Nats-Msg-Id": attempt or f"b/{name}/1"}
        self.client.publish_with(f"{kind}.create.aws", json.dumps(body).encode(), f"inbox.{kind}", headers)

    def answer(self, number: int = 1) -> Message:
        """The nth answer."""
        return self.answers.count(number)[number - 1]


DeskFactory = Callable[..., Desk]


@pytest.fixture
def start_desk(nats_server: NatsServer, tmp_path: Path) -> Iterator[DeskFactory]:
    with ExitStack() as stack:
        yield lambda **options: Desk(stack, nats_server.url, tmp_path / "record", options)


def brief(records: list[JSON]) -> list[tuple[str, str, str]]:
    return [(one["event"], one["component"], one["attempt"]) for one in records]


def test_requests_and_answers_are_written_down(start_desk: DeskFactory) -> None:
    """Each with its attempt; the answer's own text stands in its line and in its body."""
    desk = start_desk()
    desk.ask("vpc::1")
    message = desk.answer()
    assert message.subject == "vpc.create.aws.done"
    request, answer = desk.recorder.records
    assert brief([request, answer]) == [
        ("request", "vpc::1", "b/vpc::1/1"),
        ("answer", "vpc::1", "b/vpc::1/1"),
    ]
    assert request["inbox"] == "inbox.vpc"
    assert answer["out"] == message.json["out"]
    assert (answer["state"], message.json["_state"]) == ("completed", "completed")
    assert request["time"] <= answer["time"]


def test_what_is_written_survives_its_end(start_desk: DeskFactory) -> None:
    """A record that was written stays when the connectors are killed."""
    desk = start_desk()
    desk.ask("vpc::1", silent=True)
    desk.recorder.await_request("b", "vpc::1")
    desk.recorder.kill()
    assert brief(desk.recorder.records) == [("request", "vpc::1", "b/vpc::1/1")]


@pytest.mark.parametrize(("on", "subject"), [("subject", "vpc.create.aws.error"), ("inbox", "inbox.vpc")])
def test_errors_are_answered_where_they_should(start_desk: DeskFactory, on: str, subject: str) -> None:
    """On the subject of errors, or on the request's own."""
    desk = start_desk(errors=1)
    desk.ask("vpc::1", on=on)
    message = desk.answer()
    assert message.subject == subject
    assert (message.json["_state"], message.json["error"]) == ("errored", "vpc::1 broke")


def test_each_request_is_answered_again(start_desk: DeskFactory) -> None:
    """Without ``idempotent`` the same attempt has another result."""
    desk = start_desk()
    desk.ask("vpc::1")
    desk.answer()
    desk.ask("vpc::1")
    assert desk.answer(1).json["out"] != desk.answer(2).json["out"]
    assert [one.get("again") for one in desk.recorder.records] == [0, None, 1, None]


def test_idempotent_ones_answer_an_attempt_as_before(start_desk: DeskFactory) -> None:
    """Also one that comes while the first is at work; another attempt is another one."""
    desk = start_desk(idempotent=True, hold="go")
    desk.ask("vpc::1")
    desk.ask("vpc::1")
    desk.ask("vpc::1", attempt="b/vpc::1/2")
    for number in (1, 2, 3):
        desk.recorder.await_request("b", "vpc::1", times=number)
    desk.recorder.release("go")
    outs = [message.json["out"] for message in desk.answers.count(3)]
    assert len(set(outs)) == 2
    desk.ask("vpc::1")
    assert desk.answer(4).json["out"] in outs


def test_it_is_silent_so_many_times(start_desk: DeskFactory) -> None:
    """The first request of each attempt is not answered."""
    desk = start_desk(idempotent=True)
    desk.ask("vpc::1", silent=1)
    desk.ask("vpc::1", silent=1)
    desk.answer()
    assert [one[0] for one in brief(desk.recorder.records)] == ["request", "request", "answer"]


def test_they_outlive_the_broker(start_desk: DeskFactory, nats_server: NatsServer) -> None:
    """What they do while it is away is written down, and they come back with it."""
    desk = start_desk(hold="go")
    desk.ask("vpc::1")
    desk.recorder.await_request("b", "vpc::1")
    nats_server.kill()
    desk.recorder.release("go")
    desk.recorder.await_answer("b", "vpc::1")
    nats_server.start()
    desk.recorder.out.first(lambda line: '"reconnected"' in line)
    desk.ask("net::1")
    desk.recorder.await_answer("b", "net::1")
    assert [one["event"] for one in desk.recorder.records] == ["request", "answer", "request", "answer"]
