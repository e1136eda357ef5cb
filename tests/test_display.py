"""The progress of a build, and how it is shown."""

import io
import time
from typing import Any

import pytest
from rich.console import Console

from scheduler.display import Frame, PlainView, TerminalView, open_view, render_summary
from scheduler.progress import SLOWEST, News, Progress

T = 1_800_000_000.0
"""Some time by the scheduler's clock; ours starts at 100."""


def message(
    *events: tuple[str, str, float], total: int = 3, done: int = 0, at: float | None = None
) -> dict[str, Any]:
    """What the scheduler publishes: events as component, state and seconds since T."""
    return {
        "v": 1,
        "build": "b",
        "seq": 1,
        "time": T + (max((event[2] for event in events), default=0) if at is None else at),
        "total": total,
        "done": done,
        "events": [{"component": name, "state": state, "time": T + when} for name, state, when in events],
    }


@pytest.fixture
def progress() -> Progress:
    """A build of three that nothing is known of yet."""
    return Progress("b", "build.create", 100.0, total=3)


def counts(progress: Progress) -> tuple[int, int, int, int]:
    return progress.done, len(progress.running), progress.waiting, len(progress.errors)


def test_a_component_goes_from_waiting_to_done(progress: Progress) -> None:
    """Each event moves one component from one count to another; completion is news, with its duration."""
    assert counts(progress) == (0, 0, 3, 0)
    assert progress.apply(message(("a", "running", 0)), 100.0) == []
    assert counts(progress) == (0, 1, 2, 0)
    (news,) = progress.apply(message(("a", "completed", 1.5), done=1), 101.5)
    assert (news.component, news.state, news.took) == ("a", "completed", 1.5)
    assert counts(progress) == (1, 0, 2, 0)


def test_an_error_is_kept_with_its_text(progress: Progress) -> None:
    """An errored component is counted apart, and its text is news."""
    document = message(("a", "running", 0), ("a", "errored", 1))
    document["events"][1]["error"] = "no such image"
    (news,) = progress.apply(document, 101.0)
    assert news == News("a", "errored", 1.0, "no such image")
    assert progress.errors == {"a": "no such image"}
    assert counts(progress) == (0, 0, 2, 1)


def test_a_withdrawn_component_waits_again(progress: Progress) -> None:
    """What was about to be sent and was not is no longer shown as running."""
    progress.apply(message(("a", "running", 0), ("a", "waiting", 1)), 101.0)
    assert counts(progress) == (0, 0, 3, 0)


def test_what_was_missed_is_made_up_for(progress: Progress) -> None:
    """The scheduler's own totals count where messages were lost, or work was done from the start."""
    progress.apply(message(("c", "completed", 9), total=5, done=4), 109.0)
    assert (progress.total, progress.done) == (5, 4)
    assert counts(progress) == (4, 0, 1, 0)


def test_counts_never_go_backwards(progress: Progress) -> None:
    """A message that says less than is known changes nothing."""
    progress.apply(message(("a", "completed", 1), ("b", "completed", 1), done=2), 101.0)
    progress.apply(message(done=1), 102.0)
    assert progress.done == 2


def test_elapsed_times_do_not_trust_the_other_clock(progress: Progress) -> None:
    """How long something runs is by our clock, whatever theirs shows, and by age when the message came."""
    progress.apply(message(("a", "running", 0), at=0.0), 200.0)
    progress.apply(message(("b", "running", -2), at=0.0), 200.0)
    progress.apply(message(("c", "running", 50), at=0.0), 200.0)
    assert [item.since for item in progress.running.values()] == [200.0, 198.0, 200.0]


