"""How a build is shown: the board, plain lines, JSON lines, the summary."""

import io
import json
import re
import time
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from support.feeds import JSON, T, Told, event

from scheduler.client.progress import EarlierEnd, Progress
from scheduler.client.timeline import read_timeline
from scheduler.client.view import News
from scheduler.display import Frame, JsonView, PlainView, TerminalView, frame_lines, open_view, render_summary
from scheduler.display.lines import fit, fit_id, plain

# Drawing.


def draw(progress: Progress, now: float, *, width: int = 80, height: int = 24) -> list[str]:
    console = Console(file=io.StringIO(), width=width, height=height, force_terminal=True, color_system=None)
    console.print(Frame(progress, now))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def busy(running: int, total: int = 10_000, *, build: str = "demo", errors: int = 0) -> Progress:
    """So many run, some have failed, half of all is done."""
    progress = Progress(build, "build.create", 100.0, total=total)
    events = [event(f"network::number-{number}", "running", 0.0) for number in range(running)]
    events += [event(f"network::bad-{number}", "errored", 0.0, error="boom") for number in range(errors)]
    waiting = total - total // 2 - running - errors
    tally = {"waiting": waiting, "running": running, "completed": total // 2, "errored": errors}
    progress.apply(Told().message(*events) | {"total": total, "counts": tally}, 100.0)
    return progress


@pytest.mark.parametrize("running", [0, 1, 5, 16, 17, 18, 33, 34, 35, 500])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 4), (10, 2)])
def test_a_frame_fits_the_terminal(running: int, width: int, height: int) -> None:
    """However much is running, no line is too wide, and the frame leaves a line for the cursor."""
    lines = draw(busy(running), 103.0, width=width, height=height)
    assert all(len(line) <= width for line in lines)
    assert len(lines) < height


@pytest.mark.parametrize("width", [80, 200])
def test_the_head_says_when_nobody_answers(width: int) -> None:
    """That no broker, or no scheduler, is there, and since when; before whatever the build's state was."""
    progress = busy(3)
    progress.refresh({"status": "paused", "now": T}, 100.0)
    assert "paused" in draw(progress, 101.0, width=width)[1]
    progress.silent = 100.0
    assert "paused" in draw(progress, 101.0, width=width)[1]
    assert "no scheduler answers for 12.0s" in draw(progress, 112.0, width=width)[1]
    progress.away = 110.0
    assert "no broker connection for 1m05s" in draw(progress, 175.0, width=width)[1]
    progress.away = progress.silent = None
    assert "paused" in draw(progress, 176.0, width=width)[1]


TEXTS = st.sampled_from(["x" * 500, "网络" * 200, "", "a\x1b[2Jb", "vpc::main"]) | st.text(max_size=20)
STATES = st.sampled_from(["running", "retrying", "errored", "completed"])


@settings(max_examples=60)
@given(
    names=st.tuples(TEXTS, TEXTS),
    components=st.lists(st.tuples(TEXTS, STATES, TEXTS), max_size=8),
    copies=st.sampled_from([1, 30]),
    limits=st.lists(TEXTS, max_size=9),
    status=st.sampled_from(["running", "paused", "halted"]),
    times=st.tuples(st.floats(0, 1e9), st.none() | st.floats(0, 1e9), st.floats(0, 1e6)),
)
def test_whatever_is_shown_fits_80_by_24(
    *,
    names: tuple[str, str],
    components: list[tuple[str, str, str]],
    copies: int,
    limits: list[str],
    status: str,
    times: tuple[float, float | None, float],
) -> None:
    """Long ids, wide characters, many errors, limits, retries and a status: 80 columns and 23 lines."""
    age, left, again = times
    progress = Progress(*names, 0.0, total=10**9)
    events = [
        event(f"{copy}{name}", state, 0.0, error=error, retry_in=again)
        for copy in range(copies)
        for name, state, error in components
    ]
    progress.apply(Told().message(*events), 0.0)
    reached = [{"limit": limit, "waiting": 10**6} for limit in limits]
    progress.refresh({"now": T, "accepted": T - age, "eta": left, "limits": reached, "status": status}, 1.0)
    said = [
        {"component": one, "progress": 0.4, "message": name} for one in progress.running for name in names
    ]
    progress.apply({"beats": said}, 1.0)
    lines = [plain(line) for line in frame_lines(progress, 1.0, 80, 24)]
    assert len(lines) <= 23
    assert max(cell_len(line) for line in lines) <= 80
    assert not any("\x1b" in line or "\n" in line for line in lines)


