"""The scheduler, with builds that it gets stuck in: ``python stuck.py SHORTER ARGUMENT ...``.

A component whose id begins with one of `KINDS` keeps the loop when it is begun. ``SHORTER`` divides the
watchdog's times.
"""

import re
import sys
from collections.abc import Callable
from typing import Any

from scheduler.cli import main
from scheduler.errors import Hung
from scheduler.plan import Plan
from scheduler.runtime import watchdog


def in_python() -> None:
    """Go round for ever."""
    while True:
        pass


def in_regex() -> None:
    """Spend longer than the world has in C code that looks for signals."""
    re.fullmatch(r"(a|aa)+b", "a" * 200)


def in_c() -> None:
    """Spend it in C code that neither looks for signals nor lets go of the interpreter."""
    max(range(10**18))


def stubborn() -> None:
    """Go on whatever is raised."""
    while True:
        try:
            in_python()
        except Hung:
            continue


KINDS: dict[str, Callable[[], None]] = {
    "python": in_python,
    "regex": in_regex,
    "c": in_c,
    "stubborn": stubborn,
}
_begin = Plan.begin


def begin(plan: Plan, vertex: int, *rest: Any) -> Any:
    """As the plan does it, or not at all."""
    hang = KINDS.get(plan.graph.ids[vertex].partition("::")[0])
    if hang is not None:
        hang()
    return _begin(plan, vertex, *rest)


if __name__ == "__main__":
    shorter = float(sys.argv[1])
    for name in ("INTERRUPT_AFTER", "END_AFTER", "END_LOOP_AFTER", "END_CPU_AFTER"):
        setattr(watchdog, name, getattr(watchdog, name) / shorter)
    Plan.begin = begin  # type: ignore[method-assign, assignment]
    sys.exit(main(sys.argv[2:] or ["serve"]))
