"""Reading a connector's reply."""

from typing import Any

import pytest

from scheduler.definition.limits import Limits
from scheduler.definition.strictjson import encode
from scheduler.errors import InvalidJSON
from scheduler.plan.outcome import UNEXPLAINED, Outcome, cut, error_text, failure, read_head, read_reply


@pytest.mark.parametrize(
    ("suffix", "state", "completed"),
    [
        ("done", "completed", True),
        ("done", "running", True),
        ("done", None, True),
        ("done", 5, True),
        ("done", "errored", False),
        ("error", "errored", False),
        ("error", "running", False),
        ("error", "completed", False),
        ("error", None, False),
        (None, "completed", True),
        (None, "errored", False),
        (None, "running", None),
        (None, "waiting", None),
        (None, None, None),
        (None, 5, None),
        (None, ["completed"], None),
        (None, {}, None),
    ],
)
def test_how_an_attempt_ended(suffix: str | None, state: Any, completed: bool | None) -> None:
    """The suffix error and the state errored fail; otherwise the suffix done and the state completed win."""
    outcome = read_reply(encode({"_state": state, "x": 1}), suffix)
    if completed is None:
        assert outcome is None
    else:
        assert outcome is not None
        assert outcome.completed is completed
        assert outcome.body == {"_state": state, "x": 1}
        assert outcome.error == (None if completed else UNEXPLAINED)


@pytest.mark.parametrize("suffix", ["done", "error", None])
@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "the body is empty"),
        (b"[]", "expected a component, got a list"),
        (b"null", "got null"),
        (b'"done"', "got a string"),
        (b"1", "got a number"),
        (b"{", "truncated"),
        (b"done", "malformed"),
        (b'{"x": NaN}', "malformed"),
        (b'{"x": "\xff"}', "not UTF-8"),
        (b'{"x": ' + b"[" * 64 + b"]" * 64 + b"}", "max_depth 64"),
        (b"[" * 100_000, "max_depth 64"),
        (b'{"x": ' + b"1" * 301 + b"}", "max_digits 300"),
    ],
)
def test_bodies_that_cannot_be_read(data: bytes, says: str, suffix: str | None) -> None:
    """A body that is no component raises, whatever it came on."""
    with pytest.raises(InvalidJSON, match=says):
        read_reply(data, suffix)


@pytest.mark.parametrize(
    ("error", "text"),
    [
        ("broken", "broken"),
        ("", UNEXPLAINED),
        (None, UNEXPLAINED),
        ({"code": 5, "why": "ü"}, '{"code":5,"why":"ü"}'),
        (["a", 1], '["a",1]'),
        (7, "7"),
        (False, "false"),
    ],
)
def test_the_text_of_an_error(error: Any, text: str) -> None:
    """Whatever stands in error becomes text; nothing becomes a sentence."""
    outcome = read_reply(encode({"_state": "errored", "error": error}), None)
    assert outcome is not None
    assert outcome.error == text


def test_an_error_beside_success_is_a_warning() -> None:
    """A completed reply may carry an error; it stays in the body."""
    outcome = read_reply(b'{"_state": "completed", "error": "careful"}', None)
    assert outcome is not None
    assert outcome.completed
    assert outcome.error is None
    assert outcome.body == {"_state": "completed", "error": "careful"}


def test_error_texts_are_cut_with_a_mark() -> None:
    """An error of 64 KiB is kept whole; a longer one is cut to that, and says how long it was."""
    most = 64 * 1024
    assert error_text("x" * most) == "x" * most
    for text in ("x" * (most + 1), "é" * most, "\U0001f600" * most, "aé" * most):
        short = error_text(text)
        assert most - 3 <= len(short.encode()) <= most
        kept, mark, size = short.rpartition(" ... (cut: ")
        assert text.startswith(kept)
        assert mark
        assert size == f"{len(text.encode())} bytes)"
    long_object = error_text({"x": "y" * most})
    assert long_object.endswith(f" ... (cut: {most + 8} bytes)")


@pytest.mark.parametrize("most", [0, 1, 5, 30, 100])
def test_cutting_keeps_what_it_can(most: int) -> None:
    """However small the limit, cutting gives the mark, after what there is room for."""
    mark = " ... (cut: 1000 bytes)"
    assert cut("y" * 1_000, most) == "y" * max(0, most - len(mark)) + mark
    assert cut("y" * most, most) == "y" * most


