"""Templates: compiling a change, rendering it, and what is known of it at intake."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import Action, Change, State
from scheduler.definition.template import (
    Found,
    OnUnresolved,
    Reference,
    Rendered,
    Scope,
    Template,
    Templates,
    compile_change,
)
from scheduler.definition.template.jsonparts import MAX_RENDERED, measure
from scheduler.definition.template.needs import Needs
from scheduler.definition.template.work import Work
from scheduler.errors import InvalidTemplate, TemplateError, Unresolved

BUILD: Mapping[str, Any] = {
    "id": "b1",
    "name": "env",
    "options": {"x": 5, "f": 1.0, "nil": None, "empty": "", "braces": "{{ build.id }}", "big": 2**80},
    "datacenters": {"items": [{"region": "eu-west-1"}]},
}


class World(Scope):
    """A scope made of two dicts by id: what connectors returned, and what a user defined."""

    def __init__(
        self, data: Mapping[str, Any] | None = None, defined: Mapping[str, Any] | None = None
    ) -> None:
        self.build = BUILD
        self.found = {
            **{
                name: Found({"_component_id": name, **value}, definition=True)
                for name, value in (defined or {}).items()
            },
            **{
                name: Found({"_component_id": name, **value}, definition=False)
                for name, value in (data or {}).items()
            },
        }

    def find(self, id: str) -> Found | None:  # noqa: A002 - the port's name
        return self.found.get(id)

    def all(self) -> Sequence[Found]:
        return list(self.found.values())

    def ids(self) -> Iterable[str]:
        return self.found


class NoScan(World):
    def all(self) -> Sequence[Found]:
        raise AssertionError("a look-up by id looked at everything")

    def ids(self) -> Iterable[str]:
        raise AssertionError("a look-up by id looked at everything")


def change(**fields: Any) -> Change:
    whole = {
        "_component_id": "web::1",
        "_component": "web",
        "_action": "create",
        "_provider": "aws",
        "_state": "waiting",
        **fields,
    }
    return Change(
        id="web::1",
        type=whole["_component"],
        action=Action.CREATE,
        provider=whole["_provider"],
        state=State.WAITING,
        raw=msgspec.json.encode(whole),
    )


def compiled(
    *,
    templates: Templates = Templates.ALL,
    unresolved: OnUnresolved = OnUnresolved.ERROR,
    limits: Limits = DEFAULT_LIMITS,
    **fields: Any,
) -> Template:
    return compile_change(change(**fields), "b1", templates=templates, unresolved=unresolved, limits=limits)


def rendered(scope: Scope, **fields: Any) -> Rendered:
    return compiled(**fields).render(scope)


def value(text: Any, scope: Scope | None = None, **fields: Any) -> Any:
    """What becomes of field ``x``."""
    return msgspec.json.decode(rendered(scope or WORLD, x=text, **fields).body)["x"]


WORLD = World(
    data={
        "vpc::a": {
            "aws_id": "vpc-1",
            "n": 5,
            "big": 2**80,
            "flag": True,
            "list": [1, {"a": None}],
            "empty": "",
            "nil": None,
            "braces": "{{ build.id }}",
            "dollar": "$(name)",
            "inner": {"braces": ["{{ nobody"], "id": "in"},
        },
        "vpc::b.c::d": {"aws_id": "vpc-2", "n": 7},
    },
    defined={
        "net::a": {
            "name": "net",
            "vpc": '$(components.#[_component_id="vpc::a"].aws_id)',
            "full": "{{ component.name }}/{{ build.name }}",
            "tags": {
                "of": "{{ component.full }}",
                "script": "{{ nobody",
                "n": "{{ components['vpc::a'].n }}",
            },
            "whole": "{{ components['vpc::a'].list }}",
            "user_data": "{{ nobody",
            "_raw": ["user_data", "tags.script"],
            "loop": "{{ components['net::b'].loop }}",
        },
        "net::b": {"loop": "{{ components['net::a'].loop }}", "chain": "{{ components['net::a'].full }}"},
        "bad": {"_raw": "x", "name": "{{ build.id }}", "syntax": "{{ 1 + }}", "absent": "{{ build.nope }}"},
    },
)


# Bodies


def test_fields_keep_their_order_and_their_digits() -> None:
    """A component without references is sent as submitted, running, and with its build's id."""
    body = rendered(
        WORLD, z=1, a={"b": [True, None, "ü", 1.5]}, big=12345678901234567890123, service="old", y="%{x}"
    ).body
    assert body == (
        b'{"_component_id":"web::1","_component":"web","_action":"create","_provider":"aws","_state":"running",'
        b'"z":1,"a":{"b":[true,null,"\xc3\xbc",1.5]},"big":12345678901234567890123,"service":"b1","y":"%{x}"}'
    )


