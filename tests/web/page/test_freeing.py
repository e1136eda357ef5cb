"""What a view leaves behind: nothing that only the garbage collector would find."""

import gc
from collections import Counter

import pytest
import trio
from support.durable import until
from support.fakes import Reply
from support.pages import of, visited

from scheduler.web.live import hub
from scheduler.web.live.following import Following
from scheduler.web.live.hub import BuildSource, Hub
from scheduler.web.live.mailbox import Mailbox
from scheduler.web.live.overview import OverviewSource
from scheduler.web.live.table import StateTable

KINDS = (BuildSource, Following, Hub, Mailbox, OverviewSource, StateTable)


def left() -> Counter[str]:
    """What there is of a view."""
    return Counter(type(one).__name__ for one in gc.get_objects() if isinstance(one, KINDS))


async def test_a_view_is_freed_as_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """However it ends: its viewer leaves, the build ends, or the service stops."""
    # Otherwise a view without viewers is kept for some seconds.
    monkeypatch.setattr(hub, "_LINGERS", 0.2)
    async with visited() as page:
        gc.collect()
        gc.disable()
        try:
            for path in (of("b1", "stream"), "/api/stream"):
                async with page.stream(path) as stream:
                    await stream.until("snapshot")
                    page.site.cloud.answer("a", Reply())
                    await stream.until("update")
            await until(lambda: not page.hubs.running)
            async with page.stream(of("b1", "stream")) as stream:
                await stream.until("snapshot")
                page.site.cloud.answer("b", Reply())
                await stream.until("end")
            await until(lambda: not page.hubs.running and not page.hubs.viewers)
            await trio.sleep(0.1)
            assert left() == {}
        finally:
            gc.enable()
