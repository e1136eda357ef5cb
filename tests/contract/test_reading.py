"""What a connector says is judged as the scheduler would take it."""

import json
from typing import Any

import pytest

from scheduler.contract import Result, Verdict
from scheduler.contract.reading import (
    Reading,
    Reply,
    beat_problem,
    differences,
    judge_fields,
    judge_ids,
    misfits,
)
from scheduler.contract.request import UNKNOWN, Request, Requests, Target
from scheduler.errors import InvalidSettings


def request() -> Request:
    return Requests(Target.of("vpc.create.aws")).first("1", {"cidr": "10.0.0.0/16"})


def sent(**changes: Any) -> dict[str, Any]:
    """The body of that request as its reply, changed."""
    body = {**json.loads(REQUEST.body), "_state": "completed", **changes}
    return {name: value for name, value in body.items() if value is not None}


REQUEST = request()


@pytest.mark.parametrize(
    ("subject", "words"),
    [
        ("vpc.create", "no subject of requests"),
        ("vpc.create.aws.done", "no subject of requests"),
        ("vpc.explode.aws", "'explode' is no action"),
        ("vpc.none.aws", "'none' is no action"),
        ("build.create.aws", "'build' is reserved"),
        ("vpc.create.done", "'done' is reserved"),
        ("*.create.aws", "does not match"),
    ],
)
def test_a_subject_that_no_request_has_is_refused(subject: str, words: str) -> None:
    """With the token that is wrong."""
    with pytest.raises(InvalidSettings, match=words.replace("*", r"\*")):
        Target.of(subject)


def test_a_request_has_the_headers_and_ids_of_a_schedulers() -> None:
    """The second attempt has the same key, and another id, reply subject and subject of heartbeats."""
    requests = Requests(Target.of("vpc.create.aws"))
    first = requests.first("1", {"service": "mine", "cidr": "10.0.0.0/16"}, within=2.0)
    second = requests.next(first)
    assert json.loads(first.body) == {
        "cidr": "10.0.0.0/16",
        UNKNOWN[0]: UNKNOWN[1],
        "service": requests.build,
        "_component_id": "vpc::1",
        "_component": "vpc",
        "_action": "create",
        "_provider": "aws",
        "_state": "running",
    }
    tail = first.reply.removeprefix("scheduler.reply.")
    assert first.headers == {
        "Nats-Msg-Id": f"{requests.build}/vpc::1/1",
        "Scheduler-Component-Key": f"{requests.build}/vpc::1",
        "Scheduler-Heartbeat": f"scheduler.beat.{tail}",
        "Scheduler-Heartbeat-Within": "2",
    }
    assert second.key == first.key
    assert second.body == first.body
    assert len({first.attempt, second.attempt, first.reply, second.reply, first.beat, second.beat}) == 6


@pytest.mark.parametrize(
    ("data", "suffix", "words"),
    [
        (b"", None, "it cannot be read: the body is empty"),
        (b"[]", None, "it cannot be read: expected a component, got a list"),
        (b"{", None, "it cannot be read: "),
        (b'{"_state": "running"}', None, "its _state is 'running', neither 'completed' nor 'errored'"),
        (b"{}", None, "its _state is None, neither 'completed' nor 'errored'"),
    ],
)
def test_a_reply_that_fails_a_component_by_its_form_is_said_to(
    data: bytes, suffix: str | None, words: str
) -> None:
    """In one line."""
    found = Reading().read(data, suffix)
    assert isinstance(found, str)
    assert found.startswith(words)


@pytest.mark.parametrize(
    ("data", "suffix", "completed", "error"),
    [
        (b'{"_state": "completed"}', None, True, ""),
        (b'{"_state": "running"}', "done", True, ""),
        (b'{"_state": "running", "error": "quota"}', "error", False, "quota"),
        (b'{"_state": "errored", "error": "quota"}', None, False, "quota"),
    ],
)
def test_a_reply_counts_as_it_does_for_the_scheduler(
    data: bytes, suffix: str | None, completed: bool, error: str
) -> None:
    """The last token of a shared subject goes before the state."""
    assert Reading().read(data, suffix) == Reply(json.loads(data), completed, error)


