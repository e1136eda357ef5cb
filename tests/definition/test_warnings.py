"""What is valid in a build and was probably meant otherwise."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.builds import Document, build, change, prepare, problems_of

from scheduler.definition.nearly import nearly
from scheduler.definition.secrets.names import MASK
from scheduler.definition.template import Templates

RETRY = {"attempts": 3}


def hints(*changes: Document, templates: Templates = Templates.ALL, **fields: Any) -> list[str]:
    return [str(hint) for hint in prepare(build(*changes, **fields), templates=templates).hints]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("_retries", "_retry"),
        ("_retrys", "_retry"),
        ("_Retry", "_retry"),
        ("__retry", "_retry"),
        ("_rety", "_retry"),
        ("_rtery", "_retry"),
        ("_time_out", "_timeout"),
        ("_timeouts", "_timeout"),
        ("_tiemout", "_timeout"),
        ("_secrets", "_secret"),
        ("_raws", "_raw"),
        ("_sate", "_state"),
    ],
)
def test_fields_that_are_nearly_ours_are_told(name: str, meant: str) -> None:
    """A field of a component whose name is nearly one of ours is named with the one that was meant."""
    lone = change("vpc::a", _state=None, **{name: 1})
    expected = f"vpc::a.{name}: is unknown and has no effect; did you mean '{meant}'?"
    assert hints(lone, change("b", _state=None)) == [expected]


@pytest.mark.parametrize(
    "name",
    [
        "_row",
        "_stage",
        "_type",
        "_uuid",
        "_region",
        "_entry",
        "_time",
        "_retry_policy",
        "retries",
        "time_out",
        "_",
    ],
)
def test_fields_of_others_are_left_alone(name: str) -> None:
    """A name that is not nearly ours, or does not begin with an underscore, is the user's own."""
    assert hints(change("vpc::a", **{name: 1})) == []


def test_what_is_said_twice_is_no_mistake() -> None:
    """Where the field that would be meant is there too, the other is the user's own."""
    assert hints(change("a", _retry=RETRY, _retries=3)) == []


def test_one_mistake_in_many_components_is_one_hint() -> None:
    """The first component is named, and how many others there are; those that exist count too."""
    changes = [change(name, _secrets=["x"]) for name in "bcd"]
    (found,) = hints(change("a"), *changes, components=[change("old", _secrets=["x"])])
    assert found.startswith("b._secrets: ")
    assert found.endswith("did you mean '_secret'? (and in 3 others)")


def test_a_required_field_that_is_misspelt_is_named() -> None:
    """What is refused for a missing field says which one is nearly that."""
    found = problems_of(build(change("a", _provider=None, _provder="aws"), change("b", _action=None)))
    assert found == [
        "changes[0]._provider: required, and it is missing; there is '_provder'",
        "changes[1]._action: required, and it is missing",
    ]


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("on_eror", "on_error"),
        ("onError", "on_error"),
        ("on-error", "on_error"),
        ("max_failure", "max_failures"),
        ("maxfailures", "max_failures"),
        ("limit", "limits"),
        ("retries", "retry"),
    ],
)
def test_options_that_are_nearly_ours_are_told(key: str, meant: str) -> None:
    """A key of ``options`` that is nearly one of ours is named with the one that was meant."""
    expected = f"options.{key}: is unknown and has no effect; did you mean '{meant}'?"
    assert hints(change("a"), options={key: 1}) == [expected]


@pytest.mark.parametrize("reference", ["{{ build.options.limit }}", "$(options.limit)"])
def test_options_that_a_reference_uses_are_the_users(reference: str) -> None:
    """A key that a component refers to is the user's own; so is what is like none of ours."""
    assert hints(change("a", x=reference), options={"limit": 4}) == []
    assert hints(change("a"), options={"region": "x", "size": 4, "time": 3, "": 1}) == []
    assert hints(change("a"), options={"limits": {"*": 5}, "limit": 4}) == []


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("${name}", "$(name)"),
        ("${options.size}", "$(options.size)"),
        ("${options.zones.0.id}", "$(options.zones.0.id)"),
        ("${components.0.name}", "$(components.0.name)"),
        ('${components.#[_component_id="vpc::b"].ip}', '$(components.#[_component_id="vpc::b"].ip)'),
        ('http://${components.#[_component_id="vpc::b"].ip}/', '{{ components["vpc::b"].ip }}'),
    ],
)
def test_references_in_the_form_of_a_shell_are_told(text: str, meant: str) -> None:
    """A ``${ }`` that would be a reference of this build in ``$( )`` is reported with its place."""
    options = {"size": 3, "zones": [{"id": "z"}]}
    (found,) = hints(change("a", x={"y": [text]}), change("vpc::b"), options=options)
    inner = text.removeprefix("http://").removesuffix("/")
    assert found == f"a.x.y[0]: '{inner}' is plain text; did you mean '{meant}'?"


@pytest.mark.parametrize(
    "text",
    [
        "${HOME}",
        "${options.nothing}",
        "${name.x}",
        "${components}",
        '${components.#[_component_id="vpc::c"].ip}',
        "${components.#[}",
        "${name:-x}",
        "echo ${name}",
        "${name}${name}",
        "$${name}",
        "${}",
        "x${components.0.name}",
    ],
)
def test_variables_of_a_shell_are_left_alone(text: str) -> None:
    """What leads to nothing in this build, or stands in a script, is a shell's."""
    assert hints(change("a", x=text), change("vpc::b")) == []


def test_what_is_never_rendered_is_left_alone() -> None:
    """Fields that are raw or completed mean what they say; without expressions texts are left alone."""
    within = 'x${components.#[_component_id="a"].ip}'
    assert hints(change("a", x="${name}", tags={"y": "${name}"}, _raw=["x", "tags.y"])) == []
    assert hints(change("a", x="${name}", _state="completed")) == []
    assert hints(change("a", x=within), templates=Templates.ERNEST) == []
    assert len(hints(change("a", x=within))) == 1


def test_a_hint_shows_no_secret() -> None:
    """Where a secret stands nothing of it is quoted, and one that is known is masked elsewhere."""
    found = hints(
        change("a", password="${name}", note="${options.hush-hush}"),
        change("b", token="hush-hush"),
        options={"hush-hush": 1},
    )
    assert found == [
        "a.password: a reference in ${ } is plain text; did you mean $( )?",
        f"a.note: '${{options.{MASK}}}' is plain text; did you mean '$(options.{MASK})'?",
    ]


def test_hints_are_bounded_and_only_for_what_comes_in() -> None:
    """At most 20 hints are given; a resumed build gets none."""
    document = build(*(change(f"n{number}", x="${name}") for number in range(30)))
    assert len(prepare(document).hints) == 20
    assert prepare(document, resumed=True).hints == ()


@pytest.mark.timeout(20)
def test_a_build_full_of_mistakes_is_looked_at_in_bounded_time() -> None:
    """Very many names and variables without a hint are skipped."""
    names = {f"_x{number}": 1 for number in range(10_000)}
    changes = [change(f"n{number}", x="${components.#[}" * 10_000) for number in range(20)]
    assert hints(change("a", _retry=RETRY, **names), *changes, options=names) == []


@given(st.text("_abc", max_size=8), st.integers(0, 8), st.sampled_from("abcx_"))
def test_one_mistake_is_always_found(name: str, at: int, letter: str) -> None:
    """A letter too many in a name of four and more is seen through; a name is never nearly itself."""
    assert nearly(name, [name]) is None
    if len(name.replace("_", "")) >= 4 and name[:at] + letter + name[at:] != name:
        assert nearly(name[:at] + letter + name[at:], [name]) == name
