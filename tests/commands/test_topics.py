"""``scheduler help``: the documents of the package, listed and shown."""

import io
import pydoc
import sys
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.text import Text

from scheduler import cli
from scheduler.commands import topics

WIRE = """# The wire

Everything is *JSON* over `NATS`, on the
subjects of this page.

## Subjects

- `vpc.create.aws` is a request; see [Builds](builds.md).
"""
Captured = pytest.CaptureFixture[str]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def documents(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in which the documents are."""
    monkeypatch.setattr(topics, "folder", lambda: tmp_path)
    (tmp_path / "wire.md").write_text(WIRE, encoding="utf-8")
    (tmp_path / "builds.md").write_text(f"# Builds\n\n{'A build names its components. ' * 9}\n")
    (tmp_path / "picture.svg").write_text("<svg/>")
    return tmp_path


def at_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Go on at a terminal of 60 columns and 24 lines."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    for name, value in {"COLUMNS": "60", "LINES": "24", "TERM": "xterm", "LESS": ""}.items():
        monkeypatch.setenv(name, value)
    for name in ("NO_COLOR", "PAGER"):
        monkeypatch.delenv(name, raising=False)
    return screen


@pytest.fixture
def paged(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went through a pager."""
    seen: list[str] = []
    monkeypatch.setattr(pydoc, "pager", seen.append)
    return seen


@pytest.mark.usefixtures("documents")
def test_the_topics_are_listed_with_their_summaries(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each document is a line or more with its second paragraph, without markup, in 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")
    assert cli.main(["help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  wire    Everything is JSON over NATS, on the subjects of this page." in lines
    assert [line.split()[0] for line in lines if line.startswith("  ") and line[2] != " "] == [
        "builds",
        "wire",
    ]
    assert max(map(len, lines)) <= 80
    assert lines[-1].startswith("scheduler help TOPIC")


@pytest.mark.parametrize(
    ("document", "summary"),
    [
        ("# A title\n\nIt is *this*\nand `that`.\n\nMore.", "It is this and that."),
        ("# A title\n", "A title"),
        ("# A title\n\n## A heading\n\nText.", "A title"),
        ("# A title\n\n```\ncode\n```\n", "A title"),
        ("Text only.", "Text only."),
    ],
)
def test_a_summary_is_the_second_paragraph(document: str, summary: str) -> None:
    """Where the second paragraph is no prose, the title stands for it."""
    assert topics.summary_of(document) == summary


def test_an_empty_document_is_listed_by_its_name(documents: Path, capsys: Captured) -> None:
    """A document without a text is no reason to fail."""
    (documents / "void.md").write_text("")
    assert cli.main(["help"]) == 0
    assert "  void    void\n" in capsys.readouterr().out
    assert cli.main(["help", "void"]) == 0


@pytest.mark.usefixtures("documents")
def test_a_pipe_gets_the_document_as_it_is(capsys: Captured) -> None:
    """What is no terminal gets plain Markdown."""
    assert cli.main(["help", "wire"]) == 0
    assert capsys.readouterr().out == WIRE


@pytest.mark.usefixtures("documents")
def test_a_terminal_gets_it_rendered_to_its_width(monkeypatch: pytest.MonkeyPatch, paged: list[str]) -> None:
    """In a terminal a document that fits is rendered at once, and a link names the command for its topic."""
    terminal = at_terminal(monkeypatch)
    assert cli.main(["help", "wire"]) == 0
    text = terminal.getvalue()
    assert paged == []
    assert "#" not in text
    assert "\x1b[" in text
    plain = " ".join(Text.from_ansi(text).plain.split())
    assert "scheduler help builds" in plain
    assert ".md" not in plain
    assert all(cell_len(line) <= 60 for line in Text.from_ansi(text).plain.splitlines())


def test_code_in_a_terminal_can_be_copied(documents: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It begins in the first column: Python takes no module that is indented."""
    (documents / "code.md").write_text("# Code\n\n```python\nif 1:\n    x = 2\n```\n")
    terminal = at_terminal(monkeypatch)
    assert cli.main(["help", "code"]) == 0
    lines = [line.rstrip() for line in Text.from_ansi(terminal.getvalue()).plain.splitlines()]
    assert [line for line in lines if line][1:] == ["if 1:", "    x = 2"]


def test_what_does_not_fit_goes_through_a_pager(
    documents: Path, monkeypatch: pytest.MonkeyPatch, paged: list[str]
) -> None:
    """A document that is longer than the terminal is shown a page at a time, colors included."""
    terminal = at_terminal(monkeypatch)
    (documents / "long.md").write_text("# Long\n\n" + "\n\n".join(f"Line {number}." for number in range(30)))
    assert cli.main(["help", "long"]) == 0
    assert terminal.getvalue() == ""
    (text,) = paged
    assert "Line 29." in text
    assert "\x1b[" in text


@pytest.mark.usefixtures("documents")
def test_an_unknown_pager_gets_no_colors(paged: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pager that is not `less` may show escape sequences as text, and gets none."""
    at_terminal(monkeypatch)
    monkeypatch.setenv("PAGER", "more")
    monkeypatch.setenv("LINES", "5")
    assert cli.main(["help", "wire"]) == 0
    assert "\x1b" not in paged[0]


@pytest.mark.usefixtures("documents")
@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("wier", "there is no topic 'wier': did you mean wire? The topics are builds, wire"),
        ("qqqq", "there is no topic 'qqqq': the topics are builds, wire"),
        ("status", "there is no topic 'status'; scheduler status --help is about the command"),
        ("../wire", "there is no topic '../wire': did you mean wire? The topics are builds, wire"),
        ("\x1b[2J", "there is no topic '\\x1b[2J': the topics are builds, wire"),
    ],
)
def test_an_unknown_topic_gets_the_nearest(capsys: Captured, topic: str, message: str) -> None:
    """A topic that there is not is one line, with the nearest that there is, and exit code 2."""
    assert cli.main(["help", topic]) == 2
    assert capsys.readouterr() == ("", f"scheduler: {message}\n")


@pytest.mark.parametrize("there", [False, True])
def test_without_documents_that_is_said(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """A folder that is empty, or is not there, is told of."""
    monkeypatch.setattr(topics, "folder", lambda: tmp_path if there else tmp_path / "docs")
    assert cli.main(["help"]) == 0
    assert "no documents" in capsys.readouterr().out
    assert cli.main(["help", "wire"]) == 2
    assert "no documents" in capsys.readouterr().err


def test_the_documents_of_the_package_say_what_they_are_about() -> None:
    """Each that ships has a title and a summary of one sentence that is no title."""
    for name, file in topics.topics().items():
        text = file.read_text(encoding="utf-8")
        assert text.startswith("# "), name
        assert topics.summary_of(text).endswith("."), name
