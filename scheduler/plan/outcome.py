"""The outcome of an attempt: a connector's reply, read, or the reason why there is none."""

from collections.abc import Callable
from typing import Any

import msgspec

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import State
from scheduler.definition.strictjson import decode, encode, kind, refusal
from scheduler.errors import InvalidJSON
from scheduler.runtime.values import Value
from scheduler.text import CUT

_AT, _BACKSLASH = b"@\\"
LONGEST_PAUSE = 86_400.0
"""Longest pause that a connector may ask for, in seconds."""
UNEXPLAINED = "the connector reported an error and did not say why"


class Outcome(Value, frozen=True):
    """The end of an attempt."""

    UNSHOWN = frozenset({"body"})

    completed: bool
    body: dict[str, Any] | None = None
    """Component as the connector returned it; None where nothing of it can be kept."""
    error: str | None = None
    """Reason of the failure; None for a success."""
    retryable: bool = True
    """Whether another attempt may succeed; a connector can say that it will not."""
    retry_after: float | None = None
    """Seconds before which another attempt is useless, according to the connector."""
    has_at: bool = True
    """Whether a text in the body may have an ``@``, which may end the password in a URL."""
    searched: bool = False
    """Whether the secrets in the body are known already. Large parts of it may then be packed."""


def failure(error: str, *, retryable: bool = True) -> Outcome:
    """An attempt that failed without a reply worth keeping."""
    return Outcome(completed=False, error=error, retryable=retryable)


def read_reply(
    data: bytes,
    suffix: str | None,
    limits: Limits = DEFAULT_LIMITS,
    *,
    decode: Callable[[bytes, Limits], Any] = decode,
) -> Outcome | None:
    """Read a connector's reply (WIRE: "Requests and replies").

    Args:
        data: the body of the reply.
        suffix: ``done`` or ``error``, the last token of its subject; None on a reply subject.
        limits: bounds on its JSON.
        decode: function that reads the JSON.

    Returns:
        The outcome; None where the body does not say how the attempt ended. That happens only on a reply
        subject, where the state alone tells.

    Raises:
        InvalidJSON: the body is not an acceptable JSON object.
    """
    if not data:
        msg = "the body is empty"
        raise InvalidJSON(msg)
    value = decode(data, limits)
    if type(value) is not dict:
        msg = f"expected a component, got {kind(value)}"
        raise InvalidJSON(msg)
    state = value.get("_state")
    # A backslash: it may be escaped.
    has_at = _AT in data or _BACKSLASH in data
    # Some connectors publish on `.error` with the state still `running`: the suffix wins.
    if suffix == "error" or state == State.ERRORED:
        error = error_text(value.get("error"), limits) or UNEXPLAINED
        return Outcome(
            completed=False,
            body=value,
            error=error,
            retryable=value.get("retryable") is not False,
            retry_after=_seconds(value.get("retry_after")),
            has_at=has_at,
        )
    if suffix == "done" or state == State.COMPLETED:
        return Outcome(True, value, has_at=has_at)
    return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= LONGEST_PAUSE:
        return None
    return float(value)


class _Head(msgspec.Struct):
    service: Any = None
    component: Any = msgspec.field(name="_component_id", default=None)


_decode_head = msgspec.json.Decoder(_Head).decode


def read_head(data: bytes) -> tuple[str, str] | None:
    """Read the ids of the build and of the component that a reply is about.

    The rest is skipped, not checked: most messages on a shared subject may belong to others.

    Returns:
        Both ids; None where one of them is missing.

    Raises:
        InvalidJSON: the body is not a JSON object.
    """
    try:
        head = _decode_head(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidJSON(refusal(error, data)) from None
    if isinstance(head.service, str) and isinstance(head.component, str):
        return head.service, head.component
    return None


def error_text(error: Any, limits: Limits = DEFAULT_LIMITS) -> str:
    """Return the content of an ``error`` field as text, cut with a mark where it is too long."""
    if error is None:
        return ""
    text = error if isinstance(error, str) else encode(error).decode()
    return cut(text, limits.max_error_bytes)


def cut(text: str, most: int) -> str:
    """Return ``text``; or its beginning and a mark, where it takes more than ``most`` bytes."""
    if len(text) * 4 <= most or len(data := text.encode()) <= most:
        return text
    mark = f"{CUT}{len(data)} bytes)"
    return data[: max(0, most - len(mark))].decode(errors="ignore") + mark