def test_missing_identity_is_appended() -> None:
    """``_state`` and ``service`` are added where they were not submitted."""
    fields = {"_component_id": "a", "x": "{{ build.id }}"}
    bare = Change(
        id="a",
        type="t",
        action=Action.CREATE,
        provider="p",
        state=State.WAITING,
        raw=msgspec.json.encode(fields),
    )
    template = compile_change(
        bare, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    assert template.render(WORLD).body == b'{"_component_id":"a","x":"b1","_state":"running","service":"b1"}'
    assert fields == {"_component_id": "a", "x": "{{ build.id }}"}


def test_references_are_filled_in_place() -> None:
    """Only the strings that refer change; what stands around them keeps its bytes."""
    body = rendered(
        WORLD, a="{{ build.id }}", b={"c": ["x", "$(name)", {"d": "{{ build.name }}"}], "k": "{ {"}, e=[[]]
    ).body
    assert body.endswith(b'"a":"b1","b":{"c":["x","env",{"d":"env"}],"k":"{ {"},"e":[[]],"service":"b1"}')


def test_what_is_rendered_is_escaped() -> None:
    """Text found cannot break out of the JSON that it is put into."""
    nasty = 'a"b\\c\n\0\u2028</x>é'
    assert value("{{ components['n'].v }}", World({"n": {"v": nasty}})) == nasty
    assert value("<{{ components['n'].v }}>", World({"n": {"v": nasty}})) == f"<{nasty}>"
    assert value('$(components.#[_component_id="n"].v)', World({"n": {"v": nasty}})) == nasty


def test_constant() -> None:
    """A component that refers to nothing says so, and braces in keys are nothing."""
    odd: Any = {"{{ build.id }}": 1}
    assert compiled(x="plain", **odd).constant
    assert not compiled(x="{{ build.id }}").constant


def test_type_and_provider_are_rendered() -> None:
    """The subject is made of what was rendered."""
    found = rendered(WORLD, _component="{{ components['vpc::a'].inner.id }}", _provider="$(name)")
    assert (found.type, found.provider) == ("in", "env")
    assert json.loads(found.body)["_component"] == "in"
    assert (rendered(WORLD).type, rendered(WORLD).provider) == ("web", "aws")


def test_type_must_be_text() -> None:
    """A subject is not made of a number."""
    with pytest.raises(TemplateError, match=r"web::1\._provider: .*text"):
        rendered(WORLD, _provider="{{ components['vpc::a'].n }}")


@pytest.mark.parametrize("field", ["_component_id", "_action", "service", "_raw"])
def test_identity_is_never_rendered(field: str) -> None:
    """The identity of a component is not a template."""
    text: Any = ["{{ nobody }}"] if field == "_raw" else "{{ nobody }}"
    assert compiled(**{field: text}).constant


# Form 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('$(components.#[_component_id="vpc::a"].aws_id)', "vpc-1"),
        ('$(components.#[_component_id=="vpc::a"].aws_id)', "vpc-1"),
        ("$(components.#[_component_id=vpc::a].aws_id)", "vpc-1"),
        ('$(components.#[ _component_id = "vpc::b.c::d" ].aws_id)', "vpc-2"),
        ('$(components.#[_component_id="vpc::a"].n)', "5"),
        ('$(components.#[_component_id="vpc::a"].big)', str(2**80)),
        ('$(components.#[_component_id="vpc::a"].flag)', "true"),
        ('$(components.#[_component_id="vpc::a"].list)', '[1,{"a":null}]'),
        ('$(components.#[_component_id="vpc::a"].list.#)', "2"),
        ('$(components.#[_component_id="vpc::a"].list.1)', '{"a":null}'),
        ('$(components.#[_component_id="vpc::a"].empty)', ""),
        ('$(components.#[_component_id="vpc::a"].inn*.id)', "in"),
        ('$(components.#[_component_id="vpc::a"].braces)', "{{ build.id }}"),
        ('$(components.#[_component_id="vpc::a"].dollar)', "$(name)"),
        ("$(components.#[aws_id=vpc-2].n)", "7"),
        ('$(components.#[_component_id%"vpc*"]#.n)', "[5,7]"),
        ('$(components.#[_component_id%"vpc*"]#.absent)', "[]"),
        ("$(compo*.#.n)", "[5,7]"),
        ("$(componen??.#)", "5"),
        ('$(c*.#[_component_id="vpc::a"].aws_id)', "vpc-1"),
        ('$(*.#[_component_id="vpc::a"].aws_id)', "vpc-1"),
        ("$(n*e)", "env"),
        ("$(*ions.x)", "5"),
        ("$(data*.items.0.reg*)", "eu-west-1"),
        ("$(components.#[n>5].aws_id)", "vpc-2"),
        ("$(components.#.aws_id)", '["vpc-1","vpc-2"]'),
        ("$(components.#)", "5"),
        ("$(components.3.aws_id)", "vpc-1"),
        ("$(components.0.full)", "net/env"),
        ("$(components.#[full=net/env].name)", "net"),
        ("$(components.#.full)", '["net/env"]'),
        ('$(components.#[_component_id="net::a"].vpc)', "vpc-1"),
        ('$(components.#[_component_id="net::a"].tags.of)', "net/env"),
        ('$(components.#[_component_id="net::a"].whole.1)', '{"a":null}'),
        ('$(components.#[_component_id="net::a"].whole.#)', "2"),
        ("$(name)", "env"),
        ("$(options.x)", "5"),
        ("$(options.f)", "1"),
        ("$(options.empty)", ""),
        ("$(options.braces)", "{{ build.id }}"),
        ("$(datacenters.items.0.region)", "eu-west-1"),
        ("$(datacenters.items.#.region)", '["eu-west-1"]'),
        ("$(dat*.items.0.region)", "eu-west-1"),
        ("$()", "$()"),
        ("$(name", "$(name"),
        (" $(name)", " $(name)"),
        ("$(name) ", "$(name) "),
        ("$(name)$(name)", "$(name)$(name)"),
        ("$(hostname) and $(date)", "$(hostname) and $(date)"),
        ("$name", "$name"),
        ("$(name){{ build.id }}", "$(name)b1"),
    ],
)
def test_path(text: str, expected: str) -> None:
    """``$(path)`` becomes text; what is not wholly of this form is plain text."""
    assert value(text) == expected


