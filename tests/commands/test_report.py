"""The commands ``report``, ``wait`` and ``run --output``: what they ask, print, write, and exit with."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.shell import FakeScheduler

from scheduler import cli
from scheduler.commands.output import check_output, write_output
from scheduler.errors import InvalidSettings

BUILD = "prod-eu-1"
HEAD = {"id": BUILD, "run": 2, "status": "done", "identity": "x"}
REPORT: dict[str, Any] = {
    "id": BUILD,
    "name": "n\u00e9",
    "components": [],
    "changes": [{"a": 1}, {"a": 2}, {"a": 10**30}],
    "edges": [{"source": "start"}],
}
Captured = pytest.CaptureFixture[str]


def pages(question: dict[str, Any]) -> dict[str, Any]:
    """A report in pages of two entries."""
    entries = [*(("changes", one) for one in REPORT["changes"]), *(("edges", one) for one in REPORT["edges"])]
    start = question["from"]
    answer: dict[str, Any] = {
        **HEAD,
        "masked": start == 2,
        "next": start + 2 if start + 2 < len(entries) else None,
    }
    if not start:
        answer |= {"build": {"id": BUILD, "name": "n\u00e9"}, "components": [], "changes": [], "edges": []}
    else:
        assert (question["run"], question["identity"]) == (2, "x")
    for name, entry in entries[start : start + 2]:
        answer.setdefault(name, []).append(entry)
    return answer


def test_a_report_is_printed_as_it_was_reported(scheduler: FakeScheduler, capsys: Captured) -> None:
    """All of its pages, each list in its place; that something is masked is said beside it."""
    scheduler.answers["report"] = pages
    assert cli.main(["report", BUILD]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == REPORT
    assert list(json.loads(out)) == list(REPORT)
    assert out.endswith("}\n")
    assert err == "scheduler: secrets are masked (***); --secrets shows them, to users who may see them\n"
    assert [question["from"] for _, question in scheduler.asked] == [0, 2]


def test_a_report_with_its_secrets_is_asked_for_elsewhere(scheduler: FakeScheduler, tmp_path: Path) -> None:
    """And is for nobody else to read, where it is written."""
    scheduler.answers["unmasked"] = pages
    path = tmp_path / "report.json"
    assert cli.main(["report", BUILD, "--secrets", "--run", "2", "--output", str(path)]) == 0
    assert {verb for verb, _ in scheduler.asked} == {"unmasked"}
    assert json.loads(path.read_bytes()) == REPORT
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        ("vpc-1", "vpc-1"),
        ("a\nb \u00e9", "a\nb \u00e9"),
        (7, "7"),
        (None, "null"),
        ([1, "x"], '[1, "x"]'),
    ],
)
def test_a_value_is_on_its_own_line(
    scheduler: FakeScheduler, capsys: Captured, value: Any, printed: str
) -> None:
    """A text as it is, anything else as JSON: for a shell."""
    scheduler.say("report", {**HEAD, "value": value})
    assert cli.main(["report", BUILD, "--component", "vpc::web", "--field", "vpc_aws_id"]) == 0
    assert capsys.readouterr() == (f"{printed}\n", "")
    assert scheduler.asked == [("report", {"id": BUILD, "component": "vpc::web", "field": "vpc_aws_id"})]


def test_numbers_keep_their_digits(scheduler: FakeScheduler, capsys: Captured) -> None:
    """Of a component as of a value."""
    scheduler.say("report", {**HEAD, "component": {"size": 10**30}})
    assert cli.main(["report", BUILD, "--component", "vm"]) == 0
    assert json.loads(capsys.readouterr().out) == {"size": 10**30}


@pytest.mark.parametrize("arguments", [[], ["--secrets"], ["--field", "name"]])
def test_a_refusal_is_printed_as_it_is(
    scheduler: FakeScheduler, capsys: Captured, arguments: list[str]
) -> None:
    """It says itself what there is."""
    scheduler.refuse("report", "unknown", "there is no report; did you mean 'x'?")
    scheduler.refuse("unmasked", "unknown", "there is no report; did you mean 'x'?")
    assert cli.main(["report", BUILD, *arguments]) == 1
    assert capsys.readouterr() == ("", "scheduler: there is no report; did you mean 'x'?\n")


def test_a_missing_permission_for_secrets_is_said(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With what the broker refused."""
    scheduler.forbidden.add("scheduler.build.unmasked")
    assert cli.main(["report", BUILD, "--secrets"]) == 1
    assert capsys.readouterr().err.startswith(
        "scheduler: this user may not look at reports with their secrets: "
    )


