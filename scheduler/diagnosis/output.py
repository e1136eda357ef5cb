"""Prints a diagnosis: a line or two for each finding, its cure below."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.diagnosis import Diagnosis, Level
from scheduler.text import count, printable

_STYLES = {"ok": "green", "note": "cyan", "warning": "yellow", "failure": "bold red"}


def show(diagnosis: Diagnosis, console: Console) -> None:
    """Print a diagnosis."""
    if diagnosis.url:
        console.print(Text(f"The broker at {printable(diagnosis.url)}\n"))
    table = Table.grid(padding=(0, 1, 0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in diagnosis.findings:
        text = Text(printable(finding.text))
        if finding.cure:
            text.append("\n" + printable(finding.cure), style="dim")
        table.add_row(Text(finding.level, style=_STYLES[finding.level]), finding.check, text)
    console.print(table)
    console.print(Text(f"\n{_verdict(diagnosis)}"))


def _verdict(diagnosis: Diagnosis) -> str:
    failures, warnings = diagnosis.count(Level.FAILURE), diagnosis.count(Level.WARNING)
    if failures:
        return f"A service would not run: {count(failures, 'failure')}, {count(warnings, 'warning')}."
    if warnings:
        return f"A service would run, with {count(warnings, 'warning')}."
    return "All is well."