EMPTY = World(
    data={"vpc::a": {"id": "", "l": [], "o": {}, "s": " ", "z": 0, "f": False, "deep": {"id": ""}}},
    defined={"vpc::d": {"id": "", "via": '$(components.#[_component_id="vpc::a"].id)'}},
)


@pytest.mark.parametrize(
    "path",
    [
        'components.#[_component_id="vpc::a"].id', 'components.#[_component_id="vpc::a"].deep.id',
        'components.#[_component_id="vpc::a"].deep.i*', 'components.#[_component_id%"*::a"].id',
        'components.#[_component_id="vpc::d"].id', "components.0.id", "compo*.0.id", "options.empty",
        "option?.empty",
    ],
)  # fmt: skip
def test_empty_text_is_a_value_unless_references_are_kept(path: str) -> None:
    """What is there and empty resolves to empty text; with ``keep`` the reference goes out instead."""
    text = f"$({path})"
    assert value(text, EMPTY) == ""
    kept = compiled(unresolved=OnUnresolved.KEEP, x=text).render(EMPTY)
    assert json.loads(kept.body)["x"] == text


@pytest.mark.parametrize(
    ("name", "expected"), [("l", "[]"), ("o", "{}"), ("s", " "), ("z", "0"), ("f", "false")]
)
def test_only_text_is_empty(name: str, expected: str) -> None:
    """An empty list, nought and the like are values, with ``keep`` too."""
    kept = compiled(unresolved=OnUnresolved.KEEP, x=f'$(components.#[_component_id="vpc::a"].{name})')
    assert json.loads(kept.render(EMPTY).body)["x"] == expected


def test_a_definition_that_leads_to_empty_text_is_kept_as_the_reference_that_does() -> None:
    """Of references in a row the last one goes out."""
    kept = compiled(unresolved=OnUnresolved.KEEP, x='$(components.#[_component_id="vpc::d"].via)')
    assert json.loads(kept.render(EMPTY).body)["x"] == '$(components.#[_component_id="vpc::a"].id)'


def test_an_expression_that_leads_to_empty_text_is_empty() -> None:
    """``keep`` is about ``$(path)`` alone."""
    kept = compiled(unresolved=OnUnresolved.KEEP, x='{{ components["vpc::a"].id }}')
    assert json.loads(kept.render(EMPTY).body)["x"] == ""


@pytest.mark.parametrize(
    "text",
    [
        '$(components.#[_component_id="nobody"].x)',
        '$(components.#[_component_id="vpc::a"].x)',
        '$(components.#[_component_id="vpc::a"].nil)',
        "$(components.#[n=99].x)",
        "$(components.#[n=99]#.x)",
        "$(compo*.9.n)",
        "$(compo?.0.n)",
        "$(hos*)",
        "$(changes.0.x)",
        "$(options.nil)",
        "$(hostname)",
        "{{ build.nope }}",
        "x{{ components['vpc::a'].nil }}",
        "{{ components['nobody'] }}",
    ],
)
def test_reference_to_nothing(text: str) -> None:
    """What is absent or null is unresolved, and the message begins with the place."""
    with pytest.raises(Unresolved, match=r"^web::1\.x\.y\[1\]: "):
        rendered(WORLD, x={"y": ["z", text]})


def test_keep_lets_paths_go_out_as_they_stand() -> None:
    """With ``keep``, ``$(path)`` that leads to nothing or to empty text goes out as text, as with Ernest.

    Expressions still fail.
    """
    fields: Any = {
        "a": "$(nope)",
        "b": "$(options.nil)",
        "c": "$(name)",
        "d": "$(a.#[)",
        "e": "$(options.empty)",
    }
    template = compiled(unresolved=OnUnresolved.KEEP, **fields)
    assert template.check(WORLD, lambda _: False) == []
    found = json.loads(template.render(WORLD).body)
    assert {name: found[name] for name in fields} == {**fields, "c": "env"}
    with pytest.raises(Unresolved):
        compiled(unresolved=OnUnresolved.KEEP, a="{{ build.nope }}").render(WORLD)


