"""Long work takes long, with room for other charges: twice as much a step, or half as much."""

import json
from collections.abc import Callable
from functools import partial

from trio.testing import MockClock

from scheduler.config import Settings
from scheduler.definition.template import MAX_WORK
from scheduler.definition.template.work import build_work
from scheduler.definition.validation import read_build
from scheduler.plan import Plan
from scheduler.supervision.reader import BuildReader
from simulation.judging import DEFAULT, chosen
from simulation.labour import BOUNDLESS, JSON, LONGEST, UNIT, Labour, laborious

_KEEPS = LONGEST / UNIT
"""Units that keep the loop for too long."""
_BUILDS = [heavy for seed in chosen(DEFAULT) if (heavy := laborious(seed)) is not None]


def _units(job: Callable[[], object]) -> int:
    """Return the charge for it, if nothing is known from before."""
    labour = Labour(MockClock())
    with labour.charged():
        job()
    return round(labour._step / UNIT)


def _rendering(heavy: JSON, change: JSON) -> int:
    """Measure the rendering of one of the changes; some expressions at a time, or it would be cut off."""
    first = next(one for one in heavy["changes"] if one["_component_id"] == "first")
    expressions = change.get("work", "").strip("{ }").split(" ~ ")
    total = 0
    for start in range(0, len(expressions), 5):
        some = {**change, "work": f"{{{{ {' ~ '.join(expressions[start : start + 5])} }}}}"}
        alone = {**heavy, "components": [first], "changes": [some], "edges": []}
        plan = Plan(read_build(json.dumps(alone).encode(), resumed=True))
        assert not isinstance(plan.requests.rendering(0)(lambda: False), str)
        total += build_work(1) - plan.requests.work_left
    return total


def test_there_are_some() -> None:
    """With something in them that takes more than it may, and without."""
    boundless = [any(one["_component_id"] == BOUNDLESS for one in heavy["changes"]) for heavy in _BUILDS]
    assert {*boundless} == {True, False}


def test_to_read_one_takes_long() -> None:
    """Though it is so small that this is begun where others wait."""
    for heavy in _BUILDS:
        data = json.dumps(heavy).encode()
        assert BuildReader(Settings(), None).is_small(data)
        assert 2 * _KEEPS < _units(partial(read_build, data)) < MAX_WORK / 2


def test_to_render_them_takes_long_and_more_than_it_may_for_the_boundless_one_alone() -> None:
    """The others may be rendered even together, beside all that the boundless one may take."""
    taken: dict[str, int] = {}
    for heavy in _BUILDS:
        total = 0
        for change in heavy["changes"]:
            if change["_component_id"] == "first":
                continue
            work = change["work"]
            if work not in taken:
                taken[work] = _rendering(heavy, change)
            if change["_component_id"] == BOUNDLESS:
                assert taken[work] > 2 * MAX_WORK
                total += MAX_WORK // 2
            else:
                assert _KEEPS < taken[work] < MAX_WORK / 2
                total += taken[work]
        assert total < build_work(len(heavy["changes"])) / 2
