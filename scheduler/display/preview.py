"""Displays a prediction of what a build will do."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeVar

from rich.cells import cell_len
from rich.console import Console

from scheduler.definition.model import Action
from scheduler.display.lines import Line, fit
from scheduler.display.tables import put, width_of
from scheduler.forecast import Step
from scheduler.forecast.preview import Preview, Source, kinds_of
from scheduler.text import count, doing, printable, seconds, shortened

_T = TypeVar("_T")

_MOST_LINES: Final = 12
"""Largest number of lines of each part; of a longer one the beginning and the end are shown."""
_MOST_IDS: Final = 4
"""Largest number of a wave's components that are shown by name."""
_MOST_TYPES: Final = 6
_ORDER: Final = ("create", "update", "delete", "get", "find", "none", "approve")
_NOTES: Final = {Action.NONE: "  (nothing is sent)", Action.APPROVE: "  (waits for a person)"}
_STYLES: Final = {"create": "green", "update": "yellow", "delete": "red", "get": "cyan", "find": "cyan"}


def show_preview(console: Console, preview: Preview) -> None:
    """Print the prediction; in a terminal, cut to its width."""
    width = width_of(console)
    for line in preview_lines(preview):
        put(console, line if width is None else _cut(line, width))


def preview_lines(preview: Preview) -> Iterator[Line]:
    """Return the prediction line by line."""
    build = preview.build
    name = build.fields.get("name")
    title = f"  {printable(build.id)}" + (f" ({printable(name)})" if isinstance(name, str) and name else "")
    yield [(printable(build.action), "bold"), (title, "")]
    yield []
    yield from _kinds(preview)
    for part in (_waves, _critical_path, _time, _limits, _questions, _unreachable):
        lines = list(part(preview))
        if lines:
            yield []
            yield from lines


def _kinds(preview: Preview) -> Iterator[Line]:
    kinds = preview.kinds
    for action in sorted(kinds, key=_ORDER.index):
        counts = kinds[action]
        types = _types(dict(counts.most_common()))
        note = _NOTES.get(Action(action), "")
        yield [(f"  {action:<7}", _STYLES.get(action, "")), (f"{counts.total():>7,}  {types}{note}", "")]
    if preview.completed:
        yield [(f"  {count(preview.completed, 'change')} completed already", "dim")]
    if preview.untouched:
        verb = "exists and stays as it is" if preview.untouched == 1 else "exist and stay as they are"
        yield [(f"  {count(preview.untouched, 'component')} {verb}", "dim")]


def _types(counts: Mapping[str, int]) -> str:
    shown = [f"{number:,} {printable(word, 40)}" for word, number in list(counts.items())[:_MOST_TYPES]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f", {count(more, 'more type')}" if more else "")


def _waves(preview: Preview) -> Iterator[Line]:
    if not preview.waves:
        return
    yield [("waves", "bold"), ("  a component starts once its dependencies have completed", "dim")]
    numbered = list(enumerate(preview.waves, 1))
    for one in _ends(numbered):
        if isinstance(one, int):
            yield [(f"     ... {count(one, 'more wave')} ...", "dim")]
            continue
        number, wave = one
        if len(wave) <= _MOST_IDS:
            text = ", ".join(shortened(preview.build.changes[vertex].id, 60) for vertex in wave)
        else:
            text = _types(kinds_of(wave, preview.build))
        yield [(f"  {number:>4} ", "dim"), (f"{len(wave):>7,}  ", ""), (text, "")]


def _critical_path(preview: Preview) -> Iterator[Line]:
    path = preview.forecast.path
    if not path:
        return
    yield [("critical path", "bold"), (f"  {count(len(path), 'component')}, one after another", "dim")]
    for one in _ends(path):
        if isinstance(one, int):
            yield [(f"     ... {one:,} more ...", "dim")]
        else:
            yield _step(preview, one)


def _step(preview: Preview, step: Step) -> Line:
    line: Line = [
        (f"{seconds(step.seconds):>9}  ", ""),
        (shortened(preview.build.changes[step.vertex].id, 60), ""),
    ]
    source = preview.estimates[step.vertex].source
    if source is not Source.NONE:
        line.append((f"  {_SOURCES[source]}", "dim"))
    if step.limit is not None:
        line.append((f", after waiting {seconds(step.waited)} for {step.limit}", "yellow"))
    return line


_SOURCES: Final = {Source.GIVEN: "given", Source.RECORDED: "recorded", Source.DEFAULT: "a guess"}


def _time(preview: Preview) -> Iterator[Line]:
    if not preview.forecast.path:
        return
    total, least = preview.forecast.seconds, preview.forecast.lower_bound
    line: Line = [("predicted", "bold"), (f"  {seconds(total)}", "bold")]
    if total > least * 1.001:
        line.append((f"  no order takes less than {seconds(least)}", "dim"))
    if preview.forecast.chain < total * 0.999:
        line.append((f"  without limits {seconds(preview.forecast.chain)}", "dim"))
    yield line
    durations = preview.durations
    guesses = [subject for subject, one in durations.items() if one.source is Source.DEFAULT]
    if guesses:
        one = durations[guesses[0]].seconds
        every = len(guesses) == len(durations)
        which = "every subject is" if every else doing(len(guesses), "subject", "be")
        yield [(f"  {which} guessed at {seconds(one)}: say better with", "dim")]
        yield [(f"  --durations '{printable(guesses[0], 50)}=30'", "dim")]


def _limits(preview: Preview) -> Iterator[Line]:
    seen = preview.forecast
    reached = {limit: number for limit, number in seen.queued.items() if number}
    if not reached:
        return
    yield [("limits", "bold"), ("  that components wait for", "dim")]
    for limit, number in reached.items():
        lost = seen.lost.get(limit, 0.0)
        cost = f"{seconds(lost)} on the critical path" if lost else "without making the build longer"
        text = f"  {count(number, 'component')}, {cost}"
        yield [(f"  {limit}", "yellow"), (text, "")]
        yield [(f"      its requests take at least {seconds(seen.bounds[limit])}", "dim")]


def _questions(preview: Preview) -> Iterator[Line]:
    found = preview.questions
    if not found:
        return
    yield [("unresolved", "bold"), (f"  {count(len(found), 'reference')} checked only when due", "dim")]
    for one in _ends(found):
        if isinstance(one, int):
            yield [(f"     ... {one:,} more ...", "dim")]
        else:
            yield [(f"  {shortened(one.component, 60)}.{printable(one.place, 60)}", "yellow")]
            yield [(f"      {printable(one.why, 200)}", "")]


def _unreachable(preview: Preview) -> Iterator[Line]:
    found = preview.unreachable
    if not found:
        return
    yield [("unreachable", "bold red"), (f"  {count(len(found), 'component')} will not complete", "dim")]
    for one in _ends(found):
        if isinstance(one, int):
            yield [(f"     ... {one:,} more ...", "dim")]
        else:
            yield [(f"  {shortened(one.component, 60)}", "red"), (f"  {printable(one.why, 200)}", "")]


def _ends(items: Sequence[_T]) -> Iterator[_T | int]:
    """Yield all items; of many, the first and the last, with the number left out between them."""
    if len(items) <= _MOST_LINES:
        yield from items
        return
    half = _MOST_LINES // 2
    yield from items[:half]
    yield len(items) - 2 * half
    yield from items[-half:]


def _cut(line: Line, width: int) -> Line:
    cut: Line = []
    for text, style in line:
        piece = fit(text, width)
        cut.append((piece, style))
        width -= cell_len(piece)
        if width <= 0:
            break
    return cut