def test_ernest_knows_no_expressions() -> None:
    """With ``ernest`` braces are plain text, also in what is referred to."""
    template = compiled(
        templates=Templates.ERNEST,
        a="{{ nobody",
        b="$(name)",
        c='$(components.#[_component_id="net::a"].full)',
    )
    found = json.loads(template.render(WORLD).body)
    assert (found["a"], found["b"]) == ("{{ nobody", "env")
    assert found["c"] == "{{ component.name }}/{{ build.name }}"


# Form 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ components['vpc::a'].n }}", 5),
        ("{{ components['vpc::a'].big }}", 2**80),
        ("{{ components['vpc::a'].list }}", [1, {"a": None}]),
        ("{{ components['vpc::a'].list[1] }}", {"a": None}),
        ("{{ components['vpc::a'].inner }}", {"braces": ["{{ nobody"], "id": "in"}),
        ("{{ components['vpc::a'].braces }}", "{{ build.id }}"),
        ("{{ components['vpc::a'].braces ~ '' }}", "{{ build.id }}"),
        ("<{{ components['vpc::a'].braces }}>", "<{{ build.id }}>"),
        ("{{ components['vpc::a'].flag }}", True),
        ("is {{ components['vpc::a'].flag }}", "is true"),
        ("http://{{ components['vpc::a'].aws_id }}:{{ components['vpc::a'].n }}/", "http://vpc-1:5/"),
        (" {{ components['vpc::a'].n }}", " 5"),
        ("{{ components['vpc::a'].empty }}", ""),
        ("{{ components[component.ref].aws_id }}", "vpc-1"),
        ("{{ component.ref }}", "vpc::a"),
        ('{{ component["_provider"] }}', "aws"),
        ("{{ component.other }}", "b1!"),
        ("{{ component.tags }}", {"a": "b1", "raw": "{{ nobody"}),
        ("{{ build.options.big }}", 2**80),
        ("{{ build.options.braces }}", "{{ build.id }}"),
        ("{{ components['net::a'].full }}", "net/env"),
        ("{{ components['net::b'].chain | upper }}", "NET/ENV"),
        ("{{ components['net::a'].tags }}", {"of": "net/env", "script": "{{ nobody", "n": 5}),
        ("{{ components['net::a'].user_data }}", "{{ nobody"),
        ("{{ components['net::a'].whole[0] + 1 }}", 6 - 4),
        ("{{ components['net::a'].whole[0] }}", 1),
        ("{{ components['nobody'].x | default('d') }}", "d"),
        ("{{ '{{ build.id }}' }}", "{{ build.id }}"),
        ("{% for x in y %}{# c #}", "{% for x in y %}{# c #}"),
    ],
)
def test_expression(text: str, expected: object) -> None:
    """A string that is one expression keeps the value's type; within text it becomes text."""
    found = value(
        text,
        ref="vpc::a",
        other="{{ build.id }}!",
        tags={"a": "$(id)", "raw": "{{ nobody"},
        _raw=["tags.raw"],
    )
    assert found == expected
    assert type(found) is type(expected)


def test_raw_fields_are_not_rendered() -> None:
    """``_raw`` names fields at any depth, also those with a dot in their name, and what is below them."""
    fields = {
        "user_data": "{{ nobody",
        "tags": {"x": "{{ 1 + }}", "y": "{{ build.id }}", "a.b": "{{"},
        "list": [{"s": "{{"}, {"s": "{{ build.id }}"}],
        "deep": {"er": ["{{", {"x": "$(nope)"}]},
        "d.e": "{{",
    }
    raw = ["user_data", "tags.x", r"tags.a\.b", "list[0].s", "deep", "d.e", "absent.y"]
    found = json.loads(rendered(WORLD, _raw=raw, **fields).body)
    expected = json.loads(json.dumps(fields))
    expected["tags"]["y"] = "b1"
    expected["list"][1]["s"] = "b1"
    assert {name: found[name] for name in fields} == expected


@pytest.mark.parametrize("raw", ["x", {"x": 1}, [1], [""], [None]])
def test_raw_that_is_no_list_of_names_is_refused(raw: object) -> None:
    """A ``_raw`` that cannot be meant is refused rather than ignored."""
    with pytest.raises(InvalidTemplate) as caught:
        compiled(_raw=raw)
    assert caught.value.problems[0].place == "web::1._raw"


def test_null_raw_is_absent() -> None:
    """``_raw: null`` names nothing."""
    assert value("{{ build.id }}", _raw=None) == "b1"


# Definitions


