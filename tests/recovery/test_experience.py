"""What was learnt of durations is there after a restart, and its loss harms nobody."""

# ruff: noqa: ARG001 - pytest-trio takes a clock from a test's own arguments only

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock

from scheduler.definition.strictjson import decode
from scheduler.errors import BusError
from scheduler.forecast.durations import Durations
from scheduler.recovery.experience import OBJECT, Experience
from scheduler.stores.jetstream import JetStreamStore


class Objects:
    """An object store that may be away, or silent."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.writes = 0
        self.away = False
        self.silent = False

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.silent:
            await trio.sleep_forever()
        if self.away:
            raise BusError("no servers")

    async def get(self, name: str, *, most: int) -> bytes | None:
        await self._answer()
        data = self.kept.get(name)
        assert data is None or len(data) <= most
        return data

    async def put(self, name: str, data: bytes) -> None:
        await self._answer()
        self.kept[name] = data
        self.writes += 1


def experience(objects: Objects, durations: Durations) -> Experience:
    return Experience(cast("JetStreamStore", cast("Any", SimpleNamespace(objects=objects))), durations)


async def test_what_was_learnt_is_known_to_the_next_process() -> None:
    """Seconds by subject are kept, and recalled."""
    objects, first, second = Objects(), Durations(), Durations()
    first.record("vpc.create.aws", 12.5)
    await experience(objects, first).keep()
    assert decode(objects.kept[OBJECT]) == {"vpc.create.aws": 12.5}
    await experience(objects, second).restore()
    assert second.known("vpc.create.aws") == (12.5, "recorded")
    assert not second.changed


async def test_nothing_new_is_not_written_again() -> None:
    """It is written only where something was recorded since."""
    objects, durations = Objects(), Durations()
    kept = experience(objects, durations)
    await kept.keep()
    assert objects.writes == 0
    durations.record("a.b.c", 1.0)
    await kept.keep()
    await kept.keep()
    assert objects.writes == 1


@pytest.mark.parametrize("trouble", ["away", "silent"])
async def test_what_cannot_be_kept_is_kept_later(trouble: str, autojump_clock: MockClock) -> None:
    """A store that does not take it costs nothing, and is asked again."""
    objects, durations = Objects(), Durations()
    durations.record("a.b.c", 1.0)
    kept = experience(objects, durations)
    setattr(objects, trouble, True)
    await kept.keep()
    assert durations.changed
    setattr(objects, trouble, False)
    await kept.keep()
    assert objects.writes == 1


@pytest.mark.parametrize("trouble", ["away", "silent"])
async def test_what_cannot_be_recalled_is_not_known(trouble: str, autojump_clock: MockClock) -> None:
    """A process begins without it."""
    objects, durations = Objects(), Durations()
    objects.kept[OBJECT] = b'{"a.b.c":1.0}'
    setattr(objects, trouble, True)
    await experience(objects, durations).restore()
    assert len(durations) == 0


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b"\xff", b'{"a.b.c":"1"}', b'{"a.b.c":-1}', b'{"a.b.c":true}']
)
async def test_what_is_none_of_ours_is_passed_over(data: bytes) -> None:
    """Whatever stands there, it is taken where it can be, and stops nobody."""
    objects, durations = Objects(), Durations()
    objects.kept[OBJECT] = data
    await experience(objects, durations).restore()
    assert len(durations) == 0


async def test_it_is_recalled_first_and_kept_from_time_to_time(autojump_clock: MockClock) -> None:
    """Once a minute, where there is anything new."""
    objects, durations = Objects(), Durations()
    objects.kept[OBJECT] = b'{"a.b.c":4.0}'
    with trio.move_on_after(150):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(experience(objects, durations).run)
            await trio.sleep(1)
            assert durations.known("a.b.c") == (4.0, "recorded")
            durations.record("x.y.z", 2.0)
    assert objects.writes == 1
    assert decode(objects.kept[OBJECT]) == {"a.b.c": 4.0, "x.y.z": 2.0}