def test_a_frame_says_how_far_connectors_are() -> None:
    """Beside what runs, as far as there is room."""
    progress = busy(3)
    name = "network::number-1"
    beats = [{"component": name, "progress": 0.4, "message": "attaching " + "x" * 100}]
    progress.apply({"beats": beats}, 103.0)
    [line] = [line for line in draw(progress, 103.0) if name in line]
    assert "40 %, attaching xx" in line
    assert len(line) <= 80


def test_a_frame_says_what_matters() -> None:
    """What is built, for how long and how much longer, how much is done, how much runs and waits."""
    progress = busy(3)
    progress.refresh({"eta": 60.0, "limits": [{"limit": "vpc.create.*=5", "waiting": 7}]}, 103.0)
    text = "\n".join(draw(progress, 103.0))
    for part in (
        "build.create",
        "demo",
        "3.0s, about 1m00s left",
        "5,000 of 10,000",
        "3 running",
        "4,997 waiting",
    ):
        assert part in text
    assert "limits reached: vpc.create.*=5 (7 wait)" in text
    assert "number-2" in text
    assert "errored" not in text
    assert "retrying" not in text


def test_what_is_overdue_says_by_how_much() -> None:
    """In the head of the board, and in lines; never that something is left of it."""
    progress = busy(3)
    progress.refresh({"overdue": 1_140.0, "eta": None}, 103.0)
    assert "3.0s, overdue by 19m00s" in draw(progress, 103.0)[1]
    assert "left" not in "\n".join(draw(progress, 103.0))
    out = io.StringIO()
    PlainView(progress, Console(file=out, width=200)).update([], 110.0)
    assert out.getvalue().rstrip().endswith("overdue by 19m07s")


@pytest.mark.parametrize(
    ("what", "said"), [("paused", "paused: nothing new starts"), ("cancelled", "stopping")]
)
def test_a_frame_says_when_nothing_new_starts(what: str, said: str) -> None:
    """That a build is paused, or stops, stands beside its name."""
    told, progress = Told("a"), Progress("demo", "build.create", 100.0)
    progress.apply(told.message({"event": what, "time": 0.0}), 100.0)
    assert said in draw(progress, 101.0)[1]


def test_what_is_tried_again_has_its_time_and_error() -> None:
    """A component that failed is shown with when it is sent again, and why it failed."""
    told, progress = Told("a"), Progress("demo", "build.create", 100.0)
    progress.apply(told.message(event("a", "retrying", 0, error="throttled", retry_in=9.0)), 100.0)
    (line,) = [line for line in draw(progress, 102.0) if "throttled" in line]
    assert line.split() == ["again", "in", "7.0s", "a:", "throttled"]


def test_what_does_not_fit_is_counted() -> None:
    """The longest running come first, and the rest is a number."""
    text = "\n".join(draw(busy(500), 103.0))
    assert "number-0 " in text
    assert "number-499" not in text
    shown = text.count("network::")
    assert f"+{500 - shown} more" in text


def test_errors_above_the_frame_stay_in_sight() -> None:
    """With errors the frame is lower, so that the latest stay above it."""
    assert len(draw(busy(500), 103.0)) - len(draw(busy(500, errors=100), 103.0)) == 4


def test_hostile_names_cannot_drive_the_terminal() -> None:
    """Ids with escape sequences or markup are shown as text."""
    told, progress = Told("\x1b[2J[bold]x\r\n"), Progress("b", "build.create", 100.0)
    progress.apply(told.message(event("\x1b[2J[bold]x\r\n", "running", 0)), 100.0)
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


@given(st.text(max_size=60), st.integers(0, 40))
def test_what_is_made_to_fit_fits(text: str, width: int) -> None:
    """A text takes no more cells than it is given, exactly those where they are to be filled."""
    assert cell_len(fit(text, width)) <= width
    assert cell_len(fit(text, width, pad=True)) == width
    assert cell_len(fit_id(text, width)) <= width
    assert cell_len(fit_id(text, width, pad=True)) == width


