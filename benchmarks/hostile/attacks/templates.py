"""Builds that are small, and whose references are a lot of work."""

from benchmarks.hostile.arena import Arena, Course, attack, build, completed, component


@attack("parsed-again")
async def parsed_again(arena: Arena) -> Course:
    """A definition's string that is too long to be kept is referred to by everybody."""
    await arena.connect("thing", completed)
    text = "{{ " + " ~ ".join(["build.id"] * 100) + " }}"
    shared = component("shared", "thing", _action="none", text=text + " " * (1100 - len(text)))
    changes = [
        component(number, x="".join('{{ components["thing::shared"].text }}' for _ in range(20)))
        for number in range(25)
    ]
    data = build([shared, *changes])
    yield
    while arena.again():
        await arena.run(data, components=len(changes))