def test_a_failure_has_no_body() -> None:
    """An attempt that failed without a reply has a text and nothing else."""
    one = failure("timed out")
    assert (one.completed, one.body, one.error) == (False, None, "timed out")


def test_limits_are_settings() -> None:
    """Other limits hold for replies as well."""
    limits = Limits(max_depth=2, max_error_bytes=40)
    with pytest.raises(InvalidJSON, match="max_depth 2"):
        read_reply(b'{"a": [[]]}', "done", limits)
    outcome = read_reply(encode({"error": "x" * 100}), "error", limits)
    assert outcome is not None
    assert outcome.error is not None
    assert len(outcome.error) == 40


@pytest.mark.parametrize(
    ("data", "head"),
    [
        (b'{"service": "b", "_component_id": "c", "x": [1, {}]}', ("b", "c")),
        (b'{"_component_id": "c", "service": "b"}', ("b", "c")),
        (b'{"service": "", "_component_id": ""}', ("", "")),
        (b'{"service": "b"}', None),
        (b'{"_component_id": "c"}', None),
        (b"{}", None),
        (b'{"service": 5, "_component_id": "c"}', None),
        (b'{"service": "b", "_component_id": null}', None),
        (b'{"service": ["b"], "_component_id": "c"}', None),
    ],
)
def test_whose_a_reply_is(data: bytes, head: tuple[str, str] | None) -> None:
    """A reply names its build and its component, or belongs to none."""
    assert read_head(data) == head


@pytest.mark.parametrize(
    "data", [b"", b"x", b"[]", b"null", b"1", b'{"service": "\xff"}', b"[" * 100_000, b'{"x":' * 100_000]
)
def test_heads_that_cannot_be_read(data: bytes) -> None:
    """What is no JSON object has no head, and raises."""
    with pytest.raises(InvalidJSON):
        read_head(data)


@pytest.mark.parametrize(
    ("fields", "retryable", "after"),
    [
        ({}, True, None),
        ({"retryable": False}, False, None),
        ({"retryable": True, "retry_after": 5}, True, 5.0),
        ({"retryable": None, "retry_after": 0}, True, 0.0),
        ({"retryable": 0, "retry_after": 86_400}, True, 86_400.0),
        ({"retry_after": 86_400.5}, True, None),
        ({"retry_after": -0.5}, True, None),
        ({"retry_after": "5"}, True, None),
        ({"retry_after": True}, True, None),
        ({"retry_after": None}, True, None),
        ({"retry_after": 10**200}, True, None),
    ],
)
def test_what_a_failure_says_of_another_attempt(
    fields: dict[str, Any], retryable: bool, after: float | None
) -> None:
    """It may say that there is no use, or not before so many seconds; anything else says nothing."""
    outcome = read_reply(encode({"_state": "errored", "error": "no", **fields}), "error")
    assert outcome is not None
    assert (outcome.retryable, outcome.retry_after) == (retryable, after)


def test_a_success_says_nothing_of_another_attempt() -> None:
    """These fields of a completed component are its own."""
    outcome = read_reply(encode({"_state": "completed", "retryable": False, "retry_after": 5}), "done")
    assert outcome is not None
    assert (outcome.completed, outcome.retryable, outcome.retry_after) == (True, True, None)
    assert outcome.body == {"_state": "completed", "retryable": False, "retry_after": 5}


@pytest.mark.parametrize("state", ["completed", "errored"])
def test_an_outcome_tells_whether_its_body_may_have_an_at(state: str) -> None:
    """However that is written: what stands before it may be a password."""
    written = {b"plain": False, b"u:p@h": True, b"u:p\\u0040h": True}
    for text, has_at in written.items():
        outcome = read_reply(b'{"_state":"%b","uri":"%b"}' % (state.encode(), text), None)
        assert outcome is not None
        assert outcome.has_at is has_at


def test_what_is_shown_of_an_outcome_has_no_body() -> None:
    shown = repr(Outcome(True, {"password": "s3cret"}))
    assert "s3cret" not in shown
    assert shown.startswith("Outcome(completed=True, error=None")
