"""Pages of ``--help``, without the flags that nearly every command has."""

from typing import TYPE_CHECKING, Final

from cyclopts.help.formatters import DefaultFormatter

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

_SHARED: Final = ("Broker", "Log")
"""Panels of flags that nearly every command has."""


class HelpPages(DefaultFormatter):
    """Renders the pages."""

    def __call__(self, console: "Console", options: "ConsoleOptions", panel: "HelpPanel") -> None:
        """Render a panel, unless its flags are shared."""
        if panel.title not in _SHARED:
            super().__call__(console, options, panel)
