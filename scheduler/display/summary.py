"""Displays how a build ended, in less than a screen."""

from collections.abc import Sequence
from textwrap import wrap

from rich.console import Group, RenderableType
from rich.text import Text

from scheduler.client.progress import EarlierEnd, Progress
from scheduler.client.timeline import Span, waits_of
from scheduler.display.lines import as_text, counts, fit_id, waits_in_words
from scheduler.text import count, moment, printable, seconds

_ERROR_WIDTH = 230
"""Largest number of characters of an error: less than three lines of 80."""
_ID_WIDTH = 200
_WIDTH = 80
_TIME = 11
"""Cells before an id: a duration and blanks."""
_ENDS = 3
"""Components of the critical path shown at each of its ends."""


def render_summary(progress: Progress, now: float, width: int = 0) -> RenderableType:
    """Render counts, duration, critical path and slowest components; ids are cut to ``width``."""
    return Group(*summary_lines(progress, now, width))


def summary_lines(progress: Progress, now: float, width: int = 0) -> list[Text]:
    """Return the summary line by line."""
    room = min(width or _ID_WIDTH, _ID_WIDTH) - _TIME
    earlier = progress.earlier
    elapsed = progress.elapsed(now) if earlier is None else earlier.took
    lines = [Text()]
    if progress.error is None:
        took = "" if elapsed is None else f" in {seconds(elapsed)}"
        lines.append(Text.assemble(("done", "bold green"), f"  {count(progress.done, 'component')}{took}"))
    else:
        took = "" if elapsed is None else f" after {seconds(elapsed)}"
        error = printable(progress.error.removeprefix("cancelled: "), _ERROR_WIDTH)
        lines.append(Text.assemble((progress.status, "bold red"), f"{took}: {error}"))
    if progress.error is not None or progress.count("skipped"):
        lines.append(as_text(counts(progress)))
    if len(progress.path) > 1:
        lines += _path(progress.path, room)
    if progress.slowest and progress.total > 1:
        lines.append(_dim("slowest:"))
        lines += [
            _dim(f"  {seconds(took):>7}  {fit_id(component, room)}") for took, component in progress.slowest
        ]
    if earlier is not None:
        lines.append(_earlier(progress, earlier))
    return lines


def _earlier(progress: Progress, earlier: EarlierEnd) -> Text:
    """Return the last line about a build that was over before it was submitted."""
    since = "before" if earlier.ended is None else f"since {moment(earlier.ended, earlier.now)}"
    if progress.error is None:
        return Text.assemble(("done", "bold green"), f" {since}; nothing was sent")
    cure = f"scheduler retry {printable(progress.build)}, or run --fresh"
    return Text.assemble((progress.status, "bold red"), f" {since}; nothing was sent: {cure}")


def _path(path: Sequence[Span], room: int) -> list[Text]:
    total = path[-1].ended - path[0].due
    took = f"{seconds(total)}, of which {waits_in_words(waits_of(path))}"
    said = f"critical path: {count(len(path), 'component')}, {took}"
    lines = [_dim(part) for part in wrap(said, _WIDTH, subsequent_indent="  ")]
    hidden = len(path) - 2 * _ENDS
    for index, span in enumerate(path):
        if hidden <= 1 or not _ENDS <= index < len(path) - _ENDS:
            lines.append(_dim(f"  {seconds(span.total):>7}  {fit_id(span.component, room)}"))
        elif index == _ENDS:
            between = seconds(sum(one.total for one in path[_ENDS:-_ENDS]))
            lines.append(_dim(f"  {between:>7}  in {hidden:,} more"))
    return lines


def _dim(text: str) -> Text:
    return Text(text, style="dim", no_wrap=True, overflow="ellipsis")
