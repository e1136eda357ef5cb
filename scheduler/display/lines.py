"""Parts of a line: texts cut to the cells of a terminal, bars, counts, columns.

A line is only a list of texts with their styles. A board is drawn several times a second, and rich's own
tables and texts would take more time than all the rest.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from rich.text import Text

from scheduler.client.progress import Progress
from scheduler.client.timeline import Wait
from scheduler.text import printable, seconds

Line: TypeAlias = list[tuple[str, str]]
"""Texts, each with the name of its style; an empty name is none."""

STATE_STYLES = {
    "completed": "green",
    "done": "green",
    "running": "cyan",
    "retrying": "yellow",
    "skipped": "magenta",
    "gated": "magenta",
    "errored": "bold red",
    "cancelled": "bold red",
    "halted": "yellow",
    "paused": "yellow",
    "quarantined": "bold red",
}
_WORDS = (
    ("completed", "done"),
    ("running", "running"),
    ("waiting", "waiting"),
    ("retrying", "retrying"),
    ("skipped", "skipped"),
    ("errored", "errored"),
)
_WORTH_TELLING = 0.05
"""Shortest wait that is shown, in seconds."""
_SPLIT = 5
"""Smallest width, in cells, at which both ends of an id are shown."""
_ALWAYS = 3
"""Number of the first counts that are shown even if they are 0."""


def fit(text: str, width: int, *, pad: bool = False) -> str:
    """Cut ``text`` to ``width`` cells, with a mark; with ``pad``, fill it to exactly as many.

    Control characters are made harmless first.
    """
    if width <= 0:
        return ""
    # A character takes at most two cells, so a long id need not be measured whole.
    text = printable(text[: 2 * width + 2])
    size = len(text) if text.isascii() else cell_len(text)
    if size > width:
        return set_cell_size(text, width - 1) + "…"
    return text + " " * (width - size) if pad else text


def fit_id(text: str, width: int, *, pad: bool = False) -> str:
    """Cut as `fit` does, but in the middle: ids mostly differ at their end."""
    if len(text) > 4 * width + 4:
        ends = 2 * max(0, width) + 2
        text = text[:ends] + text[-ends:]
    text = printable(text)
    if width < _SPLIT or cell_len(text) <= width:
        return fit(text, width, pad=pad)
    tail, size = len(text), 0
    while size + cell_len(text[tail - 1]) <= (width - 1) // 2:
        tail -= 1
        size += cell_len(text[tail])
    return set_cell_size(text[:tail], width - 1 - size) + "…" + text[tail:]


def segments(lines: Iterable[Line]) -> Iterator[Segment]:
    """Convert lines to rich's segments."""
    end = Segment.line()
    for line in lines:
        for text, style in line:
            yield Segment(text, Style.parse(style) if style else None)
        yield end


def as_text(line: Line) -> Text:
    """Convert a line to rich's text, for lines that are printed once."""
    return Text.assemble(*line, no_wrap=True, overflow="ellipsis")


def time_left(progress: Progress, now: float) -> str:
    """Return ``about 12.0s left``, ``overdue by 19m00s``, or nothing if it is unknown."""
    overdue, left = progress.overdue(now), progress.left(now)
    if overdue is not None:
        return f"overdue by {seconds(overdue)}"
    return "" if left is None else f"about {seconds(max(1.0, left))} left"


def bar(done: int, total: int, width: int, style: str) -> Line:
    """Draw the completed share as a bar, which can also be read without colours."""
    filled = min(width, width * done // max(1, total))
    return [("━" * filled, style), ("╌" * (width - filled), "dim")]


def counts(progress: Progress) -> Line:
    """Return the number of components in each state."""
    line: Line = []
    for index, (state, word) in enumerate(_WORDS):
        number = progress.count(state)
        if number or index < _ALWAYS:
            style = STATE_STYLES.get(state, "") if number else "dim"
            line.append((f"{'  ' if line else ''}{number:,} {word}", style))
            if state == "waiting" and progress.gated:
                line.append((f" ({progress.gated:,} for approval)", STATE_STYLES["gated"]))
    return line


def plain(line: Line) -> str:
    """Return a line's text without styles."""
    return "".join(text for text, _ in line)


def waits_in_words(waits: Mapping[Wait, float], slots: str = "waiting") -> str:
    """Return ``2.0s waiting, 1m04s paused``; reasons without a wait are left out.

    Args:
        waits: seconds by reason.
        slots: the words for waiting for slots and limits.
    """
    words = {
        Wait.SLOTS: slots,
        Wait.RETRY: "between attempts",
        Wait.PAUSE: "paused",
        Wait.OUTAGE: "without the broker",
        Wait.APPROVAL: "for approval",
    }
    shown = [kind for kind in words if waits[kind] >= _WORTH_TELLING] or [Wait.SLOTS]
    return ", ".join(f"{seconds(waits[kind])} {words[kind]}" for kind in shown)


def columns(
    rows: list[list[str]],
    *,
    width: int | None,
    flexible: tuple[int, ...],
    right: tuple[int, ...] = (),
    ids: tuple[int, ...] = (),
) -> list[list[str]]:
    """Make the cells of each column equally wide; the caller puts two blanks between columns.

    Args:
        rows: rows with equally many cells; the first may be a heading.
        width: the terminal's width in cells, for all columns; None, for pipes, cuts nothing.
        flexible: columns that shrink if there is not enough room, the last of them first.
        right: columns with numbers.
        ids: columns that are cut in the middle.
    """
    if not rows:
        return []
    widths = [max(cell_len(row[index]) for row in rows) for index in range(len(rows[0]))]
    if width is not None:
        for index in reversed(flexible):
            over = sum(widths) + 2 * (len(widths) - 1) - width
            if over > 0:
                widths[index] = max(_LEAST, widths[index] - over)
    shaped = []
    for row in rows:
        cells = []
        for index, (cell, size) in enumerate(zip(row, widths, strict=True)):
            if index in right:
                cells.append(" " * (size - cell_len(cell)) + cell)
            else:
                cut = fit_id if index in ids else fit
                cells.append(cut(cell, size, pad=index < len(row) - 1))
        shaped.append(cells)
    return shaped


_LEAST = 8
"""Cells that a column keeps in the narrowest terminal."""