@pytest.mark.parametrize(
    ("text", "circle"),
    [
        ("{{ component.x }}", r"web::1\.x -> web::1\.x"),
        ("{{ component }}", r"web::1\.x -> web::1\.x"),
        ("a{{ component.y }}", r"web::1\.x -> web::1\.y -> web::1\.x"),
        ("{{ components['net::a'].loop }}", r"net::a\.loop -> net::b\.loop -> net::a\.loop"),
        ('$(components.#[_component_id="net::b"].loop)', r"net::b\.loop -> net::a\.loop -> net::b\.loop"),
        ("{{ components['net::a'].loop | default('d') }}", r"net::a\.loop -> net::b\.loop -> net::a\.loop"),
    ],
)
def test_circle_is_refused(text: str, circle: str) -> None:
    """What refers to itself is refused, at intake as well as when due, and all of the circle is named."""
    with pytest.raises(TemplateError, match=f"refers to itself: {circle}$"):
        value(text, y="{{ component.x }}")
    assert [problem.place for problem in compiled(x=text).check(WORLD, lambda _: False)] == ["web::1.x"]


def test_trouble_in_a_definition_is_named_with_its_place() -> None:
    """When a definition cannot be resolved, the message says which."""
    with pytest.raises(TemplateError, match=r"^web::1\.x: bad: _raw is a list"):
        value("{{ components['bad'].name }}")
    world = World(defined={"d": {"syntax": "{{ 1 + }}", "absent": "{{ build.nope }}"}})
    with pytest.raises(TemplateError, match=r"^web::1\.x: d\.syntax: "):
        value("{{ components['d'].syntax }}", world)
    with pytest.raises(Unresolved, match=r"^web::1\.x: d\.absent: the build has no 'nope'"):
        value("{{ components['d'].absent }}", world)
    assert value("{{ components['d'].absent | default('d') }}", world) == "d"


def test_trouble_in_what_a_query_passes_by_is_no_trouble() -> None:
    """A query over everything skips what cannot be resolved."""
    world = World({"b": {"name": "x", "v": 1}}, defined={"a": {"name": "{{ build.nope }}", "v": 2}})
    assert value("$(components.#[name=x].v)", world) == "1"


def test_circle_through_a_query_is_refused() -> None:
    """A query that looks at the very string it stands in is a circle, and not a string to pass by."""
    world = World(defined={"a": {"x": "$(components.#[x=1].y)"}})
    with pytest.raises(TemplateError, match=r"refers to itself: a\.x -> a\.x"):
        value("{{ components['a'].x }}", world)


def test_long_chain_of_definitions() -> None:
    """Definitions may refer to one another in turn; without end is refused and does not exhaust the stack."""

    def chain(length: int) -> World:
        names = {str(n): {"v": f"{{{{ components['{n + 1}'].v ~ '' }}}}"} for n in range(length)}
        return World({str(length): {"v": "end"}}, defined=names)

    assert value("{{ components['0'].v }}", chain(30)) == "end"
    for length in (50, 500):
        with pytest.raises(TemplateError, match="more than 40 deep"):
            value("{{ components['0'].v }}", chain(length))
        (problem,) = compiled(x="{{ components['0'].v }}").check(chain(length), lambda _: False)
        assert str(problem).endswith("refers to definitions that refer to definitions, more than 40 deep")


def test_chain_of_deep_definitions_does_not_exhaust_the_stack() -> None:
    """Definitions deep within, in a long chain, are refused: no other exception comes out."""
    names: dict[str, Any] = {}
    for n in range(38):
        nested: Any = f"{{{{ components['{n + 1}'].v }}}}"
        for _ in range(60):
            nested = [nested]
        names[str(n)] = {"v": nested}
    world = World({"38": {"v": "end"}}, defined=names)
    template = compiled(x="{{ components['0'].v }}")
    with pytest.raises(TemplateError, match="deep"):
        template.render(world)
    assert "deep" in template.check(world, lambda _: False)[0].message


def test_definition_is_evaluated_once() -> None:
    """However often a definition is referred to, it costs once: doubling at each step does not explode."""
    names = {str(n): {"v": f"{{{{ components['{n + 1}'].v }}}}" * 2} for n in range(30)}
    assert value("{{ components['0'].v }}", World({"30": {"v": ""}}, defined=names)) == ""


# Look-ups


@pytest.mark.parametrize(
    "text",
    [
        '$(components.#[_component_id="vpc::a"].aws_id)',
        '$(components.#[_component_id="vpc::a"].inner.id)',
        '$(components.#[_component_id="vpc::a"].n)',
        "{{ components['vpc::a'].aws_id }}",
        "{{ components['vpc::a'].list[0] }}",
        "{{ components['vpc::a'].aws_id | upper }}",
        "{{ components[component.ref].n }}",
        "x{{ components['vpc::a'].n }}",
    ],
)
def test_look_up_by_id_does_not_scan(text: str) -> None:
    """One component is found by its id, whatever else there is."""
    world = NoScan({"vpc::a": WORLD.found["vpc::a"].document})
    template = compiled(x=text, ref="vpc::a")
    template.render(world)
    assert template.check(world, lambda _: False) == []
    template.needs(Needs(world, template.syntax, lambda _: True))


