"""States of components from a snapshot and the events after it."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from scheduler.web.live.table import StateTable, differences, table_of
from scheduler.web.page.answers import LETTERS

IDS = ("a", "b", "c")
INDEX = {"a": 0, "b": 1, "c": 2}


def table(**answer: Any) -> StateTable:
    rows = [{"id": one, "state": "waiting"} for one in IDS]
    return table_of(IDS, INDEX, {"seq": 0, "source": "s", **answer}, rows)


def message(*events: dict[str, Any], source: str = "s", **parts: Any) -> dict[str, Any]:
    return {"source": source, "build": "b1", "events": list(events), **parts}


def moved(component: str, state: str, seq: int, **more: Any) -> dict[str, Any]:
    return {"component": component, "state": state, "seq": seq, "time": 10.0 + seq, **more}


def test_events_move_components() -> None:
    """Their letters, and what is told of them, follow the events."""
    known = table()
    known.apply(message(moved("a", "running", 1), moved("b", "running", 2), counts={"running": 2}))
    known.apply(message(moved("a", "completed", 3), moved("b", "errored", 4, error="no room")))
    assert known.letters == b"cew"
    assert not known.behind
    rows, events = known.take()
    assert dict(rows) == {0: "c", 1: "e"}
    assert [event["seq"] for event in events] == [1, 2, 3, 4]
    status = known.describe({"id": "b1", "seq": 0, "counts": {"waiting": 3}, "now": 5.0})
    assert status["errors"] == [{"id": "b", "index": 1, "error": "no room"}]
    assert status["running"] == []
    assert (status["seq"], status["counts"]) == (4, {"running": 2})
    assert known.take() == ([], [])


def test_what_is_known_already_counts_for_nothing() -> None:
    """A snapshot may overlap with the events that came meanwhile."""
    known = table(seq=5)
    known.apply(message(moved("a", "running", 4), moved("a", "completed", 5)))
    assert known.letters == b"www"
    assert not known.behind


def test_a_gap_is_noticed_and_the_event_counts() -> None:
    """The whole build is needed, and meanwhile what is known is shown."""
    known = table()
    known.apply(message(moved("a", "running", 7)))
    assert known.behind
    assert known.letters == b"rww"


def test_another_process_counts_anew() -> None:
    """Its numbers say nothing here."""
    known = table()
    known.apply(message(moved("a", "completed", 1), source="other"))
    assert known.behind
    assert known.letters == b"www"


def test_a_take_over_needs_the_whole_build() -> None:
    """The new owner may know more than was told."""
    known = table()
    known.apply(message({"event": "taken_over", "seq": 1, "time": 1.0}))
    assert known.behind


def test_a_gate_a_retry_and_a_pause_are_told() -> None:
    """What operators look for first."""
    known = table()
    known.apply(message({"event": "gated", "component": "c", "seq": 1, "time": 1.0}))
    known.apply(message(moved("a", "retrying", 2, error="busy", retry_in=3.0, attempt=1)))
    known.apply(message({"event": "paused", "seq": 3, "time": 1.0}))
    status = known.describe({"seq": 0, "status": "running"})
    assert known.letters == b"ywg"
    assert status["gates"] == ["c"]
    assert status["retrying"] == [{"id": "a", "index": 0, "error": "busy", "retry_at": 15.0}]
    assert status["status"] == "paused"


def test_a_heartbeat_is_shown_with_its_attempt_only() -> None:
    """One of an earlier attempt says nothing of this one."""
    known = table()
    known.apply(message(moved("a", "running", 1, attempt=2)))
    known.apply(message(beats=[{"component": "a", "attempt": 1, "progress": 0.9}]))
    known.apply(message(beats=[{"component": "a", "attempt": 2, "progress": 0.5, "message": "half"}]))
    [running] = known.describe({})["running"]
    assert (running["progress"], running["message"], running["attempt"]) == (0.5, "half", 2)


def test_the_longest_in_flight_come_first_and_are_bounded() -> None:
    """After a restart they are not in the order in which they left."""
    ids = tuple(f"c{number}" for number in range(200))
    index = {one: vertex for vertex, one in enumerate(ids)}
    rows = [{"id": one, "state": "running", "sent": 1_000.0 - vertex} for vertex, one in enumerate(ids)]
    shown = table_of(ids, index, {}, rows).describe({})["running"]
    assert [one["id"] for one in shown] == [f"c{number}" for number in range(199, 149, -1)]


@given(
    st.lists(
        st.one_of(
            st.dictionaries(
                st.sampled_from(["component", "state", "seq", "event", "time", "attempt", "retry_in"]),
                st.one_of(st.sampled_from([*IDS, *LETTERS, "finished", "gated"]), st.integers(), st.none()),
            ),
            st.integers(),
        )
    ),
    st.one_of(st.none(), st.lists(st.integers()), st.dictionaries(st.text(), st.integers())),
)
def test_what_cannot_be_read_is_left_out(events: list[Any], other: Any) -> None:
    """Whatever comes on the subject, the table keeps its form."""
    known = table()
    known.apply({"source": "s", "events": events, "counts": other, "beats": other})
    assert len(known.letters) == len(IDS)
    assert set(known.letters.decode()) <= set(LETTERS.values())
    known.describe({"seq": 0})


def test_only_what_changed_is_told() -> None:
    """A member that is gone is null, and the clock goes with a change."""
    before = {"status": "running", "gated": 1, "now": 1.0, "total": 3}
    assert differences(before, {**before, "now": 2.0}) == {}
    after = {"status": "paused", "now": 2.0, "total": 3}
    assert differences(before, after) == {"status": "paused", "gated": None, "now": 2.0}
