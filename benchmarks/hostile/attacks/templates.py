"""Builds that are small, and whose references are a lot of work."""

from typing import Any

from benchmarks.hostile.arena import Arena, Course, attack, build, completed, component

_WHOLE = '$(components.#[_component_id="thing::shared"].{})'


def existing(name: str, **fields: Any) -> dict[str, Any]:
    """A component that is there already: a definition that others refer to."""
    return component(name, _state="completed", **fields)


async def _repeated(arena: Arena, data: bytes, components: int) -> None:
    while arena.again():
        await arena.run(data, components=components)


@attack("parsed-again")
async def parsed_again(arena: Arena) -> Course:
    """Definitions' strings too long for the cache of expressions, read again for every reference."""
    await arena.connect("thing", completed)
    text = ("{{ " + " ~ ".join(["build.id"] * 90)).ljust(1_100) + " }}"
    changes = [component(number, x=_WHOLE.format("texts.#")) for number in range(40)]
    changes += [component(f"y{number}", x=_WHOLE.format("texts")) for number in range(40)]
    data = build(changes, components=[existing("shared", texts=[text + str(n) for n in range(15)])])
    yield
    await _repeated(arena, data, len(changes))


@attack("paths-walked")
async def paths_walked(arena: Arena) -> Course:
    """Queries whose own path is 60 steps long, over a list whose elements are that deep."""
    await arena.connect("thing", completed)
    deep: Any = "no"
    for _ in range(56):
        deep = {"a": deep}
    path = ".".join("a" * 56)
    texts = [_WHOLE.format(f'list.#[{path}!="{number}"]#.z') for number in range(250)]
    changes = [component(number, texts=texts) for number in range(3)]
    data = build(changes, components=[existing("shared", list=[deep] * 250)])
    yield
    await _repeated(arena, data, len(changes))


@attack("queries-over-4000")
async def queries(arena: Arena) -> Course:
    """Each of 400 components looks for one of 4,000 by a field that it has."""
    await arena.connect("thing", completed)
    there = [existing(f"e{number}", tag=f"t{number}") for number in range(4_000)]
    changes = [component(n, x=f'$(components.#[tag="t{3_999 - n}"].tag)') for n in range(400)]
    data = build(changes, components=there)
    yield
    await _repeated(arena, data, len(changes))


@attack("queries-of-all-kinds")
async def queries_of_all_kinds(arena: Arena) -> Course:
    """As above, with comparisons that no index answers, and without an answer."""
    await arena.connect("thing", completed)
    there = [existing(f"e{number}", tag=f"t{number}", size=number) for number in range(4_000)]
    forms = ('[tag%"*9"]#.tag', "[size>3990]#.size", '[tag!="t1"]#.size', '[tag>="t5"]#.size')
    changes = [component(n, x=f"$(components.#{forms[n % 4]})") for n in range(400)]
    data = build(changes, components=there)
    yield
    await _repeated(arena, data, len(changes))


@attack("definitions-of-definitions")
async def definitions(arena: Arena) -> Course:
    """Each of ten definitions holds the one before three times, and everybody refers to the last."""
    await arena.connect("thing", completed)
    there = [existing("d0", list=["x"])]
    there += [
        existing(f"d{number}", list=[f'{{{{ components["thing::d{number - 1}"].list }}}}'] * 3)
        for number in range(1, 11)
    ]
    changes = [
        component(number, x='{{ components["thing::d10"].list | length }}', y=_WHOLE.format("z.#"))
        for number in range(100)
    ]
    data = build(changes, components=[*there, existing("shared", z='{{ components["thing::d9"].list }}')])
    yield
    await _repeated(arena, data, len(changes))


@attack("chains-of-definitions")
async def chains(arena: Arena) -> Course:
    """Definitions of 40 texts, each made of all texts of the definition before."""
    await arena.connect("thing", completed)
    there = [existing("d0", **{f"k{n}": "x" for n in range(40)})]
    for number in range(1, 30):
        texts = {f"k{n}": f'{{{{ components["thing::d{number - 1}"].k{n} }}}}.' for n in range(40)}
        there += [existing(f"d{number}", **texts)]
    changes = [component(number, x='{{ components["thing::d29"] | tojson }}') for number in range(150)]
    data = build(changes, components=there)
    yield
    await _repeated(arena, data, len(changes))


@attack("budgets-by-the-thousand")
async def budgets(arena: Arena) -> Course:
    """Each of 1,000 components takes nearly as much work as one may."""
    await arena.connect("thing", completed)
    values = [f"{number * 7919 % 60_000:x}" for number in range(30_000)]
    changes = [
        component(number, x='{{ components["thing::shared"].values | sort | first }}')
        for number in range(1_000)
    ]
    data = build(changes, components=[existing("shared", values=values)])
    yield
    await _repeated(arena, data, len(changes))


