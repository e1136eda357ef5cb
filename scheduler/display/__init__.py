"""Builds as people see them: while they run, and when they are asked about."""

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
    """Standard output; a reader that is gone is an exception, where rich would end the process."""

    def __init__(self) -> None:
        super().__init__(highlight=False)

    def on_broken_pipe(self) -> None:
        """Raise, and leave the rest to whoever runs the command."""
        raise BrokenPipeError


def open_view(progress: Progress, console: Console | None = None, *, json: bool = False) -> View:
    """The view that suits where standard output goes; with ``json`` the one for programs."""
    console = console or Output()
    if json:
        return JsonView(progress, console)
    return TerminalView(progress, console) if console.is_terminal else PlainView(progress, console)
