"""How long the page holds the loop, with a build of ten thousand components and two hundred viewers."""

import gc
from collections.abc import Iterator

import pytest
import trio
from support.fakes import Reply
from support.pages import of, open_stream, visited
from support.stretches import measured_stretches

from scheduler.local.generate import Shape, generate

COMPONENTS = 10_000
MOST = 0.010
"""Seconds of CPU time."""


@pytest.fixture
def _no_collection() -> Iterator[None]:
    """The collector at rest, as a service has it: here it would look through what all tests before left."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.timeout(240)
@pytest.mark.usefixtures("_no_collection")
async def test_nothing_of_the_page_holds_the_loop() -> None:
    """Whatever is asked, and whoever looks: other builds have their turn after 10 ms at most."""
    value = generate(COMPONENTS, shape=Shape.WIDE, build="b1")
    names = [one["_component_id"] for one in value["changes"]]
    async with visited(value, max_in_flight_per_build=1_000) as page:
        page.site.cloud.answer(names[0])
        await trio.sleep(1)
        readers = [await open_stream(page.address, of("b1", "stream")) for _ in range(200)]
        with measured_stretches(looks_after=0.008) as stretches:
            async with trio.open_nursery() as nursery:

                async def read(number: int) -> None:
                    await readers[number].until("snapshot")
                    for _ in range(3):
                        await readers[number].until("update")

                for number in range(0, 200, 40):
                    nursery.start_soon(read, number)
                for name in names[1:400]:
                    page.site.cloud.answer(name, Reply())
                    await trio.sleep(0.005)
                for path in ("", "layout", "states", "components", "timeline", "events", "plan"):
                    answer = await page.client.get(of("b1", *filter(None, [path])))
                    assert answer.status_code == 200
                await page.read(of("b1", "components", names[0]))
                await page.read("/api/builds")
        for reader in readers:
            await reader.stream.aclose()
    ours = [one for one in stretches.tasks if "support" not in one.task and one.seconds > MOST]
    assert not ours, ours
    assert [one for one in stretches.rounds if one.seconds > 2 * MOST] == []
