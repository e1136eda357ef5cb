"""Meanings of JetStream's error codes: they are known here, and nowhere else.

| meaning | consequence |
|---|---|
| `Meaning.LATER` | nothing can be done now (no leader, no quorum, no resources): ask again, however long |
| `Meaning.AGAIN` | another copy, or another append to the subject, is just being stored: ask again |
| `Meaning.FULL` | the account, or the stream, may store no more: ask again once there is room |
| `Meaning.TOO_LARGE` | no waiting makes it fit: put it elsewhere |
| `Meaning.OTHER_SEQUENCE` | compare-and-set: another writer was faster; nothing was stored |
| `Meaning.NO_STREAM` | there is no such stream |
| `Meaning.NO` | any other refusal |

A file store whose write has failed (because a disk was full or broke) is silent from then on, even after the
disk has recovered: what is published to its stream is not answered, while it can be read as ever. Only a
restart of its server ends that (`STORAGE_FAILED`).

It is unknown whether a message that was refused "for now" has been stored nevertheless: it is read back.
"""

from collections.abc import Mapping
from enum import Enum
from typing import Final

MOST_STORED: Final = 32 * 1024 * 1024
"""Most bytes of a message, with its subject and headers, that the server's file store takes, whatever its
``max_payload``."""


STORAGE_FAILED: Final = (
    "the stream is read, and takes nothing that is written to it: it seems that the broker's storage has"
    " failed (its log says 'write error'). That ends only when the broker is restarted, its disk being well"
)
"""Explanation of a stream in that state."""


class Meaning(Enum):
    """Consequence of an error; see the module's table."""

    LATER = "later"
    AGAIN = "again"
    FULL = "full"
    TOO_LARGE = "too large"
    OTHER_SEQUENCE = "other sequence"
    NO_STREAM = "no stream"
    NO = "no"


_MEANINGS: Final[Mapping[int, Meaning]] = {
    10002: Meaning.FULL,  # resource limits exceeded for account
    10008: Meaning.LATER,  # JetStream system temporarily unavailable: no leader, no quorum
    10009: Meaning.LATER,  # cluster can not handle request: this one is not the leader
    10023: Meaning.LATER,  # insufficient resources
    10028: Meaning.LATER,  # insufficient memory
    10047: Meaning.FULL,  # insufficient storage resources
    10054: Meaning.TOO_LARGE,  # message size exceeds maximum allowed, of the stream
    10059: Meaning.NO_STREAM,
    10071: Meaning.OTHER_SEQUENCE,
    10118: Meaning.LATER,  # stream is offline: its servers are away
    10119: Meaning.LATER,  # consumer is offline
    10158: Meaning.AGAIN,  # duplicate message id is in process: the first copy is being stored
    # Only replicated streams say this: another append is in process, whose sequence is not known yet. It may
    # still be lost, so it has overtaken nothing.
    10164: Meaning.AGAIN,
    10167: Meaning.LATER,  # too many requests
}
_STORE_FAILED: Final = 10077
"""Error of a file store that does not take a message: the description says why."""
_STORE_FAILURES: Final[Mapping[str, Meaning]] = {
    "message too large": Meaning.TOO_LARGE,
    "maximum bytes exceeded": Meaning.FULL,
    "maximum messages exceeded": Meaning.FULL,
}
_UNAVAILABLE: Final = 503


def meaning(code: int, err_code: int, description: str) -> Meaning:
    """Return the meaning of an error.

    Args:
        code: status as in HTTP.
        err_code: the server's own number.
        description: the server's words.
    """
    if err_code == _STORE_FAILED:
        return _STORE_FAILURES.get(description.lower(), Meaning.LATER)
    otherwise = Meaning.LATER if code == _UNAVAILABLE else Meaning.NO
    return _MEANINGS.get(err_code, otherwise)
