"""The profile gives each sample to the row of the innermost function that has one."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

import scheduler
from benchmarks.processes import THIS, Store
from benchmarks.profiling import frames
from benchmarks.profiling.frames import ROWS, TITLES, assign
from benchmarks.profiling.shares import Spent, combine
from benchmarks.profiling.table import lines
from scheduler.local.generate import Shape

ROOT = Path("/srv/scheduler")
LIBRARY = "/srv/scheduler/.venv/lib/python3.11/site-packages"
RUN = f"thread (7): MainThread;main ({ROOT}/scheduler/cli.py:5);unrolled_run ({LIBRARY}/trio/_core/_run.py:9)"
WALK = f"{RUN};ComponentTasks.run ({ROOT}/scheduler/walk/component_tasks.py:65)"
NOT_OF_A_SERVICE = {
    "asyncapi",
    "client",
    "connectors",
    "contract",
    "deploy",
    "display",
    "local",
    "permissions",
}


def row(stack: str) -> str:
    """The row of one sample."""
    (title,) = (title for title, count in assign([f"{stack} 1"], ROOT).counts.items() if count)
    return title


@pytest.mark.parametrize(
    ("stack", "title"),
    [
        (WALK, frames.WALK),
        (RUN, frames.TRIO),
        (f"{WALK};Event.wait ({LIBRARY}/trio/_sync.py:80)", frames.WAITS),
        (f"{WALK};CancelScope.__enter__ ({LIBRARY}/trio/_core/_run.py:600)", frames.WAITS),
        (f"{RUN};Runner.reschedule ({LIBRARY}/trio/_core/_run.py:1700)", frames.TRIO),
        (f"{RUN};ByteStream.write ({ROOT}/scheduler/bus/stream.py:281)", frames.WRITE),
        (f"{RUN};_Protocol.data_received ({ROOT}/scheduler/bus/stream.py:93)", frames.READ),
        (f"{RUN};BaseEventLoop._run_once (/usr/lib/python3.11/asyncio/base_events.py:1)", frames.LOOP),
    ],
)
def test_the_innermost_function_with_a_row_decides(stack: str, title: str) -> None:
    assert row(stack) == title


def test_a_library_without_a_row_is_part_of_its_caller() -> None:
    assert row(f"{WALK};deepcopy (/usr/lib/python3.11/copy.py:128)") == frames.WALK
    assert row(f"{WALK};__init__ (<attrs generated methods a.B>:3)") == frames.WALK


def test_code_of_ours_that_serves_everybody_is_part_of_its_caller() -> None:
    reader = f"ReplyReader.read ({ROOT}/scheduler/dispatch/reply_reader.py:9)"
    assert row(f"{RUN};{reader};decode ({ROOT}/scheduler/definition/strictjson.py:1)") == frames.REPLIES


def test_all_that_reading_a_build_calls_is_intake() -> None:
    template = f"Template.of ({ROOT}/scheduler/definition/template/component.py:9)"
    assert row(f"{WALK};{template}") == frames.RENDERING
    reading = f"thread (8): reader;read_build ({ROOT}/scheduler/definition/validation.py:9)"
    assert row(f"{reading};{template}") == frames.INTAKE


def test_a_part_of_the_scheduler_without_a_row_is_named() -> None:
    found = assign(
        [f"{WALK};f ({ROOT}/scheduler/novelty/core.py:1);g (/usr/lib/python3.11/re.py:2) 12"], ROOT
    )
    assert (found.counts[frames.ELSE], found.total) == (12, 12)
    assert found.others == {"scheduler.novelty.core:f": 12}


def test_the_beginning_of_a_modules_name_is_no_module() -> None:
    assert row(f"{RUN};f ({ROOT}/scheduler/planets.py:1)") == frames.ELSE


def test_every_row_is_of_something_that_exists() -> None:
    """What is renamed would silently become part of another row."""
    for prefix in ROWS:
        module, _, function = prefix.partition(":")
        assert find_spec(module) is not None, prefix
        if module.startswith("scheduler") and function:
            found = import_module(module)
            for name in function.split("."):
                found = getattr(found, name)


def test_every_wing_of_a_service_has_a_row() -> None:
    wings = {path.parent.name for path in Path(scheduler.__file__).parent.glob("*/__init__.py")}
    assert {f"scheduler.{wing}" for wing in wings - NOT_OF_A_SERVICE} <= ROWS.keys()


def test_each_thread_divides_its_own_time_by_its_own_samples() -> None:
    """The loop's thread has most samples, since it was kept waiting while it had the interpreter."""
    library = f"{THIS.root}/.venv/lib/python3.11/site-packages"
    stacks = [
        f"thread (7): MainThread;f ({library}/trio/_core/_run.py:9) 60",
        f"thread (7): MainThread;f ({THIS.root}/scheduler/walk/walk.py:9) 30",
        f"thread (8): reader;read_build ({THIS.root}/scheduler/definition/validation.py:9) 1",
    ]
    spent = Spent(loop=90e-6, beside=40e-6, system=10e-6)
    found = combine(stacks, 7, spent, cost=1.2, of=(Store.MEMORY, Shape.LAYERED, 10_000))
    expected = {frames.TRIO: 60e-6, frames.WALK: 30e-6, frames.INTAKE: 40e-6}
    assert {title: seconds for title, seconds in found.rows.items() if seconds} == pytest.approx(expected)
    assert found.samples == 91


def test_the_table_has_every_row_the_kernel_and_the_largest_of_the_rest() -> None:
    stacks = [f"thread (7): MainThread;f{n} ({THIS.root}/scheduler/novelty.py:9) {n + 1}" for n in range(9)]
    spent = Spent(loop=90e-6, beside=0.0, system=10e-6)
    found = combine(stacks, 7, spent, cost=1.2, of=(Store.MEMORY, Shape.LAYERED, 10_000))
    shown = list(lines(found))
    assert max(len(line) for line in shown) <= 80
    assert [line.split("  ")[0] for line in shown[1:18]] == list(TITLES)
    assert [line.split()[0] for line in shown[18:23]] == [f"scheduler.novelty:f{n}" for n in (8, 7, 6, 5, 4)]
    assert shown[23].split() == ["in", "the", "kernel,", "whatever", "for", "10.0", "10.0%"]