# Bounds


def test_string_over_the_limit_is_refused() -> None:
    """A rendered string holds at most 64 KiB of UTF-8."""
    world = World({"a": {"fits": "x" * 65536, "over": "x" * 65537, "wide": "é" * 32769}})
    assert len(value("{{ components['a'].fits }}", world)) == 65536
    for field in ("over", "wide"):
        for text in (
            f"{{{{ components['a'].{field} }}}}",
            f'$(components.#[_component_id="a"].{field})',
            f"{{{{ components['a'].{field} ~ '' }}}}",
            f"{{{{ [components['a'].{field}] }}}}",
        ):
            with pytest.raises(TemplateError, match="65536"):
                value(text, world)
    with pytest.raises(TemplateError, match="65536"):
        value("x{{ components['a'].fits }}", world)


def test_component_over_the_limit_is_refused() -> None:
    """A rendered component holds at most 1 MiB, what was found included."""
    world = World({"a": {"s": "x" * 65536, "list": ["x" * 60000] * 18}})
    assert len(rendered(world, x=["{{ components['a'].s }}"] * 15).body) > 15 * 65536
    with pytest.raises(TemplateError, match="1048576"):
        rendered(world, x=["{{ components['a'].s }}"] * 17)
    with pytest.raises(TemplateError, match="1048576"):
        rendered(world, x="{{ components['a'].list }}")


def test_component_over_the_limit_without_its_references_is_known_at_intake() -> None:
    """What a component holds beside its references is bounded at intake; without references nothing is."""
    (found,) = problems("{{ build.id }}", y="x" * 1024 * 1024)
    assert found.startswith("web::1: 10")
    assert found.endswith(" bytes beside its references; the limit of a rendered component is 1048576")
    assert problems("plain", y="x" * 1024 * 1024) == []


def test_lone_surrogate_is_refused_with_its_place() -> None:
    """Text without UTF-8 that an expression makes is refused, and its place named."""
    with pytest.raises(TemplateError, match=r"^web::1\.x: .*surrogate"):
        value('{{ "\\ud800" }}')


def test_every_problem_of_a_component_is_reported() -> None:
    """One look at a component finds all that is wrong with it."""
    with pytest.raises(InvalidTemplate) as caught:
        compiled(a="{{ nobody }}", b=["{{", "$(a.#[)"], c="{{ build.id }}", _raw=3)
    assert [problem.place for problem in caught.value.problems] == [
        "web::1._raw",
        "web::1.a",
        "web::1.b[0]",
        "web::1.b[1]",
    ]
    assert str(caught.value).startswith("web::1._raw: ")


def test_nodes_are_counted_and_bounded() -> None:
    """Every reference has its part in the budget of a build."""
    assert compiled(x="plain").nodes == 0
    assert compiled(x="{{ build.id }}").nodes == 2
    assert compiled(x="$(name)", y="{{ build.id | upper }}").nodes == 2 + 3
    with pytest.raises(InvalidTemplate, match="max_template_nodes"):
        compiled(x=["{{ build.id }}"] * 10, limits=Limits(max_template_nodes=19))
    with pytest.raises(InvalidTemplate, match="500"):
        compiled(x="{{ build.id }}" * 251)


def test_measure() -> None:
    """The bounds of a rendered value are exact where it matters, whatever it is made of."""
    assert measure([{"a": "x" * 60_000}] * 17, 300) > 17 * 60_000
    for over in (["x" * 60_000] * 18, {"x" * 1024 * 1024: 1}, [0] * 200_000):
        with pytest.raises(TemplateError, match="holds more than"):
            measure(over, 300)
    for number in (10**300 - 1, 1 - 10**300):
        measure(number, 300)
    for number in (10**300, -(10**300), 10**310):
        with pytest.raises(TemplateError, match="max_digits is 300"):
            measure(number, 300)


def test_integer_beyond_the_limit_is_refused() -> None:
    """An expression makes no integer that we would not accept ourselves."""
    with pytest.raises(TemplateError, match="max_digits"):
        value("{{ '" + "9" * 1000 + "' | int }}")


# Intake


def test_references_are_listed() -> None:
    """Every reference is known with its place, its text and the id it names."""
    template = compiled(
        tags={"x": '$(components.#[_component_id="vpc::a"].n)'},
        rules=[{"ip": "{{ components['vpc::a'].ip | default(build.id) }}"}],
        y="$(components.#.n)",
    )
    assert template.references == (
        Reference("tags.x", '$(components.#[_component_id="vpc::a"].n)', "vpc::a", guarded=False),
        Reference("rules[0].ip", "{{ components['vpc::a'].ip | default(build.id) }}", "vpc::a", guarded=True),
        Reference("rules[0].ip", "{{ components['vpc::a'].ip | default(build.id) }}", None, guarded=True),
        Reference("y", "$(components.#.n)", None, guarded=False),
    )
    assert len(compiled(x="{{ '" + "x" * 500 + "' ~ build.id }}").references[0].text) == 200