@pytest.mark.parametrize("kind", ["running", "retrying"])
def test_long_ids_that_differ_at_their_end_differ_on_the_board(kind: str) -> None:
    """They are cut in the middle, in the frame and above it."""
    name = "vpc::" + "very-long-" * 20 + "node-"
    progress = Progress("b", "build.create", 0.0, total=9)
    events = [event(f"{name}{number}", kind, 0.0, error="throttled") for number in (17, 18)]
    news = progress.apply(Told().message(*events), 0.0)
    out = io.StringIO()
    console = Console(file=out, width=80, height=24, force_terminal=True, color_system=None)
    console.print(Frame(progress, 1.0))
    if kind == "retrying":
        view = TerminalView(progress, console)
        view.update(news, 1.0)
    lines = [line for line in out.getvalue().splitlines() if "…" in line]
    assert len(lines) == (2 if kind == "running" else 4)
    for number in (17, 18):
        assert sum(f"-node-{number}" in line for line in lines) == len(lines) // 2


def test_long_ids_in_the_summary_are_cut_in_the_middle() -> None:
    """In a terminal, where they would not fit; in a pipe they are whole."""
    progress = Progress("b", "build.create", 0.0, total=9)
    name = "vpc::" + "very-long-" * 12 + "node-17"
    progress.apply(Told(name, "x").message(event(name, "completed", 1.0, seconds=1.0)), 0.0)
    out = io.StringIO()
    console = Console(file=out, width=60, height=24, force_terminal=True, color_system=None)
    TerminalView(progress, console).summary(1.0)
    assert "-node-17" in out.getvalue()
    assert all(cell_len(line) <= 60 for line in out.getvalue().splitlines())
    piped = io.StringIO()
    PlainView(progress, Console(file=piped, width=60)).summary(1.0)
    assert name in piped.getvalue()


# Views.


def play(view: Any, progress: Progress, components: int) -> None:
    """A build in which every component but one is done; each takes half a second, one after another."""
    names = [f"c{number}" for number in range(components)]
    told = Told(*names, "bad")
    view.start()
    for number, name in enumerate(names):
        events = event(name, "running", number), event(name, "completed", number + 0.5, seconds=0.5)
        now = 100.0 + number
        view.update(progress.apply(told.message(*events), now), now)
    events = event("bad", "running", 0), event("bad", "errored", 1, seconds=1.0, error="boom\x1b[2J")
    view.update(progress.apply(told.message(*events), 150.0), 150.0)
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


def test_a_pipe_is_told_of_retries_and_of_what_happens_to_the_build() -> None:
    """What is tried again, skipped, paused or resumed has a line of its own."""
    out = io.StringIO()
    told, progress = Told("a", "b"), Progress("b", "build.create", 100.0)
    view = PlainView(progress, Console(file=out, width=60))
    message = told.message(
        event("a", "retrying", 1, error="throttled", retry_in=2.0),
        event("b", "skipped", 2),
        {"event": "paused", "time": 3.0, "reason": "lunch"},
        {"event": "taken_over", "time": 4.0, "text": "2 in flight", "owner": "scheduler-2"},
        {"event": "taken_over", "time": 5.0, "text": "2 in flight"},
    )
    view.update(progress.apply(message, 103.0), 103.0)
    assert [line.split(maxsplit=1)[1] for line in out.getvalue().splitlines()] == [
        "retry   a  attempt 1 failed, again in 2.0s: throttled",
        "skip    b",
        "build   paused: lunch",
        "build   taken over by scheduler-2: 2 in flight",
        "build   taken over: 2 in flight",
    ]


def test_a_large_build_does_not_flood_a_pipe() -> None:
    """In a pipe a large build gets a line every two seconds, and every error."""
    out = io.StringIO()
    told = Told(*(f"c{number}" for number in range(1_000)))
    progress = Progress("b", "build.create", 100.0, total=1_000)
    view = PlainView(progress, Console(file=out, width=200))
    for number in range(1_000):
        now = 100.0 + number / 100
        message = told.message(event(f"c{number}", "running", 0), event(f"c{number}", "completed", 1))
        view.update(progress.apply(message, now), now)
    lines = out.getvalue().splitlines()
    assert [line.split()[:3] for line in lines] == [[f"{t}.0s", "so", "far"] for t in (2, 4, 6, 8)]
    view.update([News("x", "errored", None, "boom")], 110.0)
    assert "x: boom" in out.getvalue()


