"""What a build will do, told before it runs."""

from typing import Any

import pytest
from support.builds import build, change, prepare
from support.previews import previewed

from scheduler.forecast.durations import Durations
from scheduler.forecast.preview import preview


def chain(**fields: Any) -> dict[str, Any]:
    return build(
        change("vpc::a", id=""),
        change("net::a", "update", vpc="{{ components['vpc::a'].id }}"),
        change("net::b", "delete"),
        edges=[("vpc::a", "net::b")],
        **fields,
    )


def test_waves_are_what_can_run_at_a_time() -> None:
    """By the longest chain before them, edges that references imply included."""
    assert previewed(chain()).document()["waves"] == [
        {"n": 1, "components": ["vpc::a"]},
        {"n": 2, "components": ["net::a", "net::b"]},
    ]


def test_actions_and_types_are_counted() -> None:
    """What is created, updated and deleted, and what exists and stays."""
    exists = change("sg::x", "none")
    document = previewed({**chain(), "components": [exists, change("net::a", "none")]}).document()
    assert document["actions"] == {"create": 1, "update": 1, "delete": 1}
    assert document["types"] == {"vpc": 1, "net": 2}
    assert (document["total"], document["completed"], document["untouched"]) == (3, 0, 1)


def test_what_is_completed_is_not_done_again() -> None:
    """It is in no wave, takes no time, and its dependents are in the first wave."""
    document = chain()
    document["changes"][0]["_state"] = "completed"
    seen = previewed(document, vpc=30.0, net=2.0).document()
    assert seen["waves"] == [{"n": 1, "components": ["net::a", "net::b"]}]
    assert (seen["completed"], seen["seconds"]) == (1, 2.0)


def test_the_critical_path_says_where_its_seconds_come_from() -> None:
    """Given, recorded, a default, or nothing where nothing is sent."""
    document = build(
        change("a::1"), change("b::1"), change("c::1"), change("d::1", "none"),
        edges=[("a::1", "b::1"), ("b::1", "d::1"), ("d::1", "c::1")],
    )  # fmt: skip
    durations = Durations([("a.*.*", 2.0)])
    durations.record("b.create.fake", 4.0)
    seen = preview(prepare(document), durations).document()
    assert [(step["id"], step["seconds"], step["source"]) for step in seen["critical_path"]] == [
        ("a::1", 2.0, "given"),
        ("b::1", 4.0, "recorded"),
        ("d::1", 0.0, "none"),
        ("c::1", 4.0, "default"),
    ]
    assert seen["durations"]["c.create.fake"] == {"seconds": 4.0, "source": "default"}


def test_each_limit_says_what_it_costs() -> None:
    """Those of the service and of the build: who waits, what that adds to the critical path, its bound."""
    many = [change(f"vpc::{number}") for number in range(6)]
    document = build(*many, options={"limits": {"vpc.*.*": 2}})
    seen = previewed(document, limits="*=500", cap=100, vpc=10.0).document()
    assert (seen["seconds"], seen["lower_bound"]) == (30.0, 30.0)
    assert seen["limits"] == [
        {"limit": "*=500", "waiting": 0, "seconds": 0.0, "at_least": 0.12},
        {"limit": "vpc.*.*=2", "waiting": 4, "seconds": 20.0, "at_least": 30.0},
        {"limit": "max_in_flight_per_build=100", "waiting": 0, "seconds": 0.0, "at_least": 0.6},
    ]
    assert seen["critical_path"][-1]["limit"] == "vpc.*.*=2"


def test_a_word_of_a_subject_that_is_referred_to_matches_only_any_word() -> None:
    """Which provider it will be nobody knows yet."""
    document = build(change("a::1", _provider="{{ build.where }}"), where="aws")
    assert previewed(document, limits="*.*.aws=1, *.*.*=1").document()["durations"].keys() == {"a.create.?"}
    assert [
        one for one in previewed(document, limits="*.*.aws=1").document()["limits"] if one["at_least"]
    ] == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{{ components['vpc::a'].arn }}", "its definition has no 'arn': a reply must bring it"),
        ("{{ components[build.which].id }}", "which component it means is known only when it is due"),
        ('$(components.#[name="x"].id)', "which component it means is known only when it is due"),
    ],
)
def test_references_that_only_a_reply_can_answer_are_told(text: str, why: str) -> None:
    """What may lead to nothing when it is due."""
    document = build(change("vpc::a", id=""), change("net::a", x=text), which="vpc::a")
    assert previewed(document).document()["unresolved"] == [
        {"component": "net::a", "place": "x", "text": text, "why": why}
    ]


