"""Tables and pages in a terminal of 80 columns: whatever stands in them, they fit."""

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console
from support.feeds import JSON, T, Told, event

from scheduler.client.progress import Progress
from scheduler.client.timeline import read_timeline
from scheduler.display.lines import columns
from scheduler.display.orders import show_history
from scheduler.display.tables import show_builds, show_components, show_reasons, show_status
from scheduler.display.timeline import show_timeline
from scheduler.text import printable

LONG = "x" * 500
WIDE = "网络" * 200
HOSTILE = "a\x1b[2J\r\nb"
NAMES = ("vpc::main", LONG, WIDE, HOSTILE)


def shown(show: Callable[[Console], None], *, colours: bool = False) -> list[str]:
    """What is printed in a terminal, line by line."""
    out = io.StringIO()
    terminal = Console(
        file=out,
        width=80,
        height=24,
        force_terminal=True,
        color_system="standard" if colours else None,
        highlight=False,
    )
    show(terminal)
    return out.getvalue().splitlines()


def answer() -> JSON:
    """A build of many components with names and errors of all kinds."""
    told = Told(*(f"{number}{name}" for number in range(15) for name in NAMES), build=LONG)
    events: list[JSON] = []
    for number, name in enumerate(told.states):
        state = ("running", "errored", "retrying", "completed")[number // 4 % 4]
        events.append(event(name, "running", 0))
        events.append(event(name, state, 5, error=NAMES[number % 4] if state != "completed" else None))
    told.message(*events)
    limits = [{"limit": LONG, "waiting": 10**9}]
    return told.answer(60.0, name=WIDE, eta=1e6, limits=limits, error=HOSTILE + LONG)


def status(console: Console) -> None:
    progress = Progress(LONG, "", 0.0)
    progress.snapshot(answer(), 0.0)
    show_status(console, answer(), progress, 0.0)


def builds(console: Console) -> None:
    fields: Any = {"status": "errored", "action": WIDE, "accepted": T, "name": LONG, "error": LONG}
    show_builds(console, [{"id": name, **fields} for name in NAMES], T + 1e8)


def reasons(console: Console) -> None:
    said = [{"component": name, "state": "waiting", "seconds": 1e6, "text": name} for name in NAMES]
    show_reasons(console, {"id": HOSTILE, "status": WIDE, "reasons": said, "more": 5})


def timeline(console: Console) -> None:
    components = [
        {"id": f"{number}{name}", "state": "completed", "due": T, "sent": T + number, "ended": T + 1e6}
        for number in range(10)
        for name in NAMES
    ]
    found = read_timeline({"status": "done", "now": T, "components": components})
    show_timeline(console, found, LONG, WIDE)


@pytest.mark.parametrize(
    "show", [status, builds, reasons, timeline, lambda console: show_components(console, answer(), T + 60)]
)
def test_everything_fits_80_columns(show: Callable[[Console], None]) -> None:
    """Long, wide and hostile names are cut or folded, and drive nothing."""
    lines = shown(show)
    assert lines
    assert max(map(cell_len, lines)) <= 80
    assert not any(character in line for line in lines for character in "\r\x9b")
    assert not any(re.search(r"\x1b(?!\[[0-9;]*m)", line) for line in lines)


@pytest.mark.parametrize("state", ["completed", "retrying"])
def test_long_ids_that_differ_at_their_end_differ(state: str) -> None:
    """Cut in the middle, each can be told from the other: in a timeline, and on the page of a build."""
    names = [f"instance::{'a-name-that-all-share-' * 4}{number:03}" for number in range(3)]

    def show(console: Console) -> None:
        if state == "completed":
            components = [{"id": name, "state": state, "due": T, "sent": T, "ended": T + 9} for name in names]
            show_timeline(console, read_timeline({"status": "done", "components": components}), "b", "done")
            return
        told = Told(*names)
        told.message(*(event(name, state, 5, error="throttled " * 9, retry_in=60.0) for name in names))
        progress = Progress("b", "", 0.0)
        progress.snapshot(told.answer(60.0), 0.0)
        show_status(console, told.answer(60.0), progress, 0.0)

    text = "\n".join(shown(show))
    assert [name for name in names if name[-9:] in text] == names


@pytest.mark.parametrize(
    ("builds", "heads"),
    [
        ([{"id": "b1"}, {"id": "b2", "name": "b2"}], "ID ACTION STATUS DONE AGE"),
        ([{"id": "b1"}, {"id": "b2", "name": "staging"}], "ID ACTION STATUS DONE AGE NAME"),
        ([{"id": "b1", "error": "boom"}], "ID ACTION STATUS DONE AGE ERROR"),
        (
            [{"id": "b1", "error": "boom"}, {"id": "b2", "name": "staging"}],
            "ID ACTION STATUS DONE AGE NAME ERROR",
        ),
    ],
)
def test_a_list_has_names_and_errors_where_there_are_any(builds: list[JSON], heads: str) -> None:
    """A name that is the id is not said twice."""
    head, *lines = shown(lambda console: show_builds(console, builds, T))
    assert re.sub(r"\x1b\[[0-9;]*m", "", head).split() == heads.split()
    for build, line in zip(builds, lines, strict=True):
        assert all(str(value) in line for value in build.values())
        assert line.count("b2") <= 1


def test_colours_are_for_terminals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal that has colours gets them."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert any("\x1b[1;31m" in line for line in shown(builds, colours=True))


def test_columns_give_way_from_the_last_to_the_first() -> None:
    """Where there is not enough room the last flexible column is cut first, the others only then."""
    rows = [["a" * 20, "b", "c" * 30]]
    assert [len(cell) for cell in columns(rows, width=None, flexible=(0, 2))[0]] == [20, 1, 30]
    assert [len(cell) for cell in columns(rows, width=40, flexible=(0, 2))[0]] == [20, 1, 15]
    assert [len(cell) for cell in columns(rows, width=24, flexible=(0, 2))[0]] == [11, 1, 8]
    assert columns([], width=80, flexible=()) == []


def types_shown(*subjects: str) -> list[str]:
    """The lines of a status about the types of components with these subjects."""
    told = Told(*(f"c{number}" for number in range(len(subjects))))
    told.message(event("c0", "running", 0), event("c1", "completed", 5))
    given = told.answer(60.0)
    for one, subject in zip(given["components"], subjects, strict=True):
        one["subject"] = subject
    progress = Progress("b", "", 0.0)
    progress.snapshot(given, 0.0)
    lines = shown(lambda console: show_status(console, given, progress, 0.0), colours=False)
    return [line.rstrip() for line in lines[lines.index("") + 1 :]] if "" in lines else lines


def test_a_status_counts_by_type() -> None:
    """The type with the most first, and only states that there are."""
    lines = types_shown("vpc.create.aws", "vm.create.aws", "vm.delete.aws", "vm.create.gcp")
    assert lines[:3] == [
        "  TYPE  ALL  WAITING  RUNNING  COMPLETED",
        "  vm      3        2        -          1",
        "  vpc     1        -        1          -",
    ]


def test_of_many_types_the_largest_are_shown() -> None:
    """With the number of the others, and of their components; a single type needs no table."""
    subjects = [f"t{number}.create.aws" for number in range(12) for _ in range(12 - number)]
    lines = types_shown(*subjects)
    assert [line.split()[0] for line in lines[1:9]] == [f"t{number}" for number in range(8)]
    assert lines[9] == "  and 4 more types, 10 components"
    assert not any("TYPE" in line for line in types_shown("vm.create.aws", "vm.create.aws"))


def history(*orders: JSON, dropped: int = 0) -> list[str]:
    """Return what is shown of these orders."""
    answer = {"id": "b-1", "status": "running", "orders": list(orders), "dropped": dropped}
    return shown(lambda console: show_history(console, answer, 1_800_000_000.0))


def test_a_history_says_who_and_why() -> None:
    """A name that is only claimed is marked, and what no order has is no column."""
    pause = {"verb": "pause", "time": 1_799_999_000.0, "by": "TEAM/anna", "vouched": True, "reason": "quota"}
    lines = history(pause, {"verb": "resume", "time": 1_799_999_900.0, "by": "bob", "vouched": False})
    assert lines[0].split() == ["TIME", "ORDER", "BY", "REASON"]
    assert lines[1].endswith("paused   TEAM/anna      quota")
    assert lines[2].endswith("resumed  bob (claimed)")
    assert history() == ["no operator has changed b-1"]
    assert history({"verb": "limit"}, dropped=7)[0] == "7 orders before these: `scheduler export b-1`"


@pytest.mark.parametrize("text", [LONG, WIDE, HOSTILE, "because " * 40])
def test_a_long_reason_has_lines_of_its_own(text: str) -> None:
    """It is shown whole; the rest fits."""
    said = {"verb": "skip", "time": 1.0, "component": text, "by": text, "vouched": False, "reason": text}
    lines = history(said)
    assert all(cell_len(line) <= 80 for line in lines)
    assert not any(set(line) & {"\x1b", "\r"} for line in lines)
    assert printable(text).replace(" ", "") in "".join(line.strip() for line in lines).replace(" ", "")


def test_a_status_names_the_order_it_stands_for() -> None:
    """With its age, by the scheduler's clock."""
    order = {"verb": "pause", "time": 820.0, "by": "bob", "vouched": False, "reason": "quota"}
    value = {"id": "b-1", "status": "paused", "now": 1_000.0, "order": order, "components": []}
    progress = Progress("b-1", "", 0.0)
    progress.snapshot(value, 50.0)
    lines = shown(lambda console: show_status(console, value, progress, 50.0))
    assert "paused 3m00s ago by bob (claimed): quota" in lines


def test_a_build_that_waits_for_people_says_so_in_a_list() -> None:
    """Beside its status, in a line that still fits."""
    build = {"id": LONG, "action": "build.create", "status": "running", "gated": 3, "total": 4, "counts": {}}
    lines = shown(lambda console: show_builds(console, [build], T))
    assert "running, 3 gated" in lines[1]
    assert max(map(cell_len, lines)) <= 80


def test_a_status_counts_what_waits_for_people() -> None:
    """Behind the number that waits, of which it is a part."""
    progress = Progress("b1", "", 0.0)
    seen = {"total": 3, "counts": {"waiting": 2, "completed": 1}, "gated": 1, "status": "running"}
    progress.snapshot(seen, 0.0)
    lines = shown(lambda console: show_status(console, seen, progress, 0.0))
    assert any("2 waiting (1 for approval)" in line for line in lines)
