"""Words of the instances among each other about a build that one passes on to another.

The request is the build as it came in, with headers. Its first answer is empty: the other instance has it.
The last one is what the sender of the build is told, with the load of the instance in a header.
"""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

import msgspec

from scheduler.bus import Message
from scheduler.errors import InvalidBuild
from scheduler.fleet.placing import Report
from scheduler.runtime.values import Value
from scheduler.supervision.refusals import refused
from scheduler.tracing.context import TraceContext, read_context

SUBMIT: Final = "submit"
"""Last word of the subject on which an instance takes builds that others pass on to it."""
INTAKE_HEADER: Final = "Scheduler-Intake"
"""Header: subject on which the build came in."""
SENDER_HEADER: Final = "Scheduler-Sender"
"""Header: its sender (`senders.sender_of`), percent-encoded."""
EXPIRES_HEADER: Final = "Scheduler-Expires"
"""Header: time after which it is not taken any more, in seconds since 1970, by the sending instance."""
LOAD_HEADER: Final = "Scheduler-Load"
"""Header of an answer: number of renewals of the lease there, and of active components."""
ELSEWHERE: Final = frozenset({"busy", "shutting_down"})
"""Codes of refusals that have nothing to do with the build: another instance may take it."""


class Headers(Value, frozen=True):
    """Headers of a build that is passed on."""

    intake: str
    """Subject on which it came in."""
    sender: str
    """Its sender (`senders.sender_of`)."""
    expires: float
    """Time after which it is not taken any more, in seconds since 1970."""
    context: TraceContext | None = None
    """Trace context that it came with; None where there is none."""

    def encode(self) -> dict[str, str]:
        """Return them as they are sent."""
        traced = {} if self.context is None else self.context.headers()
        return {
            INTAKE_HEADER: self.intake,
            SENDER_HEADER: quote(self.sender, safe=" "),
            EXPIRES_HEADER: f"{self.expires:.3f}",
            **traced,
        }


def read_headers(message: Message) -> Headers | None:
    """Return the headers of a build that was passed on; None where they are none."""
    headers = message.headers or {}
    try:
        return Headers(
            headers[INTAKE_HEADER],
            unquote(headers.get(SENDER_HEADER, "")),
            float(headers.get(EXPIRES_HEADER, "")),
            read_context(headers),
        )
    except (KeyError, ValueError):
        return None


def load_header(report: Report) -> Mapping[str, str]:
    """Return the header of an answer that tells the load."""
    return {LOAD_HEADER: f"{report.count} {report.components}"}


class _Error(msgspec.Struct):
    code: str
    message: str = ""


class Answer(msgspec.Struct):
    """Answer of another instance to a build, as it is given to the sender."""

    status: str
    error: _Error | None = None
    data: bytes = b""
    """All of it."""

    @property
    def refusal(self) -> InvalidBuild | None:
        """Refusal of the build; None where it is accepted."""
        return None if self.error is None else refused(self.error.code, self.error.message)


_decode: Final = msgspec.json.Decoder(Answer).decode


def read_report(message: Message) -> Report | None:
    """Return the load that an answer tells; None where it tells none."""
    try:
        renewals, _, components = (message.headers or {}).get(LOAD_HEADER, "").partition(" ")
        return Report(int(renewals), int(components))
    except ValueError:
        return None


def read_answer(message: Message) -> Answer | None:
    """Read an answer; None where it is none."""
    try:
        answer = _decode(message.data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    answer.data = message.data
    return answer if (answer.status == "accepted") is (answer.error is None) else None