def test_a_late_joiner_is_told_the_errors_and_not_what_is_done() -> None:
    """What a snapshot tells is history: in lines only its errors are shown."""
    out = io.StringIO()
    told, progress = Told("a", "b"), Progress("b", "build.create", 100.0)
    told.message(event("a", "completed", 1, seconds=1.0), event("b", "errored", 1, error="boom"))
    view = PlainView(progress, Console(file=out, width=40))
    view.update(progress.snapshot(told.answer(9.0), 109.0), 109.0)
    assert [line.split()[1:] for line in out.getvalue().splitlines()] == [["error", "b:", "boom"]]


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


def test_many_errors_at_once_are_cut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred errors in one message are twenty in a terminal, each at most two lines, and a number."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0)
    view = TerminalView(progress, Console(file=out, width=80, height=24, force_terminal=True))
    names = [f"{number:03}" + "x" * 500 for number in range(100)]
    message = Told(*names).message(*(event(name, "errored", 0, error="y" * 900) for name in names))
    view.update(progress.apply(message, 100.0), 100.0)
    lines = [re.sub(r"\x1b\[[0-9;]*m", "", line) for line in out.getvalue().splitlines()]
    assert "... 80 lines more" in lines
    assert sum(line.startswith("error ") for line in lines) == 20
    assert len(lines) <= 41
    assert max(map(cell_len, lines)) <= 80


