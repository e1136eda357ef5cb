"""Three views of a running build: a board in a terminal, lines in a pipe, JSON for programs.

The cost of an update depends on what changed, never on the size of the build.
"""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rich.cells import cell_len, chop_cells
from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from scheduler.client.counts import GATED
from scheduler.client.orders import read_event
from scheduler.client.progress import Progress
from scheduler.client.view import News
from scheduler.definition.strictjson import encode
from scheduler.display.frame import Frame
from scheduler.display.lines import counts, fit, fit_id, plain, time_left
from scheduler.display.summary import render_summary, summary_lines
from scheduler.text import count, printable, seconds

_CHATTY = 60
"""Largest number of components with a line for each that completes; larger builds show errors only."""
_MOST_ERRORS = 20
"""Largest number of lines that one update adds in a terminal; `scheduler status` has all errors."""
_PLAIN_INTERVAL = 2.0
"""Seconds between two lines about the progress of a larger build."""
_ERROR_WIDTH = 400
_ID_WIDTH = 200
_WORD = 6
"""Cells of the first word of a line, in a terminal."""
_SETTLED = {"completed": "done", "errored": "error", "skipped": "skip", "retrying": "retry"}
_TOLD_OTHERWISE = frozenset({"failing", "finished"})
"""Events of a build that people see anyway: in the line of the component, and in the summary."""
_STYLES = {"completed": "green", "errored": "bold red", "skipped": "magenta", "retrying": "yellow"}


def _is_worth_a_line(item: News, progress: Progress) -> bool:
    if item.state in {"completed", "skipped", "retrying"} and item.component:
        # Errors are worth a line even if they are older than our view.
        return progress.total <= _CHATTY and not item.old
    return item.state == "errored" or (not item.component and item.state not in _TOLD_OTHERWISE)


class TerminalView:
    """Board: errors and settled components scroll away above, the state of the build stays below."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._now = progress.began
        self._live = Live(
            console=console,
            auto_refresh=False,
            transient=True,
            vertical_overflow="crop",
            get_renderable=lambda: Frame(self._progress, self._now),
        )

    def start(self) -> None:
        """Draw the first frame."""
        self._live.start(refresh=True)

    def update(self, news: Sequence[News], now: float) -> None:
        """Draw a frame."""
        self._now = now
        worth = [item for item in news if _is_worth_a_line(item, self._progress)]
        build = self._progress.build
        lines = [_settled_line(item, build, self._console.width) for item in worth[-_MOST_ERRORS:]]
        if len(worth) > len(lines):
            lines.insert(0, Text(f"... {count(len(worth) - len(lines), 'line')} more", style="dim"))
        if lines:
            # One print for all of them, since each print moves the frame and draws it again.
            self._console.print(Group(*lines))
        self._live.refresh()

    def note(self, text: str) -> None:
        """Print above the frame."""
        self._console.print(Text(printable(text), style="yellow"))

    def stop(self) -> None:
        """Remove the frame."""
        self._live.stop()

    def summary(self, now: float) -> None:
        """Print the summary."""
        self._console.print(render_summary(self._progress, now, self._console.width))


def _settled_line(item: News, build: str, width: int) -> Text:
    """Describe what happened on one line; an error may take two."""
    if not item.component:
        return Text(fit(_of_the_build(item, build), width), style="yellow", no_wrap=True)
    failed = item.state == "errored"
    text = Text(no_wrap=True)
    text.append(f"{_SETTLED[item.state]} ".ljust(_WORD), style=_STYLES[item.state])
    room = width - _WORD
    more = f": {printable(item.error, _ERROR_WIDTH) or 'failed'}" if failed else _details(item)
    name = fit_id(item.component, max(room // 2, room - cell_len(more)))
    if not failed:
        return text.append(name).append(fit(more, room - cell_len(name)), style="dim")
    first, *rest = chop_cells(name + more, room)
    text.append(first[: len(name)], style="bold").append(first[len(name) :])
    if rest:
        text.append("\n" + " " * _WORD + fit("".join(rest), room))
    return text


def _details(item: News) -> str:
    if item.state == "retrying":
        again = "" if item.retry_in is None else f" in {seconds(item.retry_in)}"
        return f"  attempt {item.attempt} failed, again{again}: {item.error}"
    return "" if item.took is None else f"  {seconds(item.took)}"


def _of_the_build(item: News, build: str) -> str:
    if item.state == GATED:
        cure = shlex.join(["scheduler", "approve", build, item.error])
        return f"{item.error} waits for approval: {cure}"
    order = None if item.event is None else read_event(item.event, 0.0)
    who = order.who if order is not None else (item.event or {}).get("owner")
    by = f" by {who}" if isinstance(who, str) and who else ""
    said = item.state.replace("_", " ")
    return f"{said}{by}: {item.error}" if item.error else said + by


class PlainView:
    """Lines: one for each settled component of a small build; from time to time one for a large build."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._next = progress.began + _PLAIN_INTERVAL

    def start(self) -> None:
        """Nothing to prepare."""

    def update(self, news: Sequence[News], now: float) -> None:
        """Write what is new."""
        progress = self._progress
        for item in news:
            if _is_worth_a_line(item, progress):
                self._tell(item, now)
        if progress.total > _CHATTY and now >= self._next:
            self._next = now + _PLAIN_INTERVAL
            left = time_left(progress, now)
            self._line(now, "so far", plain(counts(progress)) + (f"  {left}" if left else ""))

    def _tell(self, item: News, now: float) -> None:
        if not item.component:
            self._line(now, "build", printable(_of_the_build(item, self._progress.build), _ERROR_WIDTH))
            return
        name = printable(item.component, _ID_WIDTH)
        if item.state == "errored":
            more = f": {printable(item.error, _ERROR_WIDTH) or 'failed'}"
        elif item.state == "retrying":
            more = printable(_details(item), _ERROR_WIDTH)
        else:
            more = "" if item.took is None else f" ({seconds(item.took)})"
        self._line(now, _SETTLED[item.state], name + more)

    def note(self, text: str) -> None:
        """Write a line."""
        self._write(printable(text))

    def stop(self) -> None:
        """Nothing to restore."""

    def summary(self, now: float) -> None:
        """Write how it ended."""
        for line in summary_lines(self._progress, now):
            self._write(line.plain)

    def _line(self, now: float, word: str, text: str) -> None:
        self._write(f"{seconds(self._progress.elapsed(now)):>7}  {word:<7} {text}")

    def _write(self, line: str) -> None:
        # No wrapping and no markup, which would make the lines useless to grep.
        self._console.out(line, highlight=False)


