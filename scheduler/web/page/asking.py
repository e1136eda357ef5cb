"""Asks the service in this process, as operators ask it over the bus; and others through it.

The same code answers, so a build of another instance is found, and its owner has two seconds to say that it
is there.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, Final

import msgspec
import trio

from scheduler.control.relay import Relayed
from scheduler.control.verbs import Document
from scheduler.definition.strictjson import Raw
from scheduler.errors import BusError, Fenced, Refused, StoreError
from scheduler.runtime.executor import Executor
from scheduler.web.board import Board

DEADLINE: Final = 8.0
"""Seconds for one question."""
_HERE: Final = 8
"""Questions that are answered here at a time."""
_AT_ONCE: Final = 64
"""Questions at a time, with those that wait for other instances: one that hangs has 16 of them at most."""
_MOST_WAITING: Final = 500
"""Questions that wait for their turn."""
_READ_HERE: Final = 32 * 1024
"""Bytes of an answer that is read in the loop."""
OWNER: Final = "page"
"""Owner of the threads' work for the page."""

_decode: Final = msgspec.json.Decoder(dict[str, Any]).decode


class Desk:
    """Place where the page asks.

    Args:
        board: place where the service hangs out what may be used of it.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._turns = trio.CapacityLimiter(_AT_ONCE)
        self._here = trio.CapacityLimiter(_HERE)

    @property
    def executor(self) -> Executor:
        """Executor of work beside the loop."""
        return self._board.executor

    def trouble(self) -> str:
        """Return why builds stand still, or are not taken, here; empty where they are well."""
        return self._board.trouble()

    async def ask(
        self, verb: str, document: Document, user: str = "", *, deadline: float = DEADLINE
    ) -> Document:
        """Return the answer to a question or a command.

        Args:
            verb: what is asked for.
            document: the request.
            user: its sender, where somebody vouches for it.
            deadline: seconds for it.

        Raises:
            Refused: as the control API refuses; ``unavailable`` where it does not answer in time.
        """
        answer = await self._asked(verb, document, user, deadline)
        if isinstance(answer, Relayed):
            return await self._read(answer)
        if isinstance(answer, msgspec.Struct):
            # Without its unset members, and as plain JSON.
            built: Document = msgspec.to_builtins(answer)
            return built
        return await self._plain(answer)

    async def _asked(self, verb: str, document: Document, user: str, deadline: float) -> Any:
        console = self._board.console
        control = None if console is None else console.control
        if console is None or control is None:
            raise Refused("unavailable", self._board.trouble() or "the scheduler starts or stops")
        if self._turns.statistics().tasks_waiting >= _MOST_WAITING:
            raise Refused("unavailable", "too many questions at a time: ask again")
        scope = trio.CancelScope(relative_deadline=deadline)
        console.questions.add(scope)
        try:
            with scope:
                async with self._turns:
                    return await control.ask(verb, document, user, "page", self._here)
            late = f"not done within {deadline:g} s" if console.control is control else "the scheduler stops"
            raise Refused("unavailable", f"{late}; it may be done yet")
        except (StoreError, BusError) as error:
            code = "conflict" if isinstance(error, Fenced) else "unavailable"
            raise Refused(code, str(error)) from None
        finally:
            console.questions.discard(scope)

    async def _read(self, answer: Relayed) -> Document:
        document: Document = await self.beside(len(answer.data), partial(_decode, answer.data))
        error = document.get("error")
        if answer.error:
            said = error if isinstance(error, dict) else {}
            raise Refused(str(said.get("code", "internal")), str(said.get("message", answer.error)))
        return document

    async def _plain(self, answer: Document) -> Document:
        """Return an answer with the parts decoded that are JSON text."""
        texts = {name: bytes(value) for name, value in answer.items() if isinstance(value, Raw)}
        if not texts:
            return answer
        size = sum(map(len, texts.values()))
        read: Document = await self.beside(
            size, lambda: {name: msgspec.json.decode(value) for name, value in texts.items()}
        )
        return answer | read

    async def beside(self, size: int, job: Callable[[], Any]) -> Any:
        """Do work in a thread, or at once where it is small.

        Args:
            size: bytes that it is about.
            job: the work.
        """
        return job() if size <= _READ_HERE else await self.executor.run(OWNER, job, long=True)
