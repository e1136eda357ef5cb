"""Port for posting: what the notifier needs of HTTP."""

from collections.abc import Mapping
from typing import Protocol

from attrs import frozen


@frozen
class Answer:
    """Answer of a receiver."""

    status: int
    retry_after: str = ""
    """Header ``Retry-After``."""


class Poster(Protocol):
    """Port for posting."""

    async def post(self, url: str, headers: Mapping[str, str], body: bytes) -> Answer:
        """Post a body, and return the answer within a deadline of its own.

        Raises:
            NotPosted: no answer came.
        """
