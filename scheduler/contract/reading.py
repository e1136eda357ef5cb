"""Judges what a connector says: its replies, and its heartbeats."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from attrs import frozen

from scheduler.contract import Verdict
from scheduler.contract.request import UNKNOWN, Request
from scheduler.definition.model import Action
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.strictjson import decode, encode_sorted, kind
from scheduler.errors import InvalidJSON
from scheduler.plan.outcome import read_reply
from scheduler.plan.schema import FoundDocument, ReplyDocument
from scheduler.text import printable

SCHEMA: Final = "`scheduler schema reply` prints what a reply has to be"
_SHOWN: Final = 160
"""Characters of a connector's text that are shown."""
_NAMED: Final = 5
"""Fields that are named of those that differ."""
_LONGEST_NOTE: Final = 1_024
"""Bytes of the text in a heartbeat."""


@frozen
class Reply:
    """Reply that could be read."""

    body: Mapping[str, Any]
    completed: bool
    error: str = ""


class Reading:
    """Reads the replies to requests with these fields, whose secrets no text shows.

    Args:
        fields: the fields of the requests.
    """

    def __init__(self, *fields: Mapping[str, Any]) -> None:
        self._secrets = Secrets()
        for one in fields:
            self._secrets.add(one)

    def shown(self, text: str) -> str:
        """Return a text of the connector as it may be shown: one line, without secrets, and not long."""
        return printable(self._secrets.mask(text, _SHOWN * 8), _SHOWN)

    def read(self, data: bytes, suffix: str | None) -> Reply | str:
        """Read a reply; return what is wrong where the scheduler would fail the component for its form.

        Args:
            data: its body.
            suffix: ``done`` or ``error``, the last token of its subject; None on a reply subject.
        """
        try:
            outcome = read_reply(data, suffix)
        except InvalidJSON as error:
            return f"it cannot be read: {self.shown(str(error))}"
        if outcome is None or outcome.body is None:
            state = decode(data).get("_state")
            return f"its _state is {self.shown(repr(state))}, neither 'completed' nor 'errored'"
        return Reply(outcome.body, outcome.completed, outcome.error or "")


def misfits(body: Mapping[str, Any]) -> str:
    """Return what of a reply does not fit its schema; empty where all does."""
    try:
        msgspec.convert(body, ReplyDocument)
        if body.get("_action") == Action.FIND:
            msgspec.convert(body.get("components"), list[FoundDocument] | None)
    except msgspec.ValidationError as error:
        return printable(str(error).replace("`", ""), _SHOWN)
    return ""


def judge_ids(verdict: Verdict, request: Request, body: Mapping[str, Any], *, shared: bool) -> None:
    """Check whether a reply repeats the ids of its request.

    Args:
        verdict: where the result goes.
        request: the request.
        body: the reply.
        shared: whether it came on a subject that all replies of this connector share.
    """
    wrong = [name for name, value in request.ids.items() if name in body and body[name] != value]
    missing = [name for name in request.ids if name not in body]
    lost = {"service", "_component_id"}.intersection(missing) if shared else set()
    cure = "begin a reply with all fields of the request, then change what is new"
    if wrong:
        verdict.failed("ids", f"changed: {', '.join(wrong)}", cure)
    elif lost:
        names = ", ".join(name for name in missing if name in lost)
        verdict.failed(
            "ids", f"missing: {names}; on a shared subject nothing else says what it is about", cure
        )
    elif missing:
        verdict.warned(
            "ids", f"missing: {', '.join(missing)}; the reply subject alone tells what it is about", cure
        )
    else:
        verdict.passed("ids", f"it repeats {', '.join(request.ids)}")


def judge_fields(verdict: Verdict, request: Request, body: Mapping[str, Any]) -> None:
    """Check whether a reply keeps the fields of its request that the connector does not know."""
    lost = [name for name in decode(request.body) if name not in body]
    cure = "return all fields of the request: what the reply does not have, the build loses"
    name, value = UNKNOWN
    if lost:
        verdict.warned("fields", f"the reply lacks {_names(lost)}", cure)
    elif body[name] != value:
        verdict.warned("fields", f"it changed {name}, which it cannot know", cure)
    else:
        verdict.passed("fields", "it keeps what it does not know")


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Return the names of the fields in which two replies differ; empty where they are the same JSON."""
    return _names(
        [
            name
            for name in {**one, **other}
            if (name in one) is not (name in other)
            # As JSON: true is not 1, and the order of members does not count.
            or encode_sorted(one[name]) != encode_sorted(other[name])
        ]
    )


def _names(names: list[str]) -> str:
    shown = ", ".join(printable(name, 40) for name in names[:_NAMED])
    return shown + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def beat_problem(data: bytes) -> str:
    """Return what is wrong with a heartbeat; empty where nothing is."""
    if not data:
        return ""
    try:
        body = decode(data)
    except InvalidJSON as error:
        return f"not JSON: {printable(str(error), _SHOWN)}"
    if not isinstance(body, dict):
        return f"{kind(body)} in place of an object"
    progress, message = body.get("progress"), body.get("message")
    if "progress" in body and (
        isinstance(progress, bool) or not isinstance(progress, int | float) or not 0 <= progress <= 1
    ):
        return "progress is no number from 0 to 1"
    for name in ("instance", "message"):
        if name in body and not isinstance(body[name], str):
            return f"{name} is {kind(body[name])} in place of a text"
    if isinstance(message, str) and len(message.encode()) > _LONGEST_NOTE:
        return f"its message is longer than {_LONGEST_NOTE} bytes"
    return ""
