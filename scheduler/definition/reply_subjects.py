"""The subject of the reply to a single request: ``scheduler.reply.<owner>.<provider>.<token>``.

``<owner>`` names the process that sent the request: it hears its own replies, and a process that takes a
build over hears those of the processes before it. ``<provider>`` is the request's, so that the broker's
permissions can keep connectors apart. ``<token>`` belongs to one attempt, and cannot be guessed from other
tokens: it is a hash of the attempt's id under a key of the build that stands only in its log.

Heartbeats of a request come in on ``scheduler.beat.<owner>.<provider>.<token>``, with the same words.
"""

import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

REPLY: Final = "scheduler.reply."
"""Beginning of reply subjects."""
OLD: Final = f"{REPLY}*"
"""Pattern of reply subjects in versions before they had an owner."""
EVERY: Final = f"{REPLY}*.*.*"
"""Pattern of all reply subjects in this form."""

BEAT: Final = "scheduler.beat."
"""Beginning of the subjects for heartbeats."""
EVERY_BEAT: Final = f"{BEAT}*.*.*"
"""Pattern of all subjects for heartbeats."""

ADDRESS: Final = slice(len(REPLY) + 8, None)
"""Part of a reply subject after the owner, whose name always has the same length: equal under each owner's
name. It begins with a dot, so that no other provider and token give the same."""

BEAT_ADDRESS: Final = slice(len(BEAT) + 8, None)
"""The same part of a subject for heartbeats."""

BEHIND_REPLY: Final = slice(len(REPLY), None)
"""Part of a reply subject that follows `BEAT` in the subject for heartbeats (`beat_subject`)."""

_TOKEN_BYTES = 16
_OWNER_BYTES = 6
_KEY = re.compile(r"[0-9a-f]{32}")


class Address(NamedTuple):
    """Parts of a reply subject; of an old one only the token."""

    owner: str
    provider: str
    token: str


def owner_of(instance: str) -> str:
    """Return the name in reply subjects of a process: eight characters, the same for the same process."""
    return urlsafe_b64encode(blake2b(instance.encode(), digest_size=_OWNER_BYTES).digest()).decode("ascii")


def interest(owner: str, provider: str = "*") -> str:
    """Return the pattern of replies to the requests of one process, or to those for one provider."""
    return f"{REPLY}{owner}.{provider}.*"


def beat_interest(owner: str) -> str:
    """Return the pattern of heartbeats of the requests of one process."""
    return f"{BEAT}{owner}.*.*"


def beat_subject(reply: str) -> str:
    """Return the subject for heartbeats of the request with this reply subject."""
    return BEAT + reply[BEHIND_REPLY]


def parse(subject: str) -> Address | None:
    """Return the parts of a reply subject; None where it is none."""
    parts = subject.split(".")
    if len(parts) == 5:
        _, _, owner, provider, token = parts
        return Address(owner, provider, token)
    return Address("", "", parts[2]) if len(parts) == 3 else None


def draw_key() -> str:
    """Draw a key of 128 bits. It is secret: its holder can answer for every connector of the build."""
    return secrets.token_hex(16)


def is_secret(key: str) -> bool:
    """Whether a key is one of `draw_key`: those of earlier versions stood openly in reply subjects."""
    return _KEY.fullmatch(key) is not None


class Tokens:
    """Tokens under one key."""

    def __init__(self, key: str) -> None:
        self._hash = blake2b(key=key.encode(), digest_size=_TOKEN_BYTES)

    def of(self, attempt: str) -> str:
        """Return the token of an attempt: 32 characters; this takes half a microsecond."""
        keyed = self._hash.copy()
        keyed.update(attempt.encode())
        return keyed.hexdigest()


def old_token(key: str, vertex: int, failed: int) -> str:
    """Return an attempt's token in an earlier version: its key, the vertex, the number of failed attempts."""
    return f"{key}-{vertex:x}" + (f"-{failed:x}" if failed else "")
