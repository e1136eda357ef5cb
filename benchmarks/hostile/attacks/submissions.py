"""Builds that are large, or many."""

from benchmarks.hostile.arena import Arena, Course, attack, build, completed, component


@attack("builds-of-8-mb")
async def large_builds(arena: Arena) -> Course:
    """One after another, each as large as a message may be."""
    await arena.connect("thing", completed)
    changes = [component(number, text="x" * 200_000) for number in range(38)]
    data = build(changes)
    yield
    while arena.again():
        await arena.run(data, components=len(changes))


@attack("invalid-builds")
async def invalid_builds(arena: Arena) -> Course:
    """A thousand problems each, a hundred at a time."""
    data = build([component(1, _provider=number) for number in range(100)])
    yield
    while arena.again():
        for _ in range(100):
            await arena.submit(data)