def problems(
    text: str, *, supplied: Sequence[str] = (), open_ended: bool = False, **fields: Any
) -> list[str]:
    template = compiled(x=text, **fields)
    return [str(one) for one in template.check(WORLD, lambda name: name in supplied, open_ended=open_ended)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '$(components.#[_component_id="vpc::aa"].x)',
            "web::1.x: there is no 'vpc::aa'; did you mean 'vpc::a'?",
        ),
        ("{{ components['ünlike'].x }}", "web::1.x: there is no 'ünlike'"),
        ("{{ components['vpc::a'].x }}", "web::1.x: 'vpc::a' has no 'x'"),
        ("{{ components['vpc::a'].nil }}", "web::1.x: 'vpc::a' has no 'nil'"),
        ('$(components.#[_component_id="vpc::a"].x.y)', "web::1.x: 'vpc::a' has no 'x.y'"),
        ("$(options.y)", "web::1.x: the build has no 'options.y'"),
        ("$(changes.0)", "web::1.x: the build has no 'changes.0'"),
        ("{{ build.options.y }}", "web::1.x: the build has no 'options.y'"),
        ("{{ component.y }}", "web::1.x: the component has no 'y'"),
        (
            "{{ components['bad'].name }}",
            'web::1.x: bad: _raw is a list of names of fields, such as ["user_data", "tags.x"]',
        ),
    ],
)
def test_reference_to_nothing_is_known_at_intake(text: str, message: str) -> None:
    """What can be known to lead to nothing is a problem at intake, with the cure where there is one."""
    assert problems(text) == [message]


@pytest.mark.parametrize(
    "text",
    [
        "{{ components['nobody'].x | default('d') }}",
        "{{ components['nobody'] is defined }}",
        "{{ components['nobody'].x if build.options.x == 6 else 1 }}",
        "$(components.#.nope)",
        "$(components.#[n=99].x)",
        "$(components.99.x)",
        "{{ components['vpc::a'].n + 1 }}",
        "{{ components['net::a'].tags }}",
    ],
)
def test_what_cannot_be_known_is_left_until_it_is_due(text: str) -> None:
    """A guarded or computed reference, and one that asks what will be there, is no problem at intake."""
    assert problems(text) == []


def test_what_a_change_supplies_is_not_judged() -> None:
    """Nothing is said about fields that a change of this build returns, also behind a definition."""
    assert problems("{{ components['later'].x }}", supplied=["later"]) == []
    assert problems("{{ components['vpc::a'].x }}", supplied=["vpc::a"]) == []
    assert problems("{{ components['net::a'].vpc | int + [] }}", supplied=["vpc::a"]) == []
    assert problems("{{ components['later'].x ~ components['nobody'].x }}", supplied=["later"]) == [
        "web::1.x: there is no 'nobody'"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ [components['later'].x, components['vpc::a'].x] }}", ["web::1.x: 'vpc::a' has no 'x'"]),
        (
            "{{ [components['vpc::a'].x] | length }} {{ components['later'].x }}",
            ["web::1.x: 'vpc::a' has no 'x'"],
        ),
        ("{{ components['later'].x ~ build.nope }}", ["web::1.x: the build has no 'nope'"]),
        ("{{ [components['later'].x, components['vpc::a'].n, component['_action']] }}", []),
        ("{{ [components['later'].x, components['vpc::a'].x | default(1)] }}", []),
        ("{{ [components['later'].x, components['vpc::' ~ 'a'].x] }}", []),
    ],
)
def test_what_stands_beside_what_a_change_supplies_is_judged(text: str, expected: list[str]) -> None:
    """A field that is known to be missing is a problem at intake also where the rest is not known yet."""
    assert problems(text, supplied=["later"]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "{{ [components['vpc::a'].x, 'y'] }}",
        "{{ [components['vpc::a'].x] | length }}",
        "{{ {'a': ('b', [components['vpc::a'].x])} | tojson }}",
        "a {{ [components['vpc::a'].x] | join }}",
        "{{ ['y', components['vpc::a'].x] | first }}",
        "{{ components['vpc::a'].x is string }}",
        "{{ 'b' if 'y' in [components['vpc::a'].x] else 'c' }}",
    ],
)
def test_a_list_does_not_swallow_what_is_missing(text: str) -> None:
    """A field that is missing is missing in lists, objects and under filters, at intake and when due."""
    assert problems(text) == ["web::1.x: 'vpc::a' has no 'x'"]
    with pytest.raises(Unresolved, match=r"^web::1\.x: 'vpc::a' has no 'x'$"):
        compiled(x=text).render(WORLD)


