"""The subject that the reply to a single request comes in on: ``scheduler.reply.<owner>.<provider>.<token>``.

``<owner>`` names the process that sent the request: it hears its own, and whoever takes a build over hears
those of the processes before it. ``<provider>`` is the request's, so that the broker's permissions can keep
connectors apart. ``<token>`` belongs to one attempt, and nobody can guess it, whatever others of its kind he
has seen: it is a hash of the attempt's id under a key of the build that stands in its log alone.
"""

import re
import secrets
from base64 import urlsafe_b64encode
from hashlib import blake2b
from typing import Final, NamedTuple

REPLY: Final = "scheduler.reply."
"""What reply subjects begin with."""
OLD: Final = f"{REPLY}*"
"""The reply subjects of versions before these had an owner."""
EVERY: Final = f"{REPLY}*.*.*"
"""All reply subjects of this form."""

ADDRESS: Final = slice(len(REPLY) + 8, None)
"""What of a reply subject stands behind the owner, whose name has always as many characters: the same under
each owner's name. It begins with a dot, so that it is the provider and the token of nothing else."""

_TOKEN_BYTES = 16
_OWNER_BYTES = 6
_KEY = re.compile(r"[0-9a-f]{32}")


class Address(NamedTuple):
    """What a reply subject consists of; of an old one only the token."""

    owner: str
    provider: str
    token: str


def owner_of(instance: str) -> str:
    """What stands in reply subjects for the process of this name: eight characters, the same for the same."""
    return urlsafe_b64encode(blake2b(instance.encode(), digest_size=_OWNER_BYTES).digest()).decode("ascii")


def interest(owner: str, provider: str = "*") -> str:
    """What the replies to the requests of one process come in on, or those of one provider."""
    return f"{REPLY}{owner}.{provider}.*"


def parse(subject: str) -> Address | None:
    """The parts of a reply subject; None where it is none."""
    parts = subject.split(".")
    if len(parts) == 5:
        _, _, owner, provider, token = parts
        return Address(owner, provider, token)
    return Address("", "", parts[2]) if len(parts) == 3 else None


def draw_key() -> str:
    """A key of 128 bits. A secret: who has it can answer for every connector of the build."""
    return secrets.token_hex(16)


def is_secret(key: str) -> bool:
    """Whether a key is of `draw_key`: that of an earlier version stood in reply subjects, for all to see."""
    return _KEY.fullmatch(key) is not None


class Tokens:
    """The tokens of one key."""

    def __init__(self, key: str) -> None:
        self._hash = blake2b(key=key.encode(), digest_size=_TOKEN_BYTES)

    def of(self, attempt: str) -> str:
        """The token of an attempt: 32 characters; half a microsecond."""
        keyed = self._hash.copy()
        keyed.update(attempt.encode())
        return keyed.hexdigest()


def old_token(key: str, vertex: int, failed: int) -> str:
    """The token of an attempt that a version before these sent: its key, the vertex, how many had failed."""
    return f"{key}-{vertex:x}" + (f"-{failed:x}" if failed else "")
