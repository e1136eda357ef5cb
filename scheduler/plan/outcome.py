"""What became of an attempt: a connector's reply, read; or the reason why there is none."""

from collections.abc import Callable
from typing import Any

import msgspec
from attrs import field

from scheduler.definition.limits import DEFAULT_LIMITS, Limits
from scheduler.definition.model import State
from scheduler.definition.strictjson import decode, encode, kind, refusal
from scheduler.errors import InvalidJSON
from scheduler.runtime.values import value
from scheduler.text import CUT

_LONGEST_PAUSE = 86_400.0
"""Seconds that a connector may ask to be left alone."""
UNEXPLAINED = "the connector reported an error and did not say why"


@value
class Outcome:
    """The end of an attempt."""

    completed: bool
    body: dict[str, Any] | None = field(default=None, repr=False)
    """The component as the connector returned it; None where it returned nothing that can be kept."""
    error: str | None = None
    """Why it failed; set where it did."""
    retryable: bool = True
    """Whether another attempt may do better; the connector can say that it will not."""
    retry_after: float | None = None
    """Seconds before which another attempt is of no use, as the connector says."""
    searched: bool = False
    """Whether the secrets in its body are known already; then what is large in it may be packed."""


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
        data: its body.
        suffix: ``done`` or ``error``, the last token of the subject it came on; None on a reply subject.
        limits: bounds on its JSON.
        decode: reads it.

    Returns:
        The outcome, or None where the body does not say how it ended (only on a reply subject, where
        the state alone tells).

    Raises:
        InvalidJSON: the body is not an object that we take.
    """
    if not data:
        msg = "the body is empty"
        raise InvalidJSON(msg)
    value = decode(data, limits)
    if type(value) is not dict:
        msg = f"expected a component, got {kind(value)}"
        raise InvalidJSON(msg)
    state = value.get("_state")
    # Some connectors publish on `.error` with the state still `running`: the suffix wins.
    if suffix == "error" or state == State.ERRORED:
        error = error_text(value.get("error"), limits) or UNEXPLAINED
        return Outcome(
            completed=False,
            body=value,
            error=error,
            retryable=value.get("retryable") is not False,
            retry_after=_seconds(value.get("retry_after")),
        )
    if suffix == "done" or state == State.COMPLETED:
        return Outcome(completed=True, body=value)
    return None


def _seconds(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LONGEST_PAUSE:
        return None
    return float(value)


class _Head(msgspec.Struct):
    service: Any = None
    component: Any = msgspec.field(name="_component_id", default=None)


_decode_head = msgspec.json.Decoder(_Head).decode


def read_head(data: bytes) -> tuple[str, str] | None:
    """The ids of the build and of the component that a reply is about; None where it does not name both.

    The rest is passed over, not checked: most of what comes by on a shared subject may be somebody else's.

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
    """Whatever stands in an ``error`` field as text, cut with a mark where it is too long."""
    if error is None:
        return ""
    text = error if isinstance(error, str) else encode(error).decode()
    return cut(text, limits.max_error_bytes)


def cut(text: str, most: int) -> str:
    """``text``, or its beginning and a mark where it takes more than ``most`` bytes."""
    if len(text) * 4 <= most or len(data := text.encode()) <= most:
        return text
    mark = f"{CUT}{len(data)} bytes)"
    return data[: max(0, most - len(mark))].decode(errors="ignore") + mark