def test_a_find_may_supply_anything() -> None:
    """With a ``find`` among the dependencies ids are not judged; the build's own fields still are."""
    assert problems("{{ components['nobody'].x }}", open_ended=True) == []
    assert problems("{{ components['vpc::a'].nope }}", open_ended=True) == []
    assert problems("{{ build.nope }}", open_ended=True) != []


def test_suggestions_can_be_left_out() -> None:
    """Looking for what was meant is optional."""
    template = compiled(x='$(components.#[_component_id="vpc::aa"].x)')
    (problem,) = template.check(WORLD, lambda _: False, suggest=False)
    assert problem.message == "there is no 'vpc::aa'"


def test_needs() -> None:
    """Ids named by constants are needed, and those that definitions name in turn; computed ones are not."""
    world = World(
        {"data": {"x": "{{ components['no'].x }}"}},
        defined={
            "d": {
                "x": "{{ components['e'].y }}",
                "other": "{{ components['no'].x }}",
                "whole": {
                    "a": ["$(components.#[_component_id=later2].x)"],
                    "raw": "{{ components['no'].x }}",
                },
                "own": "{{ component.x }}",
                "_raw": ["whole.raw"],
            },
            "e": {"y": "{{ components['later'].x }}", "no": "{{ components['no'].x }}"},
            "loop": {"x": "{{ components['loop'].x }}"},
            "bad": {"x": "{{ 1 + }}", "_raw": 1},
        },
    )

    def needs(text: str) -> set[str]:
        template = compiled(x=text)
        return set(template.needs(Needs(world, template.syntax, lambda _: True)))

    assert needs("plain") == set()
    assert needs("{{ build.id }}$(name)") == set()
    assert needs("{{ components['later'].x | default('') }}") == {"later"}
    assert needs('$(components.#[_component_id="later"].x.#.y)') == {"later"}
    assert needs("{{ components['data'].x }}") == {"data"}
    assert needs("{{ components['d'].x }}") == {"d", "e", "later"}
    assert needs("{{ components['d'].x.deeper[0] }}") == {"d", "e", "later"}
    assert needs("{{ components['d'].own }}") == {"d", "e", "later"}
    assert needs("{{ components['d'].whole }}") == {"d", "later2"}
    assert needs("{{ components['d'].whole.a[0] }}") == {"d", "later2"}
    assert needs("$(components.#[_component_id=d].whole.a.0)") == {"d", "later2"}
    assert needs("{{ components['d']['wh' ~ 'ole'] }}") == {"d", "e", "later", "later2", "no"}
    assert needs("{{ components['loop'].x }}") == {"loop"}
    assert needs("{{ components['bad'].x }}") == {"bad"}
    assert needs("{{ components[component.x].x }}$(components.#.x)$(components.#[name=x].y)") == set()


def test_rendering_twice_gives_the_same_and_changes_nothing() -> None:
    """A template can be rendered again, and what was submitted stays as it is."""
    submitted = change(x={"y": "{{ components['net::a'].tags }}"}, z=["$(name)"])
    before = submitted.raw
    template = compile_change(
        submitted, "b1", templates=Templates.ALL, unresolved=OnUnresolved.ERROR, limits=DEFAULT_LIMITS
    )
    assert template.render(WORLD) == template.render(WORLD)
    assert submitted.raw == before


@pytest.mark.parametrize(
    ("text", "waits"),
    [
        ("{{ components['new'].x }} {{ components['new'].y }}", True),
        ('$(components.#[_component_id="new"].x)', True),
        ("{{ components['new'].x }} {{ components['nobody'].x | default(1) }}", True),
        ("{{ components['new'].x }} {{ components['vpc::a'].n }}", False),
        ("{{ components['new'].x }} {{ components['nobody'].n }}", False),
        ("{{ components['new'].x | default(1) }}", False),
        ("{{ components['web::1'].x }}", False),
        ("{{ components['new'].x }} {{ component.x }}", False),
        ("$(components.#.x)", False),
        ("{{ 1 + 'a' }}", False),
    ],
)
def test_of_what_is_not_there_yet_nothing_is_said(text: str, waits: bool) -> None:
    """Only where every reference that must lead somewhere waits for a change is nothing looked at."""
    template = compiled(x=text, y="{{ components['new'].z }}")
    work = Work()
    assert template.waits_for_all("web::1", {"new", "web::1"}.__contains__, work) is waits
    assert (work.spent > 0) is waits
    if waits:
        assert template.check(WORLD, {"new", "web::1"}.__contains__) == []
        assert not template.waits_for_all("web::1", {"new", "web::1"}.__contains__, Work(100))
    long = compiled(x=text, y="y" * MAX_RENDERED)
    assert not long.waits_for_all("web::1", {"new", "web::1"}.__contains__, work)


def test_what_is_printed_of_a_template_tells_nothing_of_its_values() -> None:
    """They may be secret."""
    template = compiled(x="{{ build.id }}", password="hunter-seven")
    assert "hunter-seven" not in repr([template])
