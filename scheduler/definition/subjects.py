"""The subject of a request, formed of checked tokens, and its header (WIRE: "Requests and replies").

An unchecked token could forge a message of the system: a `build.create.done` of another build, or a call into
the broker's own interface.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NewType
from urllib.parse import quote

from scheduler.errors import TemplateError

CONTROL: Final = "scheduler.build."
"""Beginning of the subjects for operators' questions and commands."""
EVENTS: Final = "scheduler.event."
"""Beginning of the subjects for the progress of a build; its encoded id follows."""
RESERVED_TYPES: Final = frozenset({"build", "service", "environment", "scheduler"})
RESERVED_PROVIDERS: Final = frozenset({"done", "error", "mapping", "definition", "validation"})

VERBS: Final = ("create", "update", "delete", "get", "find")
"""Second tokens of requests to connectors."""
SUFFIXES: Final = ("done", "error")
"""Last tokens of reports, and of replies on shared subjects."""
_REQUEST_TOKENS: Final = 3
_GATEWAY: Final = "_GR_"
_GATEWAY_TOKENS: Final = 3
"""Tokens before a reply subject that came over a gateway: this one, the cluster and the server."""
_LONGEST_REPLY: Final = 512
_WORD = r"[^\x00-\x20\x7f-\xa0.*>\u2028\u2029\ud800-\udfff]+"
_PLAIN: Final = re.compile(rf"{_WORD}(?:\.{_WORD})*")


def reply_subjects(types: Iterable[str] = ("*",), provider: str = "*") -> tuple[str, ...]:
    """Return the subjects of replies for components of these types, and of this provider.

    They go by verb, and never have a ``>``: a subscription to everything would keep the server from saying
    503.
    """
    return tuple(
        f"{type_}.{verb}.{provider}.{suffix}" for type_ in types for verb in VERBS for suffix in SUFFIXES
    )


REPLY_SUBJECTS: Final = reply_subjects()
"""Subjects of replies for all types."""


def overlap(one: str, other: str) -> bool:
    """Whether a subject exists that matches both patterns; without ``>``."""
    ours, theirs = one.split("."), other.split(".")
    return len(ours) == len(theirs) and all(
        a == b or "*" in (a, b) for a, b in zip(ours, theirs, strict=True)
    )


TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token_problem(name: str, token: str) -> str | None:
    """Return why ``token`` cannot be part of a request's subject; None if it can.

    Args:
        name: the field that it comes from: ``_component`` or ``_provider``.
        token: its value.
    """
    if not TOKEN.fullmatch(token):
        return f"{token[:80]!r} does not match [A-Za-z0-9_-]{{1,64}}"
    if name == "_component":
        reserved = token in RESERVED_TYPES or token.startswith("_")
    else:
        reserved = token in RESERVED_PROVIDERS
    return f"{token!r} is reserved: its subject would be a message of the system" if reserved else None


# At most 2 MB: anything but three short tokens raises, and is not kept.
@lru_cache(maxsize=4_096)
def request_subject(type_: str, action: str, provider: str) -> str:
    """Return the subject of a request.

    Raises:
        TemplateError: a token must not be part of it; the message names the field.
    """
    for name, token in (("_component", type_), ("_provider", provider)):
        problem = token_problem(name, token)
        if problem is not None:
            msg = f"{name}: {problem}"
            raise TemplateError(msg)
    return f"{type_}.{action}.{provider}"


UNANSWERABLE: Final = "a message is ignored: its reply subject could be something else than an answer"
"""Log text for a message that asks for an answer, although `may_be_answered` is false."""


def may_be_answered(reply: str) -> bool:
    """Whether an answer may go to the reply subject of a message: one that cannot be anything else.

    The sender of a message chooses that subject freely, and the answer goes there with the scheduler's
    rights. Refused are the system's own subjects, requests to connectors and their replies, everything that
    begins with ``$`` (JetStream, key-value and object stores, service discovery, the server itself), and
    subjects that cannot be published on. Case counts, as it does for the server.

    Args:
        reply: the reply subject of a message; empty where it has none.
    """
    if not _PLAIN.fullmatch(reply) or len(reply.encode()) > _LONGEST_REPLY:
        return False
    tokens = reply.split(".")
    while tokens[0] == _GATEWAY:
        # Over a gateway the reply subject is preceded by the name of the way back; the server removes that,
        # and publishes on the rest.
        tokens = tokens[_GATEWAY_TOKENS:]
        if not tokens:
            return False
    if tokens[0] in RESERVED_TYPES or tokens[0].startswith("$") or tokens[-1] in SUFFIXES:
        return False
    return not (len(tokens) == _REQUEST_TOKENS and tokens[1] in VERBS)


HeaderValue = NewType("HeaderValue", str)
"""Text that may stand in a header as it is: printable ASCII."""


def attempt_header(attempt: str) -> HeaderValue:
    """Return an attempt id as a header value: percent-encoded where it is not printable ASCII."""
    if attempt.isascii() and attempt.isprintable():
        return HeaderValue(attempt)
    return HeaderValue(quote(attempt, safe=" !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"))