def test_a_text_of_the_connector_shows_no_secret_and_no_control_character() -> None:
    """Secrets are those of the component that was sent."""
    shown = Reading({"password": "hunter2hunter2"}).shown("no \x1b[2J such user: hunter2hunter2" + "." * 500)
    assert "hunter2" not in shown
    assert "\x1b" not in shown
    assert len(shown) < 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, ""),
        ({"retry_after": 30}, ""),
        ({"retryable": "no"}, "retryable"),
        ({"retry_after": -1}, "retry_after"),
        ({"error": ["quota"]}, "error"),
        ({"_state": "running"}, "running"),
        ({"_action": "find", "components": [{"_component_id": "vpc::1"}]}, ""),
        ({"_action": "find"}, ""),
        ({"_action": "find", "components": [{}]}, "_component_id"),
        ({"components": [{}]}, ""),
    ],
)
def test_a_reply_that_is_laxer_than_its_schema_is_noticed(changes: dict[str, Any], words: str) -> None:
    """The member that does not fit is named; `components` is only a `find`'s."""
    found = misfits(sent(**changes))
    assert words in found
    assert bool(found) == bool(words)


@pytest.mark.parametrize(
    ("changes", "shared", "result", "words"),
    [
        ({}, True, Result.PASSED, "it repeats service, _component_id"),
        ({"service": "other"}, False, Result.FAILED, "changed: service"),
        ({"service": None}, True, Result.FAILED, "missing: service; on a shared subject"),
        ({"service": None}, False, Result.WARNING, "missing: service; the reply subject alone"),
        ({"_provider": None}, True, Result.WARNING, "missing: _provider"),
    ],
)
def test_the_ids_of_a_reply_are_compared(
    changes: dict[str, Any], shared: bool, result: Result, words: str
) -> None:
    """On a shared subject, service and _component_id are all that names the component."""
    verdict = Verdict("vpc.create.aws", "b")
    judge_ids(verdict, REQUEST, sent(**changes), shared=shared)
    (check,) = verdict.checks
    assert check.result == result
    assert words in check.seen


@pytest.mark.parametrize(
    ("changes", "result", "words"),
    [
        ({"vpc_aws_id": "vpc-1"}, Result.PASSED, "it keeps"),
        ({UNKNOWN[0]: None, "cidr": None}, Result.WARNING, "the reply lacks cidr, check_connector"),
        ({UNKNOWN[0]: "other"}, Result.WARNING, "it changed check_connector"),
    ],
)
def test_fields_that_a_reply_loses_are_a_warning(changes: dict[str, Any], result: Result, words: str) -> None:
    """Typed structs lose what they do not know."""
    verdict = Verdict("vpc.create.aws", "b")
    judge_fields(verdict, REQUEST, sent(**changes))
    (check,) = verdict.checks
    assert check.result == result
    assert words in check.seen


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"a": 1, "b": {"x": 1, "y": 2}}, {"b": {"y": 2, "x": 1}, "a": 1}, ""),
        ({"a": 1}, {"a": True}, "a"),
        ({"a": 1}, {}, "a"),
        ({}, {"a": None}, "a"),
        ({"a": [1, 2]}, {"a": [2, 1]}, "a"),
        ({str(n): 1 for n in range(8)}, {str(n): 2 for n in range(8)}, "0, 1, 2, 3, 4 and 3 more"),
    ],
)
def test_replies_are_compared_as_json(one: dict[str, Any], other: dict[str, Any], names: str) -> None:
    """Fields are named, and their values are not: they may be secrets."""
    assert differences(one, other) == names


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", ""),
        (b"{}", ""),
        (b'{"instance": "a", "progress": 0.4, "message": "attaching", "other": 1}', ""),
        (b'{"progress": 1}', ""),
        (b"beat", "not JSON"),
        (b"[]", "a list in place of an object"),
        (b'{"progress": 40}', "progress is no number from 0 to 1"),
        (b'{"progress": true}', "progress is no number from 0 to 1"),
        (b'{"message": 1}', "message is a number in place of a text"),
        (b'{"message": "%s"}' % (b"x" * 1_025), "its message is longer than 1024 bytes"),
    ],
)
def test_a_heartbeat_is_empty_or_an_object_of_known_members(data: bytes, words: str) -> None:
    """Any other is named with what is wrong."""
    found = beat_problem(data)
    assert found.startswith(words)
    assert bool(found) == bool(words)
