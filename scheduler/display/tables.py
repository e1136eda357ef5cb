"""Displays builds and components as tables, and one build as a page.

In a terminal lines are cut to its width; in a pipe nothing is cut.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from scheduler.client.counts import GATED, STATES
from scheduler.client.lenient import number, objects, text, whole
from scheduler.client.progress import Progress
from scheduler.client.selection import by_type
from scheduler.client.timeline import FINISHED
from scheduler.display.lines import (
    STATE_STYLES,
    Line,
    as_text,
    bar,
    columns,
    counts,
    fit,
    fit_id,
    plain,
    time_left,
)
from scheduler.text import agreeing, count, printable, seconds

_SHOWN = 10
"""Largest number of components of each kind on the page about a build."""
_TYPES = 8
"""Largest number of types on it."""
_LONG = 1 << 20
"""Width of a line in a pipe, in cells: as much as it takes."""

_BUILD_HEADS = ["ID", "ACTION", "STATUS", "DONE", "AGE", "OWNER", "NAME", "ERROR"]
"""Heading of the table of builds; the owner is shown if there are several, what follows if there is any."""

Answer = Mapping[str, Any]
"""Answer of a scheduler."""


def width_of(console: Console) -> int | None:
    """Return the width of a line, in cells; None if output is not a terminal."""
    return console.width if console.is_terminal else None


def put(console: Console, line: Line) -> None:
    """Print a line that already fits, with styles if they can be shown."""
    if console.is_terminal:
        console.print(as_text(line))
    else:
        console.out(plain(line).rstrip(), highlight=False)


def show_builds(console: Console, builds: Sequence[Answer], now: float) -> None:
    """Print a line for each build.

    Args:
        console: the output.
        builds: summaries of builds.
        now: time, our clock, seconds since 1970.
    """
    rows = [_BUILD_HEADS, *(_build_row(build, now) for build in builds)]
    told = [*range(5), *(column for column in (6, 7) if any(row[column] for row in rows[1:]))]
    if len({row[5] for row in rows[1:]} - {""}) > 1:
        told.insert(5, 5)
    rows = [[row[column] for column in told] for row in rows]
    flexible = (0, *range(5, len(told)))
    shaped = columns(rows, width=width_of(console), flexible=flexible, right=(3, 4), ids=(0,))
    for index, row in enumerate(shaped):
        style = STATE_STYLES.get(row[2].partition(",")[0].strip(), "")
        line: Line = [(f"{row[0]}  {row[1]}  ", ""), (row[2], style), ("  " + "  ".join(row[3:]), "")]
        put(console, [("  ".join(row).rstrip(), "dim")] if index == 0 else line)


def _build_row(build: Answer, now: float) -> list[str]:
    tally, total = build.get("counts"), build.get("total")
    done = whole(tally.get("completed")) if isinstance(tally, Mapping) else None
    # For builds from before this was kept, only the end is listed.
    began = number(build.get("accepted", build.get("ended")))
    figures = f"{done:,}/{total:,}" if done is not None and isinstance(total, int) else "-"
    age = "-" if began is None else seconds(now - began)
    fields = ("id", "action", "status", "owner", "name", "error")
    build_id, action, status, owner, name, error = (printable(text(build.get(field))) for field in fields)
    if gated := whole(build.get(GATED)):
        status += f", {gated:,} gated"
    return [build_id, action, status, figures, age, owner, "" if name == build_id else name, error]


def show_status(console: Console, answer: Answer, progress: Progress, now: float) -> None:
    """Print one build: its progress, also by type, what is running, what failed, the limits it has reached.

    Args:
        console: the output.
        answer: the whole build.
        progress: the same answer, applied.
        now: time, by the clock of ``progress``, seconds.
    """
    width = width_of(console) or _LONG
    name = text(answer.get("name"))
    head = fit(progress.build + (f" ({name})" if name and name != progress.build else ""), width // 2)
    status = fit(progress.status, 20)
    put(
        console,
        [(head, "bold"), (f"  {fit(progress.action, 20)}  ", ""), (status, STATE_STYLES.get(status, ""))],
    )
    put(console, [(_since(answer, progress, now), "dim")])
    if owner := owned(answer):
        put(console, [(fit(owner, width), "dim")])
    if progress.order is not None:
        put(console, [(fit(progress.order.sentence(now), width * 3), STATE_STYLES["paused"])])
    if progress.total:
        figures = f"  {progress.done:,} of {progress.total:,}"
        style = "red" if progress.errors else "green"
        put(
            console,
            [*bar(progress.done, progress.total, min(width, 80) - len(figures), style), (figures, "")],
        )
        put(console, counts(progress))
    if progress.limits:
        reached = ", ".join(
            f"{limit} ({waiting:,} {agreeing(waiting, 'wait')})" for limit, waiting in progress.limits
        )
        put(console, [("limits reached: ", "yellow"), (fit(reached, width - 16), "")])
    if progress.error is not None:
        put(console, [("error: ", "bold red"), (fit(progress.error, width * 3 - 7), "")])
    if report := text(answer.get("report")):
        put(console, [("report ", "bold yellow"), (fit(report, width * 3 - 7), "")])
    _types(console, by_type(objects(answer.get("components"))))
    _running(console, progress, now, width)
    _failing(console, progress, now, width)
    _next_step(console, progress)


def owned(answer: Answer) -> str:
    """Return which instance has a build, in which epoch; empty where that is not told."""
    owner, epoch = printable(text(answer.get("owner"))), whole(answer.get("epoch"))
    return f"owner {owner}, epoch {epoch}" if owner and epoch else ""


def _since(answer: Answer, progress: Progress, now: float) -> str:
    took = seconds(progress.elapsed(now))
    over = progress.status in FINISHED
    line = f"took {took}" if over else f"accepted {took} ago"
    if left := time_left(progress, now):
        line += f", {left}"
    return line + (f", run {progress.run}" if whole(answer.get("run"), 1) > 1 else "")


def _types(console: Console, types: Mapping[str, Mapping[str, int]]) -> None:
    """Print a line for each type, if there are several."""
    if len(types) < 2:
        return
    states = [state for state in (*STATES, GATED) if any(tally.get(state) for tally in types.values())]
    rows = [["TYPE", "ALL", *(state.upper() for state in states)]]
    for name, tally in list(types.items())[:_TYPES]:
        figures = [tally.get(state, 0) for state in states]
        row = [f"{one:,}" if one else "-" for one in figures]
        rows.append([printable(name), f"{sum(tally.values()):,}", *row])
    width = width_of(console)
    shaped = columns(
        rows,
        width=None if width is None else width - 2,
        flexible=(0,),
        right=tuple(range(1, len(rows[0]))),
    )
    put(console, [])
    for index, row in enumerate(shaped):
        put(console, [("  " + "  ".join(row).rstrip(), "" if index else "dim")])
    if rest := list(types.values())[_TYPES:]:
        components = sum(sum(tally.values()) for tally in rest)
        put(console, [(f"  and {count(len(rest), 'more type')}, {count(components, 'component')}", "dim")])


def _running(console: Console, progress: Progress, now: float, width: int) -> None:
    if not progress.running:
        return
    put(console, [])
    put(console, [("running, the longest first:", "dim")])
    for item in list(progress.running.values())[:_SHOWN]:
        took = seconds(now - item.since)
        put(
            console,
            [(f"  {took:>7}  ", "dim"), (fit_id(item.component, width - 11), STATE_STYLES["running"])],
        )
    _more(console, len(progress.running))


def _failing(console: Console, progress: Progress, now: float, width: int) -> None:
    if progress.retrying:
        put(console, [])
        put(console, [("to be retried:", "dim")])
        for again in list(progress.retrying.values())[:_SHOWN]:
            when = "soon" if again.at is None or again.at <= now else f"in {seconds(again.at - now)}"
            name = fit_id(again.component, max(20, width // 2))
            said = fit(f"{name}: attempt {again.attempt}: {again.error}", width - 13)
            put(console, [(f"  {when:<10} ", "dim"), (said, STATE_STYLES["retrying"])])
        _more(console, len(progress.retrying))
    if progress.errors:
        put(console, [])
        put(console, [("errored:", "dim")])
        for component, error in list(progress.errors.items())[:_SHOWN]:
            if console.is_terminal:
                # An error may be long, and it is what a person looks for here.
                name = fit_id(component, max(20, width // 2))
                console.print(Text.assemble(("  " + name, "bold red"), ": " + printable(error, 600)))
            else:
                put(console, [(f"  {printable(component)}: {printable(error)}", "")])
        _more(console, len(progress.errors))


def _more(console: Console, number_of: int) -> None:
    if number_of > _SHOWN:
        put(console, [(f"  +{number_of - _SHOWN:,} more: --components lists all", "dim")])


def _next_step(console: Console, progress: Progress) -> None:
    name = printable(progress.build)
    step = _step(name, progress.status)
    if progress.status == "running" and progress.count("waiting") and not progress.running:
        step = f"`scheduler why {name}` explains what it is waiting for"
    if step:
        put(console, [])
        put(console, [(step, "dim")])


def _step(name: str, status: str) -> str:
    """Return the usual next step for a build of this status; empty if there is none."""
    return {
        "paused": f"`scheduler resume {name}` resumes it",
        "halted": f"`scheduler cancel {name} --now` does not wait for what is in flight",
        "errored": f"`scheduler retry {name}` retries what failed",
        "cancelled": f"`scheduler retry {name}` continues it",
        "quarantined": f"`scheduler release {name}` and a restart load it again",
    }.get(status, "")


def show_components(console: Console, answer: Answer, now: float) -> None:
    """Print a line for each component: errored ones first, then running ones, then the others.

    Args:
        console: the output.
        answer: the whole build.
        now: time, the scheduler's clock, seconds since 1970; for durations that have not ended.
    """
    first = ("errored", "retrying", "running", GATED, "waiting", "skipped", "completed")
    order = {state: place for place, state in enumerate(first)}
    found = sorted(objects(answer.get("components")), key=lambda one: order.get(text(one.get("state")), 9))
    rows = [["COMPONENT", "STATE", "TRIES", "WAITED", "WORKED", "ERROR"]]
    rows += [_component_row(one, now) for one in found]
    if not any(row[5] for row in rows[1:]):
        rows = [row[:5] for row in rows]
    flexible = (0, 5) if len(rows[0]) > 5 else (0,)
    shaped = columns(rows, width=width_of(console), flexible=flexible, right=(2, 3, 4), ids=(0,))
    for index, row in enumerate(shaped):
        style = STATE_STYLES.get(row[1].strip(), "")
        line: Line = [(f"{row[0]}  ", ""), (row[1], style), ("  " + "  ".join(row[2:]), "")]
        put(console, [("  ".join(row).rstrip(), "dim")] if index == 0 else line)
    if not found:
        put(console, [("it has no components", "")])


def _component_row(one: Answer, now: float) -> list[str]:
    due, sent, ended = (number(one.get(name)) for name in ("due", "sent", "ended"))
    until = sent if sent is not None else ended if ended is not None else now
    earlier = _worked_before(one, due)
    waited = "-" if due is None else seconds(max(0.0, until - due - (earlier or 0.0)))
    last = None if sent is None else (now if ended is None else ended) - sent
    worked = "-" if last is None and earlier is None else seconds((last or 0.0) + (earlier or 0.0))
    # The number of the next attempt is known before it is sent.
    tried = sent is not None or text(one.get("state")) in {"running", "retrying"}
    attempt = whole(one.get("attempt")) if tried else 0
    names = [printable(text(one.get(name))) for name in ("id", "state")]
    return [*names, str(attempt) if attempt else "-", waited, worked, printable(text(one.get("error")))]


def _worked_before(one: Answer, due: float | None) -> float | None:
    """Return the seconds of attempts before the last one since it was due; None if there was none."""
    took = [
        failed - max(sent, due or sent)
        for each in objects(one.get("failed"))
        if (sent := number(each.get("sent"))) is not None
        and (failed := number(each.get("failed"))) is not None
        and failed > (due or 0.0)
    ]
    return sum(max(0.0, each) for each in took) if took else None


def show_reasons(console: Console, answer: Answer) -> None:
    """Print what a build or component is waiting for, as sentences."""
    build, status = printable(text(answer.get("id"))), printable(text(answer.get("status")))
    reasons = objects(answer.get("reasons"))
    console.print(Text.assemble((build, "bold"), " is ", (status, STATE_STYLES.get(status, ""))))
    if owner := owned(answer):
        console.print(Text(owner, style="dim"), soft_wrap=True)
    if not reasons:
        console.print(Text("Nothing is waiting."))
    for reason in reasons:
        console.print(_reason(reason), soft_wrap=not console.is_terminal)
        for cure in reason.get("cures") or ():
            console.print(Text(f"  {printable(text(cure))}", style="yellow"), soft_wrap=True)
    more = whole(answer.get("more"))
    if more:
        console.print(
            Text(
                f"{count(more, 'reason')} more; `scheduler why {build} COMPONENT` asks about one.",
                style="dim",
            )
        )
    if step := _step(build, status):
        console.print(Text(step, style="dim"))


def _reason(reason: Answer) -> Text:
    component, said = printable(text(reason.get("component"))), printable(text(reason.get("text")))
    lasts = number(reason.get("seconds"))
    line = Text()
    if component:
        state = printable(text(reason.get("state")))
        line.append(component, style="bold")
        # Of an attempt in flight the text says how long ago it was sent.
        told = lasts is None or reason.get("connector") in {"gone", "silent"}
        beside = [part for part in (state, "" if told else f"for {seconds(lasts or 0.0)}") if part]
        line.append(f" ({' '.join(beside)}): " if beside else ": ", style="dim")
    line.append(said)
    if not component and lasts is not None:
        line.append(f" (for {seconds(lasts)})", style="dim")
    cure = _cure(reason)
    if cure:
        line.append(f"; {cure}", style="yellow")
    return line


def _cure(reason: Answer) -> str:
    """Return what to do about it, if the scheduler's text is only the observation."""
    subject = printable(text(reason.get("subject")))
    of = f" of {subject}" if subject else ""
    if reason.get("connector") == "none":
        return f"start a connector{of}"
    if reason.get("connector") == "gone":
        return "start it again; what it has lost can be sent again"
    return ""