def test_a_terminal_obeys_nothing_in_a_report(
    scheduler: FakeScheduler, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """JSON leaves control characters beyond ASCII as they are; here they are escaped, as is a text's."""
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    value = {"note": "a\x9b2Jb\u202ec\U000e0001", "name": "é"}
    scheduler.say("report", {**HEAD, "component": value})
    assert cli.main(["report", BUILD, "--component", "vm"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == value
    assert out.replace("\n", "").isprintable()
    assert "é" in out


@pytest.mark.parametrize("command", [["report", BUILD], ["run", "build.json", "--simulate"]])
def test_a_file_that_cannot_be_written_is_said_before_anything_is_asked(
    scheduler: FakeScheduler, capsys: Captured, tmp_path: Path, command: list[str]
) -> None:
    """A build that has run for an hour must not end with that."""
    for path in (tmp_path, tmp_path / "none" / "x"):
        assert cli.main([*command, "--output", str(path)]) == 2
        assert capsys.readouterr().err.startswith("scheduler: --output: ")
    assert scheduler.asked == []


def test_secrets_without_a_file_are_none_for_run(capsys: Captured) -> None:
    """The board never shows any."""
    assert cli.main(["run", "build.json", "--secrets"]) == 2
    assert "add --output FILE" in capsys.readouterr().err


@pytest.mark.parametrize(("status", "code"), [("done", 0), ("errored", 1), ("cancelled", 1)])
def test_wait_exits_as_the_build_ended(
    scheduler: FakeScheduler, capsys: Captured, status: str, code: int
) -> None:
    """With a line that says how; or a document."""
    error = (
        ""
        if status == "done"
        else f"{status}: by somebody"
        if status == "cancelled"
        else "vpc::web: no quota"
    )
    scheduler.say("get", {"id": BUILD, "status": status, "error": error, "run": 2})
    assert cli.main(["wait", BUILD]) == code
    said = {"done": "", "errored": ": vpc::web: no quota", "cancelled": ": by somebody"}[status]
    assert capsys.readouterr().out == f"{BUILD}: {status}{said}\n"
    assert cli.main(["wait", BUILD, "--json"]) == code
    assert json.loads(capsys.readouterr().out) == {
        "v": 1,
        "id": BUILD,
        "status": status,
        "error": error,
        "run": 2,
    }


def test_wait_says_how_far_it_is_when_its_time_is_over(scheduler: FakeScheduler, capsys: Captured) -> None:
    """With an exit code of its own."""
    scheduler.say("get", {"id": BUILD, "status": "running", "counts": {"completed": 3}, "total": 7})
    assert cli.main(["wait", BUILD, "--timeout", "100ms"]) == 124
    assert capsys.readouterr().err == f"scheduler: {BUILD} has not ended within 0.1s: running, 3 of 7\n"
    assert cli.main(["wait", BUILD, "--timeout", "0.1", "--json"]) == 124
    assert json.loads(capsys.readouterr().out) == {
        "v": 1,
        "id": BUILD,
        "status": "running",
        "timed_out": True,
    }
    assert cli.main(["wait", BUILD, "--timeout", "soon"]) == 2


# Files.


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, capsys: Captured) -> None:
    """The older one stays until all of it is there; nothing else is left behind."""
    path = tmp_path / "report.json"
    path.write_text("old")

    def pieces() -> Any:
        yield b"new"
        assert path.read_text() == "old"
        raise OSError(28, "No space left on device")

    assert not write_output(path, pieces(), private=False)
    assert capsys.readouterr().err == f"scheduler: cannot write {str(path)!r}: No space left on device\n"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    assert write_output(path, [b"n", b"ew"], private=False)
    assert path.read_text() == "new"


def test_a_private_file_is_private_whatever_was_there(tmp_path: Path) -> None:
    """Another one is as the process's mask says."""
    path = tmp_path / "x"
    before = os.umask(0o022)
    try:
        assert write_output(path, [b"x"], private=False)
        assert path.stat().st_mode & 0o777 == 0o644
        assert write_output(path, [b"x"], private=True)
        assert path.stat().st_mode & 0o777 == 0o600
    finally:
        os.umask(before)


def test_a_link_is_followed(tmp_path: Path) -> None:
    """And stays one."""
    path, link = tmp_path / "x", tmp_path / "link"
    path.write_text("old")
    link.symlink_to(path)
    assert write_output(link, [b"new"], private=False)
    assert link.is_symlink()
    assert path.read_text() == "new"


def test_what_is_no_file_is_written_to() -> None:
    """As /dev/null."""
    path = Path("/dev/null")
    check_output(path)
    assert write_output(path, [b"x"], private=True)
    assert not path.is_file()
    with pytest.raises(InvalidSettings):
        check_output(Path("/dev"))
