"""Trace context of a message: the headers ``traceparent`` and ``tracestate``, by W3C Trace Context.

Names of headers are read in any case, and written in lower case: NATS tells the cases apart, and the W3C does
not. A context that cannot be read counts as none, as the W3C wants it: no build is refused for its trace.
https://www.w3.org/TR/trace-context-2/
"""

import re
from collections.abc import Mapping
from typing import Final

from scheduler.definition.subjects import HeaderValue
from scheduler.runtime.values import Value

TRACEPARENT: Final = "traceparent"
"""Header with version, trace, span and flags."""
TRACESTATE: Final = "tracestate"
"""Header with what the tracing systems on the way have to say to each other; passed on as it came."""
SAMPLED: Final = 0x01
"""Flag of a trace whose spans are to be sent to a collector."""
_KNOWN_FLAGS: Final = SAMPLED | 0x02
"""Flags that are passed on: the second one says that the trace id is random."""
_FORM: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_BLANKS: Final = " \t"
_LONGEST_PARENT: Final = 512
"""Characters of a ``traceparent`` that are looked at; a later version may have more than the 55 of today."""
_MOST_READ: Final = 8 * 1024
"""Characters of a ``tracestate`` that is looked at."""
MOST_STATE: Final = 512
"""Characters of a ``tracestate`` that are passed on: what the W3C asks for at least."""
_MOST_MEMBERS: Final = 32
_LONG_MEMBER: Final = 128
"""Characters of a member from which on it is the first to be left out."""
_MEMBER: Final = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]"
)


class TraceContext(Value, frozen=True):
    """Place in a trace: the span that what follows hangs below."""

    trace: str
    """Id of the trace: 32 hexadecimal digits."""
    span: str
    """Id of the span: 16 hexadecimal digits."""
    flags: int = 0
    state: str = ""
    """Value of ``tracestate``; empty where there is none."""

    @property
    def sampled(self) -> bool:
        """Whether spans of the trace are to be sent to a collector."""
        return bool(self.flags & SAMPLED)

    @property
    def traceparent(self) -> HeaderValue:
        """Value of the header ``traceparent``."""
        return HeaderValue(f"00-{self.trace}-{self.span}-{self.flags:02x}")

    def headers(self) -> dict[str, str]:
        """Return the headers of a message in this place."""
        headers: dict[str, str] = {TRACEPARENT: self.traceparent}
        if self.state:
            headers[TRACESTATE] = self.state
        return headers


def read_context(headers: Mapping[str, str] | None) -> TraceContext | None:
    """Read the trace context of a message; None where it has none, or one that is not valid."""
    if not headers or (parent := _find(headers, TRACEPARENT)) is None:
        return None
    return parse_context(parent, _find(headers, TRACESTATE) or "")


def _find(headers: Mapping[str, str], name: str) -> str | None:
    """Return the value of a header, in whatever case its name is written."""
    found = headers.get(name)
    if found is not None:
        return found
    length = len(name)
    return next((value for key, value in headers.items() if len(key) == length and key.lower() == name), None)


def parse_context(parent: str, state: str = "") -> TraceContext | None:
    """Read the values of ``traceparent`` and ``tracestate``; None where the former is not valid."""
    found = _FORM.fullmatch(parent.strip(_BLANKS)) if len(parent) <= _LONGEST_PARENT else None
    if found is None:
        return None
    version, trace, span, flags, more = found.groups()
    if version == "ff" or (version == "00" and more is not None) or not (int(trace, 16) and int(span, 16)):
        return None
    return TraceContext(trace, span, int(flags, 16) & _KNOWN_FLAGS, read_state(state) if state else "")


def read_state(value: str) -> str:
    """Return a ``tracestate`` as it is passed on: empty where it is not valid, shorter where it is too long.

    Of one that is too long, members of more than 128 characters are left out first, then the last ones: those
    of the systems that had the trace longest ago.
    """
    if len(value) > _MOST_READ:
        return ""
    members = [member for part in value.split(",") if (member := part.strip(_BLANKS))]
    keys = {member.partition("=")[0] for member in members}
    if len(members) > _MOST_MEMBERS or len(keys) < len(members) or not all(map(_MEMBER.fullmatch, members)):
        return ""
    for rank in reversed([rank for rank, member in enumerate(members) if len(member) > _LONG_MEMBER]):
        if _length(members) > MOST_STATE:
            del members[rank]
    while _length(members) > MOST_STATE:
        members.pop()
    return ",".join(members)


def _length(members: list[str]) -> int:
    return sum(map(len, members)) + len(members) - 1
