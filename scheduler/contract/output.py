"""Prints the results of a contract test: what was seen beside each check, its cure below."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from scheduler.contract import Result, Verdict
from scheduler.text import count, printable

_STYLES = {
    Result.PASSED: "green",
    Result.WARNING: "yellow",
    Result.FAILED: "bold red",
    Result.SKIPPED: "dim",
}


def show(verdict: Verdict, console: Console) -> None:
    """Print the results."""
    table = Table.grid(padding=(0, 1, 0, 1))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in verdict.checks:
        text = Text(printable(check.seen))
        if check.cure:
            text.append("\n" + printable(check.cure), style="dim")
        table.add_row(Text(check.result, style=_STYLES[check.result]), check.name, text)
    console.print(table)
    console.print(Text(f"\n{_summary(verdict)}"))


def _summary(verdict: Verdict) -> str:
    failures, warnings = verdict.count(Result.FAILED), verdict.count(Result.WARNING)
    said = [count(number, noun) for number, noun in ((failures, "failure"), (warnings, "warning")) if number]
    if skipped := verdict.count(Result.SKIPPED):
        said.append(f"{skipped} skipped")
    counts = f": {', '.join(said)}" if said else ""
    kept = "does not keep" if failures else "keeps"
    return f"{verdict.subject} {kept} the contract{counts}."
