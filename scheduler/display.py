"""A build as people see it while it runs.

`TerminalView` draws its progress in place, `PlainView` writes lines, for pipes and logs. Both cost what
changed, never the size of the build.
"""

from collections.abc import Iterator, Sequence
from itertools import islice

from attrs import frozen
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from scheduler.progress import News, Progress, View
from scheduler.text import count, printable, seconds

_CHATTY = 60
"""Builds of up to this many components have a line for each that completes; larger ones for errors only."""
_PLAIN_INTERVAL = 2.0
"""Seconds between two lines of progress about a larger build."""
_ERROR_WIDTH = 400
_ID_WIDTH = 200


class _Console(Console):
    """Standard output; a reader that is gone is an exception, where rich would end the process."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def open_view(progress: Progress, console: Console | None = None) -> View:
    """The view that suits where standard output goes."""
    console = console or _Console(highlight=False)
    return TerminalView(progress, console) if console.is_terminal else PlainView(progress, console)


class TerminalView:
    """Draws in place: settled components scroll away above, the state of the build stays below."""

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
        lines = [_settled_line(item) for item in news if self._worth_a_line(item)]
        if lines:
            # One print for all of them: each one moves the frame and draws it anew.
            self._console.print(Group(*lines))
        self._live.refresh()

    def _worth_a_line(self, item: News) -> bool:
        return item.state == "errored" or self._progress.total <= _CHATTY

    def note(self, text: str) -> None:
        """Print above the frame."""
        self._console.print(Text(printable(text), style="yellow"))

    def stop(self) -> None:
        """Take the frame away."""
        self._live.stop()

    def summary(self, now: float) -> None:
        """Print the last word."""
        self._console.print(render_summary(self._progress, now))


class PlainView:
    """Writes lines: one for each settled component of a small build, now and then one for a large one."""

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
            if item.state == "errored":
                error = printable(item.error, _ERROR_WIDTH)
                self._line(now, "error", f"{printable(item.component, _ID_WIDTH)}: {error}")
            elif progress.total <= _CHATTY:
                took = "" if item.took is None else f" ({seconds(item.took)})"
                self._line(now, "done", printable(item.component, _ID_WIDTH) + took)
        if progress.total > _CHATTY and now >= self._next:
            self._next = now + _PLAIN_INTERVAL
            self._line(now, "so far", _counts(progress).plain)

    def note(self, text: str) -> None:
        """Write a line."""
        self._write(printable(text))

    def stop(self) -> None:
        """Nothing to restore."""

    def summary(self, now: float) -> None:
        """Write how it ended."""
        for line in _summary_lines(self._progress, now):
            self._write(line.plain)

    def _line(self, now: float, word: str, text: str) -> None:
        self._write(f"{seconds(self._progress.elapsed(now)):>7}  {word:<7} {text}")

    def _write(self, line: str) -> None:
        # As it is: no wrapping, no markup, or the lines would be of no use to grep.
        self._console.out(line, highlight=False)


@frozen
class Frame:
    """One picture of a running build, as large as the terminal allows."""

    progress: Progress
    now: float

    def __rich_console__(self, _console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw it; called by rich."""
        progress, width = self.progress, max(20, options.max_width)
        yield Text()
        yield _header(progress, self.now)
        yield _bar(progress)
        yield _counts(progress)
        # Header, bar, counts, two empty lines, and "more"; one is left for the cursor.
        room = max(1, min(len(progress.running), options.size.height - 7))
        if progress.running:
            yield Text()
            yield from self._running(room, width)

    def _running(self, room: int, width: int) -> Iterator[RenderableType]:
        running = self.progress.running
        columns = 2 if width >= 76 and len(running) > room else 1
        shown = list(islice(running.values(), room * columns))
        table = Table.grid(expand=True, padding=(0, 2, 0, 0))
        for _ in range(columns):
            table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
            table.add_column(justify="right", width=7, no_wrap=True)
        rows = -(-len(shown) // columns)
        for row in range(rows):
            cells: list[Text] = []
            for item in shown[row::rows]:
                cells += [
                    Text("  " + printable(item.component, _ID_WIDTH), style="cyan"),
                    Text(seconds(self.now - item.since), style="dim"),
                ]
            table.add_row(*cells)
        yield table
        if len(running) > len(shown):
            yield Text(f"  +{len(running) - len(shown):,} more", style="dim")


def _header(progress: Progress, now: float) -> RenderableType:
    title = Text(no_wrap=True, overflow="ellipsis")
    title.append(printable(progress.action), style="bold")
    title.append("  ")
    title.append(printable(progress.build))
    table = Table.grid(expand=True)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    table.add_column(justify="right", no_wrap=True)
    table.add_row(title, Text(seconds(progress.elapsed(now)), style="bold"))
    return table


def _bar(progress: Progress) -> RenderableType:
    total = max(1, progress.total)
    figures = Text(f"  {progress.done:,} of {progress.total:,}")
    table = Table.grid(expand=True)
    table.add_column(ratio=1)
    table.add_column(justify="right", no_wrap=True)
    style = "red" if progress.errors else "green"
    table.add_row(
        ProgressBar(total=total, completed=progress.done, complete_style=style, finished_style=style), figures
    )
    return table


def _counts(progress: Progress) -> Text:
    text = Text(no_wrap=True, overflow="ellipsis")
    parts = [
        (progress.done, "done", "green"),
        (len(progress.running), "running", "cyan"),
        (progress.waiting, "waiting", ""),
        (len(progress.errors), "errored", "bold red"),
    ]
    for number, word, style in parts:
        if number or word != "errored":
            text.append("  " if text else "")
            text.append(f"{number:,} {word}", style=style if number else "dim")
    return text


def _settled_line(item: News) -> Text:
    text = Text(no_wrap=item.state != "errored", overflow="ellipsis" if item.state != "errored" else "fold")
    if item.state == "errored":
        text.append("error ", style="bold red")
        text.append(printable(item.component, _ID_WIDTH), style="bold")
        text.append(": " + printable(item.error, _ERROR_WIDTH))
        return text
    text.append("done  ", style="green")
    text.append(printable(item.component, _ID_WIDTH))
    if item.took is not None:
        text.append(f"  {seconds(item.took)}", style="dim")
    return text


def render_summary(progress: Progress, now: float) -> RenderableType:
    """How the build ended: the counts, how long it took, and what took longest."""
    return Group(*_summary_lines(progress, now))


def _summary_lines(progress: Progress, now: float) -> list[Text]:
    took = seconds(progress.elapsed(now))
    lines = [Text()]
    if progress.error is None:
        end = Text.assemble(("done", "bold green"), f"  {count(progress.done, 'component')} in {took}")
    else:
        error = printable(progress.error, _ERROR_WIDTH)
        end = Text.assemble(("errored", "bold red"), f" after {took}: {error}")
    lines.append(end)
    if progress.error is not None:
        lines.append(_counts(progress))
    if progress.slowest and progress.total > 1:
        lines.append(Text("slowest:", style="dim"))
        lines += [
            Text(f"  {seconds(took):>7}  {printable(component, _ID_WIDTH)}", style="dim")
            for took, component in progress.slowest
        ]
    return lines
