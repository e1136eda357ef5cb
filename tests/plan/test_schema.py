"""The JSON Schema of a reply: what fits is understood in full, whatever way it comes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.schemas import Checker

from scheduler.commands.schema import schema_file
from scheduler.definition.strictjson import encode
from scheduler.plan.outcome import read_reply

CHECKER = Checker(json.loads(schema_file("reply").read_text()))
ANY = st.none() | st.booleans() | st.integers(-1, 90_000) | st.sampled_from(["", "a", [], {}, [{}], 0.5])


@pytest.mark.parametrize(
    ("reply", "place"),
    [
        ([], ""),
        ({}, ""),
        ({"_state": "done"}, "_state"),
        ({"_state": "errored", "error": {"code": 5}}, "error"),
        ({"_state": "errored", "retryable": "no"}, "retryable"),
        ({"_state": "errored", "retry_after": "30"}, "retry_after"),
        ({"_state": "errored", "retry_after": 86_401}, "retry_after"),
        ({"_state": "completed", "_component_id": 7}, "_component_id"),
        ({"_state": "completed", "_action": "find", "components": {}}, "components"),
        ({"_state": "completed", "_action": "find", "components": [{}]}, "components[0]"),
        (
            {"_state": "completed", "_action": "find", "components": [{"_component_id": "end"}]},
            "components[0]._component_id",
        ),
    ],
)
def test_a_typical_mistake_is_named_with_its_place(reply: object, place: str) -> None:
    """It is refused, or has no effect."""
    assert CHECKER.place(reply) == place


@pytest.mark.parametrize(
    "reply",
    [
        {"_state": "completed"},
        {
            "_state": "completed",
            "vpc_aws_id": "vpc-1",
            "error": "a warning",
            "_component_id": "a",
            "service": "b",
        },
        {"_state": "errored", "error": "no", "retryable": False},
        {"_state": "errored", "error": None, "retryable": True, "retry_after": 30},
        {"_state": "completed", "_action": "create", "components": "its own"},
        {"_state": "completed", "_action": "find", "components": [{"_component_id": "a", "name": 1}]},
        {"_state": "completed", "_action": "find", "components": None},
    ],
)
def test_a_reply_of_a_connector_fits(reply: dict[str, Any]) -> None:
    """Its own fields are its own."""
    assert CHECKER.fits(reply)


@given(
    st.fixed_dictionaries(
        {"_state": st.sampled_from(["completed", "errored", "running"])},
        optional={"error": ANY, "retryable": ANY, "retry_after": ANY, "name": ANY, "components": ANY},
    )
)
def test_what_fits_is_understood_in_full(reply: dict[str, Any]) -> None:
    """On a reply subject too, where the state alone tells how the attempt ended."""
    if not CHECKER.fits(reply):
        return
    outcome = read_reply(encode(reply), None)
    assert outcome is not None
    assert outcome.completed == (reply["_state"] == "completed")
    assert outcome.body == reply
    if not outcome.completed:
        assert outcome.error
        assert outcome.error == (reply.get("error") or outcome.error)
        assert outcome.retryable == reply.get("retryable", True)
        assert outcome.retry_after == reply.get("retry_after")