@attack("filters")
async def filters(arena: Arena) -> Course:
    """What filters do to large values, again and again within an expression."""
    await arena.connect("thing", completed)
    text = "ab cd-" * 10_000
    chain = " | title | lower | upper | capitalize | trim"
    changes = [
        component(
            number,
            x='{{ components["thing::shared"].text' + chain * 6 + " | length }}",
            y='{{ components["thing::shared"].values | unique | sort | join(", ") | length }}',
            z='{{ components["thing::shared"].number | string | int | abs | round(30) }}',
        )
        for number in range(300)
    ]
    values = [f"{number % 977}" for number in range(10_000)]
    data = build(changes, components=[existing("shared", text=text, values=values, number=int("9" * 300))])
    yield
    await _repeated(arena, data, len(changes))


@attack("expressions-of-500-nodes")
async def many_nodes(arena: Arena) -> Course:
    """As many nodes as a build may have, in expressions that are all different programs."""
    await arena.connect("thing", completed)
    changes = [
        component(n, x="{{ " + " ~ ".join(f"{n + 1}{m:03}" for m in range(400)) + " }}") for n in range(110)
    ]
    data = build(changes)
    yield
    await _repeated(arena, data, len(changes))


@attack("patterns")
async def patterns(arena: Arena) -> Course:
    """Patterns that would take exponential time where they are tried one way after the other."""
    await arena.connect("thing", completed)
    texts = [_WHOLE.format(f'list.#[text%"{"*a" * (800 + n)}"]#.z') for n in range(100)]
    names = [_WHOLE.format("*a" * (800 + n)) for n in range(100)]
    changes = [component(n, x=text, y=name) for n, (text, name) in enumerate(zip(texts, names, strict=True))]
    data = build(
        changes, components=[existing("shared", list=[{"text": "a" * 30_000}] * 8, **{"a" * 5_000: "z"})]
    )
    yield
    await _repeated(arena, data, len(changes))


@attack("160-mb-rendered")
async def rendered(arena: Arena) -> Course:
    """A quarter of a megabyte that becomes 160: texts of 64 KiB in 2,500 requests."""
    await arena.connect(
        "thing", lambda asked: {"_component_id": asked["_component_id"], "_state": "completed"}
    )
    changes = [component(n, x='{{ components["thing::shared"].text }}') for n in range(2_500)]
    data = build(changes, components=[existing("shared", text="x" * 64_000)])
    yield
    await arena.run(data, components=len(changes))


@attack("paths-that-fill-caches", signalled=False)
async def cached_paths(arena: Arena) -> Course:
    """Expressions of 16 KiB, all different, each wide in memory by one character."""
    text = f"\N{GRINNING FACE}{'x' * 16_000}"
    changes = [component(n, x=f'{{{{ build["{n}{text}"] | default("") }}}}') for n in range(225)]
    changes += [component(n, x=f'{{{{ component["{n}{text}"] }}}}') for n in range(225, 450)]
    data = build(changes)
    yield
    for number in range(12):
        # The second half of the pair that the character is written as.
        await arena.submit(data.replace(b"\\ude00", b"\\ude%d" % (number + 10)))


@attack("long-names")
async def long_names(arena: Arena) -> Course:
    """References and edges to nothing, among 9,000 ids that are long and nearly right."""
    ids = [f"{'x' * 150}{number:05}" for number in range(9_000)]
    changes = [component(name) for name in ids]
    changes += [
        component(f"r{n}", x=f'{{{{ components["thing::{"x" * 149}y{n:05}"].a }}}}') for n in range(99)
    ]
    edges = [{"source": f"thing::{'x' * 151}{n}", "destination": f"thing::{ids[0]}"} for n in range(2_000)]
    data = build(changes, edges=edges)
    yield
    while arena.again():
        await arena.run(data)


@attack("names-in-raw-and-secret")
async def names(arena: Arena) -> Course:
    """Components that name 20,000 fields of theirs each."""
    await arena.connect("thing", completed)
    named = [f"f.{number:x}" for number in range(20_000)]
    fields = {"a": "{{ build.id }}"}
    changes = [component(n, _raw=named, f=fields) for n in range(12)]
    changes += [component(f"s{n}", _secret=named, f=fields) for n in range(12)]
    data = build(changes)
    yield
    await _repeated(arena, data, len(changes))


@attack("hints")
async def hints(arena: Arena) -> Course:
    """Names that are nearly ours, and texts that are nearly references."""
    await arena.connect("thing", completed)
    fields: dict[str, Any] = {f"_retri{n}": "${components.x}" * 20 for n in range(60)}
    changes = [component(n, **fields) for n in range(250)]
    data = build(changes, options={f"on_eror{n}": 1 for n in range(2_000)})
    yield
    await _repeated(arena, data, len(changes))
