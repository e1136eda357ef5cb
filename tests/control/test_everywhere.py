"""Lists of several instances become one."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.control.everywhere import Page, merge, read_page

ROOMY = 1 << 20


def build(name: str, **fields: Any) -> dict[str, Any]:
    return {"id": name, "status": "running", **fields}


def pages_of(builds: list[str], after: str, limit: int) -> Page:
    """A page as an instance with these builds makes it."""
    known = sorted(one for one in builds if one > after)
    following = known[limit - 1] if len(known) > limit else None
    return Page([build(one) for one in known[:limit]], following)


@given(
    st.lists(
        st.tuples(st.lists(st.text("abc", min_size=1, max_size=3), unique=True), st.integers(1, 5)),
        min_size=1,
        max_size=4,
    ),
    st.integers(1, 5),
    st.integers(1, 200),
)
def test_page_by_page_each_build_of_each_instance_is_listed_once(
    instances: list[tuple[list[str], int]], limit: int, most_bytes: int
) -> None:
    """In the order of their ids, whatever the pages hold, also where one ends early for lack of room."""
    listed: list[str] = []
    after: str | None = ""
    while after is not None:
        merged = merge(
            [pages_of(one, after, min(room, limit)) for one, room in instances],
            limit=limit,
            most_bytes=most_bytes,
        )
        assert len(merged.builds) <= limit
        listed += [one["id"] for one in merged.builds]
        assert merged.next is None or merged.next > after
        after = merged.next
    assert listed == sorted({one for builds, _ in instances for one in builds})


def test_of_two_owners_of_a_build_the_later_one_is_shown() -> None:
    """The other one does not know yet that it was taken over."""
    pages = [Page([build("b", epoch=epoch, owner=owner)]) for epoch, owner in ((2, "new"), (1, "old"))]
    for order in (pages, pages[::-1]):
        [one] = merge(order, limit=9, most_bytes=ROOMY).builds
        assert one["owner"] == "new"


def test_a_build_that_runs_is_no_finished_and_no_quarantined_one() -> None:
    """Its last report, and the fear of another instance, are of before."""
    runs = build("b", epoch=1)
    for other in (build("b", status="done"), build("b", status="quarantined")):
        for order in ([runs, other], [other, runs]):
            assert merge([Page([one]) for one in order], limit=9, most_bytes=ROOMY).builds == [runs]


def test_a_quarantined_build_is_shown_rather_than_its_last_report() -> None:
    """As in the list of one instance."""
    quarantined, done = build("b", status="quarantined"), build("b", status="done")
    for order in ([quarantined, done], [done, quarantined]):
        assert merge([Page([one]) for one in order], limit=9, most_bytes=ROOMY).builds == [quarantined]


def test_a_page_is_bounded_in_bytes() -> None:
    """What has no room is on the next one; one build has room in any case."""
    page = Page([build(name, error="x" * 400) for name in "abc"])
    merged = merge([page], limit=9, most_bytes=1_000)
    assert ([one["id"] for one in merged.builds], merged.next) == (["a", "b"], "b")
    merged = merge([page], limit=9, most_bytes=10)
    assert ([one["id"] for one in merged.builds], merged.next) == (["a"], "a")


def test_what_is_no_list_is_not_read() -> None:
    """Another version, or a refusal, may say anything."""
    for data in (
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"builds": [1]}',
        b'{"builds": [{}]}',
        b'{"builds": [{"id": 1}]}',
    ):
        assert read_page(data) is None
    assert read_page(json.dumps({"builds": [build("b")], "next": None, "more": 1}).encode()) == Page(
        [build("b")], None
    )
