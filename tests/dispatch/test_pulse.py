"""What a heartbeat says, how much of it is kept, and how often it is looked at."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.dispatch.pulse import Beat, Pulse, read_beat
from scheduler.errors import InvalidJSON


@pytest.mark.parametrize(
    ("data", "beat"),
    [
        (b"{}", Beat()),
        (b'{"progress": 0}', Beat(progress=0.0)),
        (b'{"progress": 1, "other": []}', Beat(progress=1.0)),
        (b'{"instance": "c-7", "message": null}', Beat(instance="c-7")),
    ],
)
def test_every_part_of_a_heartbeat_is_optional(data: bytes, beat: Beat) -> None:
    """What it leaves out is absent, and what is unknown is ignored."""
    assert read_beat(data) == beat


@pytest.mark.parametrize(
    "data",
    [
        b"5",
        b"[]",
        b"{",
        b"\xff",
        b'{"progress": 1.01}',
        b'{"progress": -0.1}',
        b'{"progress": true}',
        b'{"progress": "40"}',
        b'{"instance": 5}',
        b'{"message": ["x"]}',
        b'{"message": "' + b"x" * 5_000 + b'"}',
        b"[" * 4_000,
    ],
)
def test_a_heartbeat_that_cannot_be_read_is_refused(data: bytes) -> None:
    """It is refused with a reason, whatever is wrong with it."""
    with pytest.raises(InvalidJSON, match=r".+"):
        read_beat(data)


@given(
    st.binary(max_size=200) | st.text(max_size=200).map(lambda text: json.dumps({"message": text}).encode())
)
def test_no_bytes_raise_anything_else(data: bytes) -> None:
    """Whatever a connector sends, it is read or refused."""
    try:
        beat = read_beat(data)
    except InvalidJSON:
        return
    assert beat.progress is None or 0 <= beat.progress <= 1


def test_what_a_heartbeat_leaves_out_stays_as_it_was() -> None:
    """A heartbeat without progress does not take back what was said before."""
    pulse = Pulse()
    assert pulse.take(Beat("c-7", 0.4, "attaching"))
    assert not pulse.take(Beat(progress=0.4))
    assert pulse.take(Beat(message="waiting"))
    assert (pulse.instance, pulse.progress, pulse.message) == ("c-7", 0.4, "waiting")


@given(st.text(max_size=2_000), st.text(max_size=500))
def test_what_is_kept_of_a_heartbeat_has_a_bound(message: str, instance: str) -> None:
    """A long message is cut to 1 KiB, between two characters, and a name to 128."""
    pulse = Pulse()
    pulse.take(Beat(instance, None, message))
    assert len(pulse.message.encode()) <= 1_024
    assert message.startswith(pulse.message)
    assert len(pulse.instance) <= 128


@given(st.lists(st.floats(0, 0.5), max_size=80))
def test_at_most_ten_heartbeats_a_second_are_looked_at(pauses: list[float]) -> None:
    """In no second that begins with one that is looked at are there more than twenty, and ten on average."""
    pulse, now, looked = Pulse(), 100.0, []
    for pause in pauses:
        now += pause
        if pulse.beat(now):
            looked.append(now)
        assert pulse.heard == now
    assert len(looked) <= 10 * (1 + int(now - 100))


def test_a_heartbeat_that_is_not_looked_at_counts_as_a_sign_of_life() -> None:
    """More than ten a second keep the connector from being lost, as ten do."""
    pulse = Pulse()
    assert [pulse.beat(5.0) for _ in range(12)] == [True] * 10 + [False] * 2
    assert pulse.heard == 5.0
    assert pulse.beat(6.0)


@pytest.mark.parametrize(
    ("heard", "instance", "text"),
    [
        (None, "", "connector lost: no heartbeat for 30 s (it never sent one)"),
        (1.0, "", "connector lost: no heartbeat for 30 s (it had sent some)"),
        (1.0, "c-\x1b7", "connector lost: no heartbeat for 30 s (the last one from c-\\x1b7)"),
    ],
)
def test_the_loss_of_a_connector_names_it(heard: float | None, instance: str, text: str) -> None:
    """The error says for how long there was no heartbeat, and whose was the last."""
    pulse = Pulse()
    pulse.within, pulse.heard, pulse.instance = 30.0, heard, instance
    assert pulse.loss == text
