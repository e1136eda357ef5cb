"""Templates meant to exhaust or to escape: each is refused or fails, at once and in bounded memory."""

import time
import tracemalloc
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import Any

import msgspec
import pytest

from scheduler.definition.limits import DEFAULT_LIMITS
from scheduler.definition.model import Action, Change, State
from scheduler.definition.template import (
    Found,
    Laborious,
    OnUnresolved,
    Scope,
    Shared,
    Templates,
    Work,
    compile_change,
    references,
    sandbox,
)
from scheduler.errors import TemplateError

SECONDS = 1.0
"""CPU on an idle machine (`slowness`). Generous: each takes milliseconds, and what these would take without
bounds is minutes and gigabytes."""
BYTES = 32 * 1024 * 1024


class World(Scope):
    build: Mapping[str, Any] = {
        "id": "b1",
        "x": "x" * 60_000,
        "grows": "\u0390" * 20_000,
        "list": list(range(1000)),
        "n": 10**299,
    }

    def __init__(
        self, defined: Mapping[str, Any] | None = None, data: Mapping[str, Any] | None = None
    ) -> None:
        found = {name: Found(value, definition=True) for name, value in (defined or {}).items()}
        self.found = {
            **found,
            **{name: Found(value, definition=False) for name, value in (data or {}).items()},
        }

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        return self.found.get(id)

    def all(self) -> Sequence[Found]:
        return list(self.found.values())

    def ids(self) -> Iterable[str]:
        return self.found


