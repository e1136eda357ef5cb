"""A desk of the page whose answers a test chooses, and how long they take; nothing runs in threads."""

from collections.abc import Callable
from typing import Any

import trio
from attrs import define, field

from scheduler.control.verbs import Document
from scheduler.errors import Refused


class Inline:
    """Executor that works at once."""

    async def run(self, _owner: str, job: Callable[[], Any], **_: Any) -> Any:
        """Do the work."""
        await trio.lowlevel.checkpoint()
        return job()


@define
class FakeDesk:
    """Place to ask, with an answer for each verb, and for `VERB all` where all is asked for."""

    answers: dict[str, Document] = field(factory=dict)
    seconds: float = 0.0
    """Seconds that each answer takes."""
    refusal: Refused | None = None
    """What is said instead of answers, where it is not None."""
    executor: Inline = field(factory=Inline)
    asked: list[str] = field(factory=list)

    async def ask(self, verb: str, document: Document) -> Document:
        """Return a copy of the answer for a verb."""
        self.asked.append(verb)
        await trio.sleep(self.seconds)
        if self.refusal is not None:
            # A new one each time: one that was raised keeps the frames that it came through.
            raise Refused(self.refusal.code, str(self.refusal))
        everything = self.answers.get(f"{verb} all") if document.get("all") else None
        return dict(self.answers[verb] if everything is None else everything)

    async def beside(self, _size: int, job: Callable[[], Any]) -> Any:
        """Do work at once."""
        return await self.executor.run("", job)

    def trouble(self) -> str:
        """Return that builds are well."""
        return ""
