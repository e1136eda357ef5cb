"""Frame of the board: a picture of a running build, never larger than the terminal."""

from itertools import islice

from attrs import frozen
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult

from scheduler.client.progress import Progress
from scheduler.display.lines import (
    STATE_STYLES,
    Line,
    bar,
    counts,
    fit,
    fit_id,
    segments,
    time_left,
)
from scheduler.text import agreeing, seconds

_RETRYING = 3
"""Largest number of lines about components to be retried."""
_ABOVE = 4
"""Lines above the picture that are left for errors, so that the latest can be seen."""
_TWO_COLUMNS = 76
_TIME = 7
"""Cells of a duration."""
_PATIENCE = 3.0
"""Seconds without an answer of a scheduler before the board mentions it."""
_STATUS = {
    "paused": "paused: nothing new starts",
    "halted": "stopping: nothing new starts, what runs is awaited",
}


@frozen
class Frame:
    """Frame as rich draws it."""

    progress: Progress
    now: float

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the frame; called by rich."""
        yield from segments(frame_lines(self.progress, self.now, options.max_width, options.size.height))


def frame_lines(progress: Progress, now: float, width: int, height: int) -> list[Line]:
    """Return the lines of the frame, as many as fit beside the cursor's line.

    Args:
        progress: the build.
        now: time, by the clock of ``progress``, seconds.
        width: cells of the terminal.
        height: lines of the terminal.
    """
    lines: list[Line] = [
        [],
        _header(progress, now, width),
        _bar(progress, width),
        _cut(counts(progress), width),
    ]
    if progress.status in _STATUS and progress.order is not None:
        lines.append([(fit(progress.order.sentence(now), width), "yellow")])
    if progress.limits:
        lines.append(_limits(progress, width))
    retrying = _retrying(progress, now, width)
    # An empty line before each part, "more", and the cursor's.
    room = (
        height - len(lines) - (len(retrying) + 1 if retrying else 0) - 3 - min(len(progress.errors), _ABOVE)
    )
    if progress.running and room > 0:
        lines += [[], *_running(progress, now, width, room)]
    if retrying:
        lines += [[], *retrying]
    return lines[: max(1, height - 1)]


def _header(progress: Progress, now: float, width: int) -> Line:
    right = seconds(progress.elapsed(now))
    if left := time_left(progress, now):
        right += f", {left}"
    room = width - len(right) - 2
    status = fit(_condition(progress, now), room // 2)
    action = fit(progress.action, 20)
    build = fit_id(progress.build, room - len(status) - cell_len(action) - 2)
    name = _cut([(action, "bold"), (f"  {build}", "")], room - len(status))
    line = [*name, (f"  {status}" if status else "", "yellow")]
    filled = sum(cell_len(text) for text, _ in line)
    return _cut([*line, (" " * (width - filled - len(right)) + right, "bold")], width)


def _condition(progress: Progress, now: float) -> str:
    """Describe an unusual condition; without a broker or a scheduler nothing else is known."""
    if progress.away is not None:
        return f"no broker connection for {seconds(now - progress.away)}"
    if progress.silent is not None and now - progress.silent >= _PATIENCE:
        return f"no scheduler answers for {seconds(now - progress.silent)}"
    if progress.gated and not progress.running and not progress.retrying and progress.status == "running":
        return "waits for approval"
    return _STATUS.get(progress.status, "")


def _bar(progress: Progress, width: int) -> Line:
    figures = f"  {progress.done:,} of {progress.total:,}"
    style = "red" if progress.errors else "green"
    return [*bar(progress.done, progress.total, max(1, width - len(figures)), style), (figures, "")]


def _cut(line: Line, width: int) -> Line:
    cut: Line = []
    for text, style in line:
        if width > 0:
            cut.append((fit(text, width), style))
            width -= cell_len(cut[-1][0])
    return cut


def _limits(progress: Progress, width: int) -> Line:
    reached = ", ".join(
        f"{limit} ({waiting:,} {agreeing(waiting, 'wait')})" for limit, waiting in progress.limits
    )
    return [("limits reached: ", "yellow"), (fit(reached, width - 16), "")]


def _running(progress: Progress, now: float, width: int, room: int) -> list[Line]:
    running = progress.running
    across = 2 if width >= _TWO_COLUMNS and len(running) > room else 1
    each = (width - 2 * (across - 1)) // across
    shown = list(islice(running.values(), room * across))
    rows = -(-len(shown) // across)
    lines: list[Line] = []
    for row in range(rows):
        line: Line = []
        for item in shown[row::rows]:
            free = each - 2 - _TIME
            note = fit(f"  {item.note}", free // 2) if item.note else ""
            name = fit_id(item.component, free - cell_len(note), pad=True)
            line += [
                (f"{'  ' if line else ''}  {name}", STATE_STYLES["running"]),
                (note, "dim"),
                (seconds(now - item.since).rjust(_TIME), "dim"),
            ]
        lines.append(line)
    more = max(progress.count("running"), len(running)) - len(shown)
    if more > 0:
        lines.append([(f"  +{more:,} more", "dim")])
    return lines


def _retrying(progress: Progress, now: float, width: int) -> list[Line]:
    lines: list[Line] = []
    for item in islice(progress.retrying.values(), _RETRYING):
        when = "soon" if item.at is None or item.at <= now else f"in {seconds(item.at - now)}"
        head = f"  again {when}".ljust(18)
        room = width - len(head) - 2
        name = fit_id(item.component, max(room // 2, room - len(item.error) - 2))
        error = fit(f": {item.error}" if item.error else "", room - cell_len(name))
        lines.append([(head, STATE_STYLES["retrying"]), (name, ""), (error, "dim")])
    more = max(progress.count("retrying"), len(progress.retrying)) - len(lines)
    if lines and more > 0:
        lines.append([(f"  +{more:,} more to be tried again", "dim")])
    return lines