def test_no_color_means_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR set, a terminal gets no colours."""
    monkeypatch.setenv("NO_COLOR", "1")
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=3)
    view = TerminalView(progress, Console(file=out, width=80, height=24, force_terminal=True))
    play(view, progress, 3)
    colours = [f"\x1b[{code}" for code in ("31", "32", "36", "1;31", "1;32", "38;")]
    assert not any(colour in out.getvalue() for colour in colours)


def test_programs_get_json_lines() -> None:
    """Each event is a line as it was published, then one says how it ended."""
    out = io.StringIO()
    progress = Progress("b", "build.create", 100.0, total=2)
    view = open_view(progress, Console(file=out, width=40), json=True)
    assert isinstance(view, JsonView)
    play(view, progress, 1)
    lines = list(map(json.loads, out.getvalue().splitlines()))
    assert {(line["v"], line["build"]) for line in lines} == {(1, "b")}
    assert [line.get("state", line.get("event")) for line in lines] == [
        "running", "completed", "running", "errored", "note", "ended",
    ]  # fmt: skip
    assert (lines[1]["seq"], lines[1]["seconds"], lines[3]["error"]) == (2, 0.5, "boom\x1b[2J")
    end = lines[-1]
    assert (end["status"], end["error"], end["seconds"]) == ("errored", "bad: boom", 60.0)
    assert end["counts"]["errored"] == 1
    assert end["slowest"] == [{"component": "bad", "seconds": 1.0}, {"component": "c0", "seconds": 0.5}]


def test_programs_get_a_snapshot_as_events_without_numbers() -> None:
    """What was learnt from a snapshot has no number: that tells it from what was published."""
    out = io.StringIO()
    told, progress = Told("a"), Progress("b", "build.create", 100.0)
    told.message(event("a", "running", 0, attempt=2), event("a", "errored", 1, error="boom", attempt=2))
    view = JsonView(progress, Console(file=out, width=40))
    view.update(progress.snapshot(told.answer(9.0), 109.0), 109.0)
    (line,) = map(json.loads, out.getvalue().splitlines())
    known = {"component": "a", "state": "errored", "attempt": 2, "seconds": 1.0, "error": "boom"}
    assert line == {"v": 1, "build": "b", **known}


# The summary.


def summary_of(progress: Progress, now: float) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(render_summary(progress, now))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_the_summary_names_counts_duration_and_the_slowest() -> None:
    """A build that is done says how many, how long, and what took longest."""
    told, progress = Told("a", "b"), Progress("b", "build.create", 100.0)
    events = event("a", "completed", 1, seconds=1.0), event("b", "completed", 7, seconds=7.0)
    progress.apply(told.message(*events), 107.0)
    progress.finish({}, 107.0, failed=False)
    expected = ["", "done  2 components in 7.0s", "slowest:", "     7.0s  b", "     1.0s  a"]
    assert summary_of(progress, 107.0) == expected


ENDED = datetime(2026, 1, 12, 17, 3).timestamp()  # noqa: DTZ001 - in the zone of this computer
NEXT_DAY = datetime(2026, 1, 13, 9, 30).timestamp()  # noqa: DTZ001


@pytest.mark.parametrize(
    ("error", "earlier", "first", "last"),
    [
        (None, EarlierEnd(ENDED, NEXT_DAY, 7.0), "done  2 components in 7.0s", "done since yesterday 17:03"),
        (None, EarlierEnd(None, NEXT_DAY, None), "done  2 components", "done before"),
        ("a: no", EarlierEnd(ENDED, ENDED, 7.0), "errored after 7.0s: a: no", "errored since today 17:03"),
        ("a: no", EarlierEnd(ENDED, ENDED, None), "errored: a: no", "errored since today 17:03"),
    ],
)
def test_the_last_line_says_that_nothing_was_sent(
    error: str | None, earlier: EarlierEnd, first: str, last: str
) -> None:
    """Where a build was over before it was submitted: since when, and what to do where it failed."""
    progress = Progress("b", "build.create", 100.0, total=2)
    progress.finish({"error": error}, 100.5, failed=error is not None)
    progress.earlier = earlier
    lines = summary_of(progress, 100.5)
    assert lines[1] == first
    cure = ": scheduler retry b, or run --fresh" if error else ""
    assert lines[-1] == f"{last}; nothing was sent{cure}"


def test_json_says_that_nothing_was_sent() -> None:
    """In its last object, with the time of the end."""
    progress = Progress("b", "build.create", 100.0, total=2)
    progress.finish({}, 100.5, failed=False)
    out = io.StringIO()
    JsonView(progress, Console(file=out, width=40)).summary(100.5)
    assert "replayed" not in json.loads(out.getvalue())
    progress.earlier = EarlierEnd(ENDED, NEXT_DAY, None)
    out = io.StringIO()
    JsonView(progress, Console(file=out, width=40)).summary(100.5)
    end = json.loads(out.getvalue())
    assert (end["status"], end["replayed"], end["since"], end["seconds"]) == ("done", True, ENDED, None)


def chain(length: int, name: str = "c") -> JSON:
    """The answer to ``get`` about a chain of components, each of which takes a second."""
    components = []
    for number in range(length):
        times = {"due": T + number, "sent": T + number + 0.25, "ended": T + number + 1}
        needs = [f"{name}{number - 1:03}"] if number else []
        one = {"id": f"{name}{number:03}", "state": "completed", "needs": needs}
        components.append(one | times)
    return {"status": "done", "now": T + length, "components": components}


def test_the_summary_names_the_critical_path() -> None:
    """The path stands with what each of it took, waiting included; the middle of a long one is counted."""
    progress = Progress("b", "build.create", 100.0, total=10)
    progress.finish({}, 110.0, failed=False)
    progress.explain(chain(10))
    lines = summary_of(progress, 110.0)
    begin = lines.index("critical path: 10 components, 10.0s, of which 2.5s waiting")
    expected = [
        "1.0s  c000",
        "1.0s  c001",
        "1.0s  c002",
        "4.0s  in 4 more",
        "1.0s  c007",
        "1.0s  c008",
        "1.0s  c009",
    ]
    assert [line.strip() for line in lines[begin + 1 : begin + 8]] == expected


def test_the_summary_fits_a_screen() -> None:
    """With a long error, a long path and long ids the summary is less than 24 lines of 80."""
    told, progress = Told("a" * 500), Progress("b" * 500, "build.create", 100.0)
    progress.apply(told.message(event("a" * 500, "errored", 0, error="x" * 5_000)), 100.0)
    progress.finish({"error": "y" * 5_000}, 110.0, failed=True)
    progress.explain(chain(100, "z" * 500))
    lines = summary_of(progress, 110.0)
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_the_timeline_of_the_summary_is_that_of_the_build() -> None:
    """What the summary calls the path is what `timeline` does."""
    progress = Progress("b", "build.create", 100.0, total=3)
    progress.explain(chain(3))
    assert progress.path == read_timeline(chain(3)).path
