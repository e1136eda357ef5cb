"""The reply to a request: what the handler returned, or why it failed, as JSON."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from attrs import frozen

from scheduler.connectors.attempts import Attempt, ids_of
from scheduler.connectors.conversion import fields_of, merged
from scheduler.connectors.outcomes import Outcome, Rejected
from scheduler.definition.strictjson import encode

_OF_A_FAILURE: Final = frozenset({"error", "retryable", "retry_after"})
"""Fields that say how an earlier attempt failed, and nothing of this one."""


@frozen
class Reply:
    """A reply that can be sent, and recorded."""

    completed: bool
    body: bytes

    def subject(self, attempt: Attempt) -> str:
        """Return the subject on which it answers an attempt."""
        return attempt.reply or f"{attempt.subject}.{'done' if self.completed else 'error'}"


def completed(result: Any, fields: Mapping[str, Any], attempt: Attempt) -> Reply:
    """Return the reply to a request whose handler returned.

    Args:
        result: value that it returned; None for the component as it was.
        fields: the component as it came.
        attempt: the request.

    Raises:
        Rejected: the value is not what a handler of this action can return, or JSON cannot say it.
    """
    before = _without_failure(fields)
    if result is None:
        document = dict(before)
    elif ".find." in attempt.subject and _is_list(result):
        document = {**before, "components": [_found(one, before, at) for at, one in enumerate(result)]}
    else:
        document = merged(result, before)
    document.update(ids_of(fields, attempt))
    document["_state"] = "completed"
    try:
        return Reply(True, encode(document))
    except (TypeError, ValueError, RecursionError) as error:
        raise Rejected(f"the handler returned what JSON cannot say: {error}") from None


def _without_failure(fields: Mapping[str, Any]) -> Mapping[str, Any]:
    if _OF_A_FAILURE.isdisjoint(fields):
        return fields
    return {key: value for key, value in fields.items() if key not in _OF_A_FAILURE}


def _is_list(result: Any) -> bool:
    return (
        isinstance(result, Iterable)
        and not isinstance(result, str | bytes | Mapping)
        and not hasattr(result, "__struct_fields__")
    )


def _found(element: Any, before: Mapping[str, Any], position: int) -> dict[str, Any]:
    document = fields_of(element)
    identity = document.get("_component_id")
    if not isinstance(identity, str) or not identity:
        raise Rejected(f"the handler's components[{position}] has no _component_id")
    defaults = {name: before[name] for name in ("service", "_component", "_provider") if name in before}
    return {**defaults, "_state": "completed", **document}


def errored(outcome: Outcome, fields: Mapping[str, Any], attempt: Attempt) -> Reply:
    """Return the reply to a request that failed: the component as it came, and the error."""
    return Reply(False, encode({**_without_failure(fields), **ids_of(fields, attempt), **_said(outcome)}))


def bare(outcome: Outcome, fields: Mapping[str, Any], attempt: Attempt) -> Reply:
    """Return the same without the component's other fields, where those are too large to be sent."""
    return Reply(False, encode({**ids_of(fields, attempt), **_said(outcome)}))


def _said(outcome: Outcome) -> dict[str, Any]:
    said: dict[str, Any] = {"_state": "errored", "error": outcome.error}
    if outcome.retryable is False:
        said["retryable"] = False
    elif outcome.retryable and outcome.retry_after is not None:
        said["retry_after"] = outcome.retry_after
    return said
