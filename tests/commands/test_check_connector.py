"""`scheduler check-connector`: what it asks for before anything is sent, and how its results are shown."""

import json
from pathlib import Path

import pytest
from support.fake_bus import FakeBus
from support.shell import FakeScheduler

from scheduler import cli
from scheduler.bus import Message
from scheduler.contract import Verdict
from scheduler.contract.output import show
from scheduler.display import Output

Captured = pytest.CaptureFixture[str]
SUBJECT = "vpc.create.aws"


@pytest.fixture
def connector(scheduler: FakeScheduler) -> list[Message]:
    """A connector that answers at once, and the requests that it got."""
    seen: list[Message] = []

    async def script(bus: FakeBus) -> None:
        def answer(message: Message) -> None:
            seen.append(message)
            body = json.loads(message.data)
            state = "errored" if body.get("fails") else "completed"
            bus.deliver(message.reply, json.dumps({**body, "_state": state, "error": "quota"}).encode())

        await bus.subscribe(SUBJECT, answer)

    scheduler.script = script
    return seen


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (["vpc.explode.aws"], "'explode' is no action; there are create, update, delete, get, find"),
        ([SUBJECT, "--timeout", "soon"], "--timeout: 'soon' is not a duration"),
        ([SUBJECT, "--within", "2h"], "--within: '2h' is not a duration"),
        ([SUBJECT, "--together", "501"], "--together: 501 is not a number from 0 to 500"),
        ([SUBJECT, "--body", "-", "--slow-body", "-"], "standard input (-) can be read once"),
        ([SUBJECT], "vpc.create.aws really acts, up to 12 times: use an account for tests; nothing is sent"),
        ([SUBJECT, "--together", "0"], "really acts, up to 4 times"),
    ],
)
def test_nothing_is_sent_before_all_is_clear(
    connector: list[Message], capsys: Captured, tokens: list[str], words: str
) -> None:
    """A wrong flag is named; and without --yes a command called check does not act."""
    assert cli.main(["check-connector", *tokens]) == 2
    assert words in capsys.readouterr().err
    assert connector == []


def test_a_file_that_is_no_component_is_named(
    connector: list[Message], capsys: Captured, tmp_path: Path
) -> None:
    """With its place, as everywhere."""
    file = tmp_path / "vpc.json"
    file.write_text('{"cidr": }')
    assert cli.main(["check-connector", SUBJECT, "--yes", "--body", str(file)]) == 1
    assert "vpc.json has 1 problem" in capsys.readouterr().err
    assert connector == []


@pytest.mark.usefixtures("connector")
def test_results_are_shown_in_80_columns(capsys: Captured, tmp_path: Path) -> None:
    """The exit code is 0 where no check failed; the ids that were used are told before."""
    file = tmp_path / "vpc.yaml"
    file.write_text("cidr: 10.0.0.0/16\n")
    assert cli.main(["check-connector", SUBJECT, "--yes", "--body", str(file)]) == 0
    said = capsys.readouterr()
    assert "Its components are those of a build check-" in said.err
    assert max(map(len, said.out.splitlines())) <= 80
    assert said.out.endswith("vpc.create.aws keeps the contract: 3 skipped.\n")


@pytest.mark.usefixtures("connector")
def test_results_are_shown_to_programs(capsys: Captured, tmp_path: Path) -> None:
    """As one document, with the same exit code."""
    file = tmp_path / "vpc.json"
    file.write_text('{"fails": true}')
    assert cli.main(["check-connector", SUBJECT, "--yes", "--body", str(file), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["v"] == 1
    assert document["sound"] is True
    assert [one["check"] for one in document["checks"] if one["result"] == "warn"] == ["reply"]


@pytest.mark.usefixtures("scheduler")
def test_where_nobody_listens_the_exit_code_is_1(capsys: Captured) -> None:
    """The cure stands below."""
    assert cli.main(["check-connector", SUBJECT, "--yes"]) == 1
    said = capsys.readouterr().out
    assert "nobody subscribes to vpc.create.aws" in said
    assert "does not keep the contract: 1 failure." in said


def test_a_connectors_text_cannot_draw_on_the_terminal(capsys: Captured) -> None:
    """Control characters are shown as such."""
    verdict = Verdict(SUBJECT, "b")
    verdict.failed("reply", "\x1b[2J[bold]", "[red]cure")
    show(verdict, Output())
    said = capsys.readouterr().out
    assert "\x1b" not in said
    assert "[bold]" in said
    assert "[red]cure" in said