class JsonView:
    """JSON lines: an object for each event, and one at the end."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console

    def start(self) -> None:
        """Nothing to prepare."""

    def update(self, news: Sequence[News], now: float) -> None:  # noqa: ARG002 - events have times
        """Write the news: events as published, and news of a snapshot without a number."""
        for item in news:
            self._write(item.event if item.event is not None else _as_event(item))

    def note(self, text: str) -> None:
        """Write the remark as an event of our own."""
        self._write({"event": "note", "text": text})

    def stop(self) -> None:
        """Nothing to restore."""

    def summary(self, now: float) -> None:
        """Write how it ended."""
        progress, earlier = self._progress, self._progress.earlier
        took = progress.elapsed(now) if earlier is None else earlier.took
        end: dict[str, Any] = {
            "event": "ended",
            "status": progress.status,
            "seconds": None if took is None else round(took, 3),
            "total": progress.total,
            "counts": progress.counts,
            "critical_path": [
                {
                    "component": span.component,
                    "waited": round(span.waiting, 3),
                    "worked": round(span.working, 3),
                    "waits": {kind.value: round(took, 3) for kind, took in span.waits.items() if took},
                }
                for span in progress.path
            ],
            "slowest": [
                {"component": component, "seconds": round(took, 3)} for took, component in progress.slowest
            ],
        }
        if progress.error is not None:
            end["error"] = progress.error
        if earlier is not None:
            end |= {"replayed": True, "since": earlier.ended}
        self._write(end)

    def _write(self, document: Mapping[str, Any]) -> None:
        line = encode({"v": 1, "build": self._progress.build, **document}).decode()
        self._console.out(line, highlight=False)


def _as_event(item: News) -> dict[str, Any]:
    event: dict[str, Any] = {"component": item.component, "state": item.state, "attempt": item.attempt}
    if item.took is not None:
        event["seconds"] = item.took
    if item.error:
        event["error"] = item.error
    return event