@pytest.mark.parametrize(
    "text",
    [
        "{{ components['vpc::a'].id }}",
        '$(components.#[_component_id="vpc::a"].id)',
        "{{ components['vpc::a'].arn | default('none') }}",
        "{{ build.which }}",
        "{{ component.name }}",
        "{{ components['old'].arn }}",
    ],
)
def test_references_that_are_sure_are_not_mentioned(text: str) -> None:
    """A field that the definition has, one that can be done without, what was submitted."""
    document = build(
        change("vpc::a", id=""),
        change("net::a", x=text, name="n"),
        components=[change("old", "none", arn="arn")],
        which="vpc::a",
    )
    assert previewed(document).document()["unresolved"] == []


def test_what_a_find_brings_is_known_when_it_is_due() -> None:
    """A component of which only a find can know."""
    document = build(
        change("find::all", "find"),
        change("net::a", x="{{ components['vpc::old'].id }}"),
        edges=[("find::all", "net::a")],
    )
    (one,) = previewed(document).document()["unresolved"]
    assert one["why"] == "only a find can supply this component"


def test_what_is_bound_to_fail_is_unreachable_with_all_behind_it() -> None:
    """A change of action none returns nothing: a field that its definition has not will never be there."""
    document = build(
        change("cfg::a", "none"),
        change("net::a", x="{{ components['cfg::a'].cidr }}"),
        change("net::b"),
        change("net::c"),
        edges=[("net::a", "net::b"), ("net::b", "net::c")],
    )
    seen = previewed(document).document()["unreachable"]
    assert [(one["component"], one.get("behind")) for one in seen] == [
        ("net::a", None),
        ("net::b", "net::a"),
        ("net::c", "net::a"),
    ]
    assert seen[0]["why"].startswith("x: ")


def test_a_find_may_yet_save_what_seems_bound_to_fail() -> None:
    """Behind a find nothing is certain."""
    document = build(
        change("cfg::a", "none"),
        change("find::all", "find"),
        change("net::a", x="{{ components['cfg::a'].cidr }}"),
        edges=[("find::all", "net::a")],
    )
    assert previewed(document).document()["unreachable"] == []


def test_what_a_none_has_can_be_referred_to() -> None:
    """Its definition is all that there will be, and is enough."""
    document = build(
        change("cfg::a", "none", cidr="10/8"), change("net::a", x="{{ components['cfg::a'].cidr }}")
    )
    assert previewed(document).document()["unreachable"] == []


CANARY = "canary-Xy7-secret"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("password", "{{ components['vpc::a'].arn ~ '" + CANARY + "' }}"),
        ("password", '$(components.#[name="' + CANARY + '"].id)'),
        ("password", "{{ components['cfg::a']['" + CANARY + "'] }}"),
        ("x", "{{ components['vpc::a']['" + CANARY + "'] }}"),
        ("x", "{{ components['cfg::a'].list[component.token] }}"),
        ("x", "x" * 190 + CANARY + "{{ components['vpc::a'].arn }}"),
    ],
)
def test_a_plan_tells_no_secrets(field: str, text: str) -> None:
    """Neither a known one nor what stands under a secret name, and no part of one where a text is cut."""
    document = build(
        change("vpc::a", id="", token=CANARY),
        change("cfg::a", "none", list={"k": 1}),
        change("net::a", **{"token": CANARY, field: text}),
    )
    seen = previewed(document).document()
    assert seen["unresolved"] or seen["unreachable"]
    assert CANARY[:6] not in str(seen)


def test_a_gate_takes_no_time_and_has_no_subject() -> None:
    """It stands in its wave, and how long a person takes nobody says."""
    value = build(change("a::1"), change("g::1", "approve"), change("z::1"),
                  edges=[("a::1", "g::1"), ("g::1", "z::1")])  # fmt: skip
    seen = previewed(value, a=2.0, z=3.0).document()
    assert [wave["components"] for wave in seen["waves"]] == [["a::1"], ["g::1"], ["z::1"]]
    assert (seen["seconds"], seen["actions"]["approve"]) == (5.0, 1)
    assert list(seen["durations"]) == ["a.create.fake", "z.create.fake"]


def test_the_fields_of_an_approval_are_known() -> None:
    """A reference to one of them is no question; to any other it is."""
    value = build(
        change("g::1", "approve", what="x"),
        change("z::1", by="{{ components['g::1'].approved_by }}", what="{{ components['g::1'].what }}",
               other="{{ components['g::1'].other }}"),
    )  # fmt: skip
    [one] = previewed(value).document()["unresolved"]
    assert (one["place"], one["why"]) == (
        "other",
        "it has no 'other', and its approval brings only approved_by, approved_at, approval_reason",
    )