@pytest.mark.parametrize(
    "document",
    [
        {}, {"events": None}, {"events": [None, 5, {}, {"component": 5, "state": "running"}]},
        {"total": "x", "done": True, "time": None}, {"events": [{"component": "a", "state": "flying"}]},
        {"events": {"component": "a"}},
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_passed_over(progress: Progress, document: dict[str, Any]) -> None:
    """A message of another shape shows nothing and breaks nothing."""
    assert progress.apply(document, 101.0) == []
    assert counts(progress) == (0, 0, 3, 0)


def test_the_slowest_are_remembered(progress: Progress) -> None:
    """Of many components those that took longest are kept, the longest first."""
    for number in range(100):
        progress.apply(
            message((f"n{number}", "running", 0), (f"n{number}", "completed", number), total=100), 1.0
        )
    assert progress.slowest == [(float(n), f"n{n}") for n in range(99, 99 - SLOWEST, -1)]


def test_the_report_has_the_last_word(progress: Progress) -> None:
    """Counts are those of the report, and an error that was missed becomes known."""
    progress.apply(message(("a", "running", 0), ("b", "running", 0)), 100.0)
    report = {
        "error": "b: boom",
        "changes": [
            {"_component_id": "a", "_state": "completed"},
            {"_component_id": "b", "_state": "errored", "error": "boom"},
            {"_component_id": "c", "_state": "waiting"},
        ],
    }
    (news,) = progress.finish(report, 105.0, failed=True)
    assert (news.component, news.error) == ("b", "boom")
    assert counts(progress) == (1, 0, 1, 1)
    assert progress.error == "b: boom"
    assert progress.elapsed(999.0) == 5.0


def test_a_reduced_report_is_enough(progress: Progress) -> None:
    """A report without changes still says whether all is done."""
    progress.finish({}, 105.0, failed=False)
    assert counts(progress) == (3, 0, 0, 0)
    assert progress.error is None


# Drawing.


def draw(progress: Progress, now: float, *, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(Frame(progress, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def busy(running: int, total: int = 10_000) -> Progress:
    progress = Progress("demo", "build.create", 100.0, total=total)
    events = [(f"network::number-{number}", "running", 0.0) for number in range(running)]
    progress.apply(message(*events, total=total, done=total // 2), 100.0)
    return progress


@pytest.mark.parametrize("running", [0, 1, 5, 16, 17, 18, 33, 34, 35, 500])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 4)])
def test_a_frame_fits_the_terminal(running: int, width: int, height: int) -> None:
    """However much is running, no line is too wide, and the frame leaves a line for the cursor."""
    lines = draw(busy(running), 103.0, width=width, height=height)
    assert all(len(line) <= width for line in lines)
    if height >= 10:
        assert len(lines) < height


def test_a_frame_says_what_matters() -> None:
    """Build, action, elapsed time, done of total, counts, and what runs for how long."""
    text = "\n".join(draw(busy(3), 103.0))
    for part in ("build.create", "demo", "3.0s", "5,000 of 10,000", "3 running", "4,997 waiting", "number-2"):
        assert part in text
    assert "errored" not in text


def test_what_does_not_fit_is_counted() -> None:
    """The longest running come first, and the rest is a number."""
    text = "\n".join(draw(busy(500), 103.0))
    assert "number-0 " in text
    assert "number-499" not in text
    shown = text.count("network::")
    assert f"+{500 - shown} more" in text


def test_hostile_names_cannot_drive_the_terminal() -> None:
    """Ids with escape sequences or markup are shown as text."""
    progress = Progress("b", "build.create", 100.0, total=1)
    progress.apply(message(("\x1b[2J[bold]x\r\n", "running", 0)), 100.0)
    text = "\n".join(draw(progress, 101.0))
    assert "\x1b" not in text
    assert "[bold]x" in text


def test_a_frame_costs_what_is_shown_and_not_what_there_is() -> None:
    """Drawing a build of a million with thousands running takes milliseconds, as a small one does."""
    progress = busy(20_000, total=1_000_000)
    draw(progress, 101.0)
    began = time.perf_counter()
    for _ in range(10):
        draw(progress, 101.0)
    assert (time.perf_counter() - began) / 10 < 0.05


# Views.


def play(view: PlainView | TerminalView, progress: Progress, components: int) -> None:
    view.start()
    for number in range(components):
        document = message(
            (f"c{number}", "running", number), (f"c{number}", "completed", number + 0.5), total=components
        )
        now = 100.0 + number
        view.update(progress.apply(document, now), now)
    document = message(("bad", "running", 0), ("bad", "errored", 1), total=components)
    document["events"][1]["error"] = "boom\x1b[2J"
    view.update(progress.apply(document, 150.0), 150.0)
    view.note("the broker is away")
    progress.finish({"error": "bad: boom"}, 160.0, failed=True)
    view.stop()
    view.summary(160.0)


def test_a_pipe_gets_plain_lines() -> None:
    """A small build in a pipe: a line with time, outcome, id and duration for each component."""
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=3)
    view = open_view(progress, Console(file=out, width=40))
    assert isinstance(view, PlainView)
    play(view, progress, 3)
    lines = out.getvalue().splitlines()
    assert lines[:5] == [
        "   0.0s  done    c0 (0.5s)",
        "   1.0s  done    c1 (0.5s)",
        "   2.0s  done    c2 (0.5s)",
        "  50.0s  error   bad: boom\\x1b[2J",
        "the broker is away",
    ]
    assert "errored after 1m00s: bad: boom" in lines
    assert "\x1b" not in out.getvalue()


def test_a_large_build_does_not_flood_a_pipe() -> None:
    """In a pipe a large build gets a line every two seconds, and every error."""
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=1_000)
    view = PlainView(progress, Console(file=out, width=200))
    for number in range(1_000):
        now = 100.0 + number / 100
        document = message((f"c{number}", "running", 0), (f"c{number}", "completed", 1), total=1_000)
        view.update(progress.apply(document, now), now)
    lines = out.getvalue().splitlines()
    assert [line.split()[:3] for line in lines] == [[f"{t}.0s", "so", "far"] for t in (2, 4, 6, 8)]
    view.update([News("x", "errored", None, "boom")], 110.0)
    assert "x: boom" in out.getvalue()


def test_a_terminal_keeps_what_settled_above_the_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a terminal the frame is redrawn in place and gone at the end; lines and the summary stay."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=3)
    view = open_view(progress, Console(file=out, width=80, height=24, force_terminal=True))
    assert isinstance(view, TerminalView)
    play(view, progress, 3)
    text = out.getvalue()
    assert "\x1b[2K" in text
    assert "\x1b[2J" not in text
    assert text.count("c0") >= 1
    assert text.rindex("errored") > text.rindex("\x1b[2K")
    assert text.endswith("\n")


def test_no_color_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set, a terminal gets no colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=3)
    view = TerminalView(progress, Console(file=out, width=80, height=24, force_terminal=True))
    play(view, progress, 3)
    colours = [f"\x1b[{code}" for code in ("31", "32", "36", "1;31", "1;32", "38;")]
    assert not any(colour in out.getvalue() for colour in colours)


def test_the_summary_names_counts_duration_and_the_slowest() -> None:
    """A build that is done says how many, how long, and what took longest."""
    progress = Progress("b", "build.create", 100.0, total=2)
    progress.apply(message(("a", "running", 0), ("b", "running", 0), total=2), 100.0)
    progress.apply(message(("a", "completed", 1), ("b", "completed", 7), total=2, done=2), 107.0)
    progress.finish({}, 107.0, failed=False)
    console = Console(file=io.StringIO(), width=80)
    console.print(render_summary(progress, 107.0))
    assert isinstance(console.file, io.StringIO)
    lines = [line.rstrip() for line in console.file.getvalue().splitlines()]
    assert lines == ["", "done  2 components in 7.0s", "slowest:", "     7.0s  b", "     1.0s  a"]