def render(text: Any, world: World | None = None) -> bytes:
    fields = {"_component_id": "a", "x": text}
    change = Change(
        id="a",
        type="t",
        action=Action.CREATE,
        provider="p",
        state=State.WAITING,
        raw=msgspec.json.encode(fields),
    )
    template = compile_change(
        change, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    return template.render(world or World()).body


@cache
def slowness() -> float:
    """How many times as long as an idle machine this one takes to allocate, traced; at least 1."""
    tracemalloc.start()
    before = time.process_time()
    kept = [[str(number)] for number in range(100_000)]
    spent = time.process_time() - before
    tracemalloc.stop()
    assert kept
    return max(1.0, spent / 0.1)


def attack(text: Any, world: World | None = None) -> str:
    """The message with which ``text`` fails; or an empty one, if it gets away with something harmless."""
    message = ""
    most = SECONDS * slowness()
    tracemalloc.start()
    before = time.process_time()
    try:
        assert len(render(text, world)) <= 1024 * 1024 + 100
    except TemplateError as error:
        message = str(error)
        assert message.startswith("a.x")
        assert len(message) < 1000
    spent = time.process_time() - before
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Tracing memory makes all of this several times slower than it is.
    assert spent < most * 5
    assert peak < BYTES
    return message


def doubling(times: int) -> str:
    text = "build.x"
    for _ in range(times):
        text = f"({text}~{text})"
    return text


REFUSED = {
    "multiply text": "{{ 'a' * 1000000000 }}",
    "multiply a list": "{{ [0] * 1000000000 }}",
    "power": "{{ 9 ** 9 ** 9 }}",
    "range": "{{ range(1000000000) | join }}",
    "nested range": "{% for a in range(99999) %}{{ range(99999) | list }}{% endfor %}",
    "format": "{{ '{:>1000000000}'.format(1) }}",
    "old format": "{{ '%1000000000d' % 1 }}",
    "format filter": "{{ '%1000000000d' | format(1) }}",
    "center": "{{ 'a' | center(1000000000) }}",
    "indent": "{{ 'a\\nb' | indent(1000000000) }}",
    "batch": "{{ [1] | batch(1000000000, 0) | list }}",
    "slice filter": "{{ [1] | slice(1000000000) | list }}",
    "wordwrap": "{{ 'a b' | wordwrap(1, wrapstring='x') }}",
    "replace": "{{ 'aaaa' | replace('a', 'aaaaaaaaaa') }}",
    "repeat by ljust": "{{ 'a'.ljust(1000000000) }}",
    "lipsum": "{{ lipsum(n=1000000) }}",
    "cycler": "{{ cycler(1) }}",
    "namespace": "{{ namespace(a=1) }}",
    "map": "{{ [1] | map('string') | list }}",
    "attr": "{{ 'a' | attr('__class__') }}",
    "class": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "class of a look-up": "{{ build.__class__ }}",
    "class of self": "{{ self.__init__.__globals__ }}",
    "call": "{{ build.x() }}",
    "call of a filter's result": "{{ (build.x | upper)() }}",
    "include": "{{ include('x') }}",
    "tojson of doubling": f"{{{{ [{doubling(5)}, {doubling(4)}] | tojson }}}}",
    "doubling": f"{{{{ {doubling(6)} }}}}",
    "doubling of text": "{{ " + "(" * 30 + "'aaaaaaaa'" + " ~ build.x)" * 30 + " }}",
    "adding": "{{ build.x + build.x }}",
    "adding on the way": "{{ (build.x + build.x) | length }}",
    "joining on the way": "{{ (build.x ~ build.x) | length }}",
    "growing on the way": "{{ (build.grows | upper) | length }}",
    "adding lists": "{{ " + " + ".join(["(build.list)"] * 39) + " + build.x }}",
    "join": "{{ build.list | join(build.x) }}",
    "join of lists": "{{ [build.list, build.list] | join(build.x) }}",
    "list of texts": "{{ [" + ", ".join(["build.x"] * 100) + "] }}",
    "text of many": "{{ build.x }}" * 100,
    "deep list": "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "deep parentheses": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "deep not": "{{ " + "not " * 3000 + "1 }}",
    "deep minus": "{{ " + "- " * 3000 + "1 }}",
    "deep conditions": "{{ " + "1 if 1 else " * 1000 + "1 }}",
    "deep attributes": "{{ build" + ".a" * 5000 + " }}",
    "deep subscripts": "{{ build" + "[build" * 2000 + "]" * 2000 + " }}",
    "many filters": "{{ build.x" + " | upper" * 600 + " }}",
    "many operands": "{{ " + " and ".join(["1"] * 1000) + " }}",
    "many comparisons": "{{ " + " < ".join(["1"] * 1000) + " }}",
    "huge integer": "{{ " + "9" * 15000 + " }}",
    "huge hexadecimal": "{{ 0x" + "f" * 15000 + " }}",
    "huge text": "{{ '" + "a" * 20000 + "' }}",
    "huge float": "{{ 1e999 }}",
    "integer beyond the digits": "{{ build.n + build.n + build.n + build.n + build.n + build.n + build.n ~ 1 "
    "if 0 else (build.n + build.n + build.n) + (build.n + build.n + build.n) + (build.n + build.n + build.n)"
    " + (build.n + build.n) }}",
    "rounding up": "{{ 5 | round(-1000000000) }}",
    "rounding down": "{{ 5.5 | round(1000000000, 'floor') }}",
    "round method": "{{ 5 | round(0, 'factorial') }}",
    "sort of mixed": "{{ [1, 'a', none] | sort }}",
    "unhashable": "{{ [[1], [1]] | unique | list }}",
    "unpacking": "{{ 'a' | default(*build.list) }}",
    "keywords": "{{ 'a' | default(**build) }}",
    "not JSON": "{{ {1: 1} }}",
    "long path": "$(" + "a." * 5000 + "a)",
    "long query": "$(a.#[" + "b" * 5000 + "=1].c)",
    "unclosed many": "{{" * 5000,
    "unclosed quotes": "{{ " + "'a\" " * 5000,
    "braces": "{{ " + "{" * 5000 + "}" * 5000 + " }}",
}


@pytest.mark.parametrize("name", REFUSED)
def test_attack(name: str) -> None:
    """It is refused, or it fails, in no time and little memory."""
    assert attack(REFUSED[name])


@pytest.mark.parametrize("name", [name for name in REFUSED if "on the way" in name])
def test_text_is_bounded_on_the_way(name: str) -> None:
    """The bound holds for every text on the way, and not only for the one that goes out."""
    assert "limit of a rendered string" in attack(REFUSED[name])


def test_allowed_filters_are_the_only_ones() -> None:
    """Nothing is in the environment but what is allowed, and nothing global."""
    environment = sandbox._environment
    assert environment.globals == {}
    assert {name.strip() for name in environment.filters} == {
        *sandbox._FILTERS,
        "lookup",
        "concat",
        "whole",
        "given",
        "sized",
        "weighed",
    }
    assert "callable" not in environment.tests
    assert environment.loader is None


@pytest.mark.parametrize("name", [" lookup", " concat", "lookup", "concat", "whole", "given"])
def test_own_filters_cannot_be_named(name: str) -> None:
    """The filters that stand for look-ups and joining are out of a template's reach."""
    assert attack(f"{{{{ [] | {name}(0) }}}}")


@pytest.mark.parametrize(
    "name", ["items", "keys", "get", "pop", "copy", "append", "upper", "format", "__len__", "real"]
)
def test_no_method_is_reachable(name: str) -> None:
    """Attributes and subscripts find keys, and never what Python has under that name."""
    world = World(data={"d": {"o": {"a": 1}, "l": [1], "s": "s", "n": 1, "has": {name: "key"}}})
    subscripts = [f"['{name}']"] if name.startswith("_") else [f"['{name}']", f".{name}"]
    for access in subscripts:
        for base in (
            "components['d'].o",
            "components['d'].l",
            "components['d'].s",
            "components['d'].n",
            "build",
        ):
            assert "has no" in attack(f"{{{{ {base}{access} }}}}", world)
        for base in (
            "[1]",
            "{'a': 1}",
            "'s'",
            "(1)",
            "1.5",
            "(components['d'].l | first)",
            "components['d'].l[0:1]",
        ):
            assert attack(f"{{{{ ({base}){access} }}}}", world)
        assert b'"x":"key"' in render(f"{{{{ components['d'].has{access} }}}}", world)
        assert b'"x":"key"' in render(f"{{{{ ({{'{name}': 'key'}}){access} }}}}", world)


def test_objects_of_objects_do_not_multiply() -> None:
    """Ten lists of ten lists of ... take no memory, and would take for ever to write."""
    names = {str(n): {"v": [f"{{{{ components['{n + 1}'].v }}}}"] * 10} for n in range(20)}
    assert "limit" in attack("{{ components['0'].v }}", World(names, {"20": {"v": "x"}}))
    assert "limit" in attack('$(components.#[_component_id="0"].v)', World(names, {"20": {"v": "x"}}))
    text = "[" + ", ".join(["components['0'].v"] * 50) + "]"
    assert "limit" in attack(f"{{{{ {text} }}}}", World(data={"0": {"v": ["x" * 1000] * 100}}))


def test_queries_that_look_at_everything_again_and_again_end() -> None:
    """The work for one component is bounded, however many references it has."""
    data = {str(n): {"name": f"n{n}", "list": [{"a": 1}] * 10} for n in range(2000)}
    world = World(data=data)
    assert "work" in attack(["$(components.#.list.#.a)"] * 20, world)
    found_nothing = [f"{{{{ components['1'].n{n} | default('') }}}}" for n in range(10)]
    queries = [f'$(components.#[name%"*n{n}"].name)' for n in range(1000, 1300)]
    assert "work" in attack([*found_nothing, *queries], world)
    text = "{{ [" + ", ".join(["components['l'].v | length"] * 9) + "] }}"
    assert "work" in attack(text, World(data={"l": {"v": ["x"] * 60_000}}))


def test_large_values_cannot_be_processed_without_end() -> None:
    """Sorting the same large list again and again is paid for."""
    world = World(data={"d": {"l": ["abcdefgh"] * 50_000}})
    assert "work" in attack("{{ components['d'].l" + " | sort" * 35 + " | first }}", world)
    assert "work" in attack("{{ " + " ~ ".join(["(components['d'].l | sort | first)"] * 30) + " }}", world)


def test_what_takes_too_much_work_is_not_judged_at_intake() -> None:
    """Many expensive components share what may be spent on checking them; the rest fails when due."""
    world = World(data={"d": {"l": ["abcdefgh"] * 1000}})
    fields = {"_component_id": "a", "x": ["{{ components['d'].l | sort | first ~ build.nope }}"] * 100}
    change = Change(
        id="a",
        type="t",
        action=Action.CREATE,
        provider="p",
        state=State.WAITING,
        raw=msgspec.json.encode(fields),
    )
    template = compile_change(
        change, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    work = Work(1024 * 1024)
    assert 1 <= len(template.check(world, lambda _: False, work=work)) < 100
    assert work.left < 0
    assert template.check(world, lambda _: False, work=work) == []


def test_patterns_do_not_backtrack() -> None:
    """A pattern of many stars against a text that nearly fits takes time in proportion to the text."""
    stars = "a*" * 60 + "b"
    world = World(data={"d": {"a" * 30_000: 1, "rows": [{"k": "a" * 30_000}]}})
    assert "has no" in attack(f'$(components.#[_component_id="d"].{stars})', world)
    assert "has no" in attack(f'$(components.#[_component_id="d"].rows.#[k%"{stars}"].k)', world)


def test_strings_that_nearly_refer_are_read_in_linear_time() -> None:
    """Reading a string of any size takes time in proportion to it."""
    for text in (
        "{{ '" * 60_000,
        "$(" * 100_000 + ")",
        "{{ a" + " " * 200_000,
        "{" * 250_000,
        "{{}}" * 50_000,
    ):
        most = SECONDS * slowness()
        try:
            before = time.process_time()
            render(text)
        except TemplateError:
            pass
        assert time.process_time() - before < most


def test_programs_are_not_kept_without_end() -> None:
    """Compiled expressions live in a bounded cache, and the rest of them goes with its component."""
    many = " ~ ".join(["build.id"] * 100)
    for n in range(40):
        render(f"{{{{ {many} ~ {n} }}}}")
    assert b"b1x" in render("{{ build.id ~ 'x' }}")
    assert 0 < sandbox._codes.size <= 8 * 1024 * 1024


def test_many_slots_of_large_text_stop_early() -> None:
    """A component is given up as soon as it is too large, and not when all of it was made."""
    assert "1048576" in attack(["{{ build.x }}"] * 10_000)


# What is charged: by steps, so that no machine's speed matters.


def charged(text: Any, world: World) -> int:
    """The units that rendering takes, however many they are."""
    fields = {"_component_id": "a", "x": text}
    change = Change(
        id="a",
        type="t",
        action=Action.CREATE,
        provider="p",
        state=State.WAITING,
        raw=msgspec.json.encode(fields),
    )
    template = compile_change(
        change, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    meter = Work(10**12)
    world.work = meter
    with suppress(TemplateError):
        template._rendered(world, meter)
    return meter.spent


def numbers(count: int) -> World:
    return World(data={"d": {"l": list(range(count)), "same": list(range(count)), "t": ["x" * 50] * count}})


WORK_BY_SIZE = {
    "equality of lists": "{{ components['d'].l == components['d'].same }}",
    "a list in a list": "{{ components['d'].l in [components['d'].same, 1] }}",
    "the test in": "{{ 'y' is in(components['d'].t) }}",
    "a slice": "{{ components['d'].l[1:] | length }}",
    "sort": "{{ components['d'].l | sort | length }}",
    "unique": "{{ components['d'].t | unique | length }}",
    "join": "{{ components['d'].l | join | length }}",
    "text of a list": "{{ components['d'].l | string | length }}",
    "a query in a list": '$(components.0.l.#[x="y"].z)',
}


@pytest.mark.parametrize("name", WORK_BY_SIZE)
def test_work_is_charged_by_what_is_looked_at(name: str) -> None:
    """Whatever loops over a list in C is paid for by the list's size."""
    text = WORK_BY_SIZE[name]
    few, many = charged(text, numbers(100)), charged(text, numbers(5_000))
    assert many - few > 4_900 * 5


def test_what_fails_is_charged_too() -> None:
    """Measuring what turns out to be too large is paid for, and the failure is found out once."""
    names = {str(n): {"v": [f"{{{{ components['{n + 1}'].v }}}}"] * 10} for n in range(8)}
    world = World(names, {"8": {"v": "x"}})
    once = charged("{{ components['0'].v | default(1) }}", world)
    assert once > 200_000
    assert charged(["{{ components['0'].v | default(1) }}"] * 20, world) < 2 * once


def test_definitions_are_evaluated_once_a_build() -> None:
    """What is the same for all components of a build is parsed and evaluated for the first only."""
    long = " ~ ".join(["build.id"] * 100)
    world = World({"d": {"v": f"{{{{ {long} }}}}", "w": "{{ components['d'].v }}"}})
    world.shared = Shared(lambda _: True, 1)
    first = charged("{{ components['d'].w }}", world)
    assert charged("{{ components['d'].w }}", world) < first / 20
    world = World({"d": {"v": f"{{{{ {long} ~ components['e'].x }}}}"}}, {"e": {"x": "y"}})
    world.shared = Shared(lambda name: name != "e", 1)
    charged("{{ components['d'].v }}", world)
    # What a connector returned is another thing for others: only the text is not read again.
    assert 5_000 < charged("{{ components['d'].v }}", world) < first / 5


@pytest.mark.parametrize("text", ["%1000000000d", "%s", "x"])
def test_text_is_neither_even_nor_odd(text: str) -> None:
    """Python's formatting is out of reach: `%` of a text would make one of any size."""
    assert "asks about a number" in attack(f"{{{{ '{text}' is even }}}}")
    assert "asks about a number" in attack(f"{{{{ '{text}' is odd }}}}")


def test_many_expressions_in_one_string_are_not_all_read() -> None:
    """Reading stops at the limit of nodes, not at the end of the string."""
    spent: list[int] = []
    for count in (600, 50_000):
        meter = Work(10**12)
        with pytest.raises(TemplateError, match="nodes"):
            references.read("{{1}}" * count, references.Syntax(), meter.spend)
        spent.append(meter.spent)
    assert spent[1] < spent[0] * 1.2


def test_references_under_endless_keys_are_refused() -> None:
    """A place is a text for each reference, so the keys above it are bounded together."""
    assert "under keys of more than" in attack({"k" * 600: {"l" * 600: ["{{ build.id }}"] * 10}})
    world = World({"d": {"v": {"k" * 1100: ["{{ build.id }}"]}}})
    assert "under keys of more than" in attack("{{ components['d'].v }}", world)


def test_a_build_past_its_work_says_so() -> None:
    """The error names the place and the limit, that of the component or that of the build."""
    world = World(data={"d": {"l": list(range(20_000))}})
    assert "the limit of a component" in attack(["{{ components['d'].l | sort | first }}"] * 50, world)
    work = Work.of_build(1)
    work.left = 10_000
    change = Change(
        "a", "t", Action.CREATE, "p", State.WAITING, b'{"_component_id":"a","x":"{{ components[\'d\'].l }}"}'
    )
    template = compile_change(
        change, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    with pytest.raises(TemplateError, match=r"^a\.x: takes more than .* the limit of a build"):
        template.render(world, work=work)
    with pytest.raises(Laborious):
        template.render(world, work=Work.of_build(1), inline=True)
    with pytest.raises(TemplateError, match="longer than it may"):
        template.render(world, work=Work.of_build(1), expired=lambda: True)
