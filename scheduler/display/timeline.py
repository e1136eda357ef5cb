"""Displays a build's timeline in 80 columns: number at work, critical path, slowest components."""

from collections.abc import Iterable, Sequence
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console

from scheduler.client.timeline import Span, Timeline, Wait, histogram, waits_of
from scheduler.display.lines import STATE_STYLES, Line, fit, fit_id, waits_in_words
from scheduler.display.tables import put
from scheduler.text import count, printable, seconds

_WIDTH = 80
"""Width in a pipe, in cells."""
_BLOCKS = " ▁▂▃▄▅▆▇█"
_MARKS = {
    Wait.SLOTS: ("░", "waiting"),
    Wait.RETRY: ("╌", "between attempts"),
    Wait.PAUSE: ("=", "paused"),
    Wait.OUTAGE: ("x", "no broker"),
    Wait.APPROVAL: ("?", "for approval"),
}
_SMALL = 20
"""Largest number of components of a build that is shown whole."""
_SLOWEST = 10
_LONGEST_PATH = 16
"""Largest number of components of the critical path; the middle of a longer one is left out."""


def show_timeline(console: Console, timeline: Timeline, build: str, status: str) -> None:
    """Print a timeline.

    Args:
        console: the output; its width is that of the terminal, in a pipe 80 columns.
        timeline: the timeline.
        build: the build's id.
        status: the build's status.
    """
    width = max(40, console.width) if console.is_terminal else _WIDTH
    took = seconds(timeline.seconds)
    style = STATE_STYLES.get(status, "")
    put(
        console,
        [(fit_id(build, width - 40), "bold"), ("  ", ""), (fit(status, 12), style), (f"  {took}", "")],
    )
    if not timeline.spans:
        put(console, [("nothing has been due yet", "")])
        return
    _concurrency(console, timeline, width)
    if len(timeline.spans) <= _SMALL:
        _part(
            console,
            timeline,
            f"every component ({_legend(timeline)}):",
            timeline.spans,
            width,
        )
        _critical(console, timeline, width)
        return
    path = timeline.path
    hidden = len(path) - _LONGEST_PATH
    shown = path if hidden <= 0 else path[: _LONGEST_PATH // 2] + path[-_LONGEST_PATH // 2 :]
    without = f", {hidden:,} not shown" if hidden > 0 else ""
    put(console, [])
    _critical(console, timeline, width, without)
    _bars(console, timeline, shown, width)
    _part(console, timeline, "slowest:", timeline.slowest(_SLOWEST), width)


def _concurrency(console: Console, timeline: Timeline, width: int) -> None:
    heights = histogram(timeline.spans, timeline.began, timeline.ended, width)
    most = timeline.most
    put(console, [])
    top = max(1.0, *heights)
    blocks = "".join(_BLOCKS[-(-round(height / top * 80) // 10)] for height in heights)
    put(console, [(blocks, STATE_STYLES["running"])])
    end = seconds(timeline.seconds)
    middle = f"working at a time, at most {most:,}"
    put(console, [(f"0s{middle.center(width - 2 - len(end))}{end}", "dim")])
    share = count(len(timeline.spans), "component")
    waited = waits_in_words(timeline.waits, "of waiting for slots and limits")
    _put_wrapped(console, f"{share}: {seconds(timeline.working)} of work, {waited}", width)


def _critical(console: Console, timeline: Timeline, width: int, more: str = "") -> None:
    path = timeline.path
    working = sum(span.working for span in path)
    took = f"{seconds(working)} working, {waits_in_words(waits_of(path))}"
    _put_wrapped(console, f"critical path: {count(len(path), 'component')}, {took}{more}", width, "bold")


def _put_wrapped(console: Console, line: str, width: int, style: str = "") -> None:
    for part in wrap(line, width, subsequent_indent="  "):
        put(console, [(part, style)])


def _part(console: Console, timeline: Timeline, title: str, spans: Sequence[Span], width: int) -> None:
    put(console, [])
    _put_wrapped(console, title, width, "dim")
    _bars(console, timeline, spans, width)


def _bars(console: Console, timeline: Timeline, spans: Iterable[Span], width: int) -> None:
    spans = list(spans)
    on_path = {span.component for span in timeline.path}
    names = min(max(cell_len(printable(span.component)) for span in spans), width * 2 // 5)
    room = width - names - 2 - 2 - 18
    for span in spans:
        mark = "*" if span.component in on_path else " "
        waited = f"+{seconds(span.waiting)}" if span.waiting >= 0.05 else ""
        style = STATE_STYLES.get(span.state, "")
        line: Line = [(f"{mark} ", "bold"), (fit_id(span.component, names, pad=True) + "  ", "")]
        line += _bar(span, timeline, room, style)
        line.append((f" {seconds(span.working):>8}{waited:>9}", "dim"))
        put(console, line)
        if span.note:
            put(console, [(" " * (names + 4) + fit(span.note, width - names - 4), "dim")])


def _bar(span: Span, timeline: Timeline, room: int, style: str) -> Line:
    """Draw a component's time as a bar; anything that took time has at least one cell."""
    scale = room / timeline.seconds if timeline.seconds > 0 else 0.0
    cells = [" "] * room

    def place(moment: float) -> int:
        return min(room - 1, int((moment - timeline.began) * scale))

    for kind, (mark, _) in _MARKS.items():
        for begin, end in span.waited_for(kind):
            cells[place(begin) : place(end)] = mark * (place(end) - place(begin))
    for begin, end in span.attempts:
        last = min(room, max(place(begin) + 1, round((end - timeline.began) * scale)))
        cells[place(begin) : last] = "█" * (last - place(begin))
    line, sent = "".join(cells), place(span.sent)
    return [(line[:sent], "yellow"), (line[sent:], style)]


def _legend(timeline: Timeline) -> str:
    waits = timeline.waits
    marks = [f"{mark} {word}" for kind, (mark, word) in _MARKS.items() if waits[kind] or kind is Wait.SLOTS]
    return ", ".join(["█ working", *marks, "* critical path"])
