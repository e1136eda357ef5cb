"""Displays builds to people: while they run, and in answers to questions."""

from rich.console import Console

from scheduler.client.progress import Progress
from scheduler.client.view import View
from scheduler.display.frame import Frame, frame_lines
from scheduler.display.summary import render_summary
from scheduler.display.views import JsonView, PlainView, TerminalView

__all__ = [
    "Frame",
    "JsonView",
    "Output",
    "PlainView",
    "TerminalView",
    "frame_lines",
    "open_view",
    "render_summary",
]


class Output(Console):
    """Standard output, on which a reader that has gone is an exception; rich would end the process."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Raise, and leave the rest to the command line."""
        raise BrokenPipeError


def open_view(progress: Progress, console: Console | None = None, *, json: bool = False) -> View:
    """Return the view that suits standard output; with ``json`` the one for programs."""
    console = console or Output()
    if json:
        return JsonView(progress, console)
    return TerminalView(progress, console) if console.is_terminal else PlainView(progress, console)
