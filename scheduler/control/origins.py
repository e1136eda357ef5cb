"""Origins of questions, and the headers by which one instance tells another of them."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote

from attrs import field, frozen

_OURS: Final = "Scheduler-"
"""Beginning of the headers that are passed on."""
USER_HEADER: Final = "Scheduler-User"
"""Header with the user that the broker vouched for where the question came in."""
SENDER_HEADER: Final = "Scheduler-Sender"
"""Header with the sender of the question, which takes turns with others."""


@frozen
class Origin:
    """Origin of a question."""

    user: str = ""
    """Its sender, where the broker vouches for it (`senders.user_of`)."""
    sender: str = ""
    """Its sender, as far as it can be told apart (`senders.sender_of`)."""
    headers: Mapping[str, str] = field(factory=dict)
    """Headers that are for schedulers."""
    passed: bool = False
    """Whether another instance has passed it on."""

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return sum(len(name) + len(value) for name, value in self.headers.items())

    def passed_on(self) -> dict[str, str]:
        """Return the headers with which a question is passed on."""
        user = {USER_HEADER: quote(self.user)} if self.user else {}
        return {**self.headers, **user, SENDER_HEADER: quote(self.sender)}


def read_origin(user: str, sender: str, headers: Mapping[str, str] | None, *, passed: bool) -> Origin:
    """Return the origin of a question.

    Args:
        user: its sender, where the broker vouches for it here.
        sender: its sender, as it can be told apart here.
        headers: headers of the question.
        passed: whether it came on the subject of this instance, on which only instances publish: what they
            say of its sender holds. Where the broker vouches for a sender, it is none of them.
    """
    ours = {name: value for name, value in (headers or {}).items() if name.startswith(_OURS)}
    told_user, told_sender = ours.pop(USER_HEADER, ""), ours.pop(SENDER_HEADER, "")
    if passed and not user:
        return Origin(unquote(told_user), unquote(told_sender) or sender, ours, passed=True)
    return Origin(user, sender, ours, passed=passed)
