"""Takes in questions and commands of operators, and answers: JSON, or the service error headers of ADR-32.

Commands do not wait behind questions, nor questions that memory answers behind those that read a log. In each
line askers take turns, as far as they can be told apart (`scheduler.dispatch.senders`).
"""

import math
import re
from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from functools import partial
from typing import Final

import trio
from attrs import evolve, field, frozen

from scheduler.bus import Bus, Message
from scheduler.bus.discovery import ServiceEndpoint
from scheduler.control.origins import Origin, read_origin
from scheduler.control.relay import Relay, Relayed
from scheduler.control.verbs import Answer, Document
from scheduler.definition.strictjson import decode, decode_in_pieces, encode
from scheduler.definition.subjects import UNANSWERABLE, may_be_answered
from scheduler.dispatch.senders import RoundRobinQueue, sender_of, user_of
from scheduler.errors import BusError, Fenced, InvalidJSON, MessageTooLarge, Refused, StoreError
from scheduler.runtime.executor import ThreadExecutor
from scheduler.runtime.log_limits import RateLimitedLog

NUMBERS: Final = {
    "invalid": 400,
    "unknown": 404,
    "conflict": 409,
    "expired": 410,
    "internal": 500,
    "unavailable": 503,
}
"""Error numbers by code, as in HTTP, for the header."""
_MOST: Final = 500
"""Questions in a line; one asker gets half of them at most."""
_MOST_BYTES: Final = 64 * 1024 * 1024
"""Bytes of the questions in a line."""
_OVERHEAD: Final = 512
"""Bytes that a question takes besides its content."""
_SHORT: Final = 4 * 1024
"""Bytes up to which a question is looked at before it is put into a line."""
_READ_HERE: Final = 32 * 1024
"""Bytes up to which a question is read in the loop."""
_FLOOD: Final = 2_000
"""Refusals of a verb within a second that make a flood: 30 ms of work."""
_REFUSED: Final = "an operator was refused"
"""Log line of a refusal."""
_TOO_MANY: Final = "too many questions at a time: ask again"
_NOT_FOR_HEADERS: Final = re.compile(r"[^ -~]")
_DEADLINE: Final = 30.0
"""Seconds for one question, from its arrival; only the store or the broker takes longer."""


class QuestionLine(Enum):
    """Line in which a question waits."""

    COMMAND = "changes a build"
    QUICK = "needs only what is in memory"
    SLOW = "reads logs or builds"
    ELSEWHERE = "may be for another instance"


_AT_ONCE: Final = {
    QuestionLine.COMMAND: 20,
    QuestionLine.QUICK: 4,
    QuestionLine.SLOW: 2,
    QuestionLine.ELSEWHERE: 32,
}
"""Questions of a line that are worked on at a time; pages are made one at a time."""


@frozen
class _Question:
    verb: str
    message: Message = field(repr=False)
    came: float
    """Time of arrival, Trio clock."""
    origin: Origin
    elsewhere: bool = False
    """Whether others may have to answer."""

    @property
    def size(self) -> int:
        return len(self.message.data) + len(self.message.reply) + self.origin.size + _OVERHEAD


class Questions:
    """Queues questions and commands, and answers them.

    Args:
        bus: the connection that answers go out on.
        endpoints: counters, by verb.
        pace: the line for a verb and its request, which is empty where it is large or no JSON object.
        answer: the answer to a verb, its request and the user that sent it, empty where the broker does not
            say; raises Refused, StoreError or BusError.
        on_flood: called with a verb of which too many questions come in to refuse each.
        relay: has other instances answer; None where there are none.
    """

    def __init__(
        self,
        bus: Bus,
        endpoints: Mapping[str, ServiceEndpoint],
        pace: Callable[[str, Document], QuestionLine],
        answer: Callable[[str, Document, str], Awaitable[Answer | Document]],
        on_flood: Callable[[str], None] = lambda _: None,
        *,
        relay: Relay | None = None,
    ) -> None:
        self._bus = bus
        self._endpoints = endpoints
        self._pace = pace
        self._give = answer
        self._lines = {pace: RoundRobinQueue[_Question](_MOST, _MOST_BYTES) for pace in QuestionLine}
        # One item for each question in the line, so that a question wakes one worker.
        self._ready = {pace: trio.open_memory_channel[None](math.inf) for pace in QuestionLine}
        self._on_flood = on_flood
        self._relay = relay
        self._too_many: dict[str, tuple[int, int]] = {}
        """Second and number of refusals for being too many, by verb."""
        self._flooding: set[str] = set()
        """Verbs with a flood, until they are listened to again."""
        self._log = RateLimitedLog()

    async def run(self) -> None:
        """Answer; never returns."""
        async with trio.open_nursery() as nursery:
            for pace, workers in _AT_ONCE.items():
                for _ in range(workers):
                    nursery.start_soon(self._work, pace)

    def handler(self, verb: str, *, passed: bool = False) -> Callable[[Message], None]:
        """Return the handler for the questions of one verb; a flood before has ended.

        Args:
            verb: what is asked for.
            passed: whether other instances pass these on.
        """
        self._flooding.discard(verb)

        def take(message: Message) -> None:
            if message.reply and not may_be_answered(message.reply):
                self._log.warning(UNANSWERABLE, subject=message.subject, reply=message.reply[:500])
                self._endpoints[verb].served(0.0, "a reply subject that must not be answered on")
                return
            glance = _glance(message.data)
            user, sender = user_of(message.reply, message.headers), sender_of(message.reply, message.headers)
            origin = read_origin(user, sender, message.headers, passed=passed)
            elsewhere = self._relay is not None and self._relay.concerns(verb, glance, passed=passed)
            kept = Message(message.subject, message.data, message.reply)
            question = _Question(verb, kept, trio.current_time(), origin, elsewhere)
            if not self._queue(question, glance):
                # Of a flood more is on its way: its senders are not answered any more.
                if verb not in self._flooding:
                    self._turn_away(message)
                self._endpoints[verb].served(0.0, _TOO_MANY)
                self._count_refused(verb, int(question.came))

        return take

    def _queue(self, question: _Question, document: Document) -> bool:
        """Put a question into its line; returns whether there is room."""
        line = QuestionLine.ELSEWHERE if question.elsewhere else self._pace(question.verb, document)
        if not self._lines[line].put(question.origin.sender, question, question.size):
            return False
        self._ready[line][0].send_nowait(None)
        return True

    def _turn_away(self, message: Message) -> None:
        """Refuse a question that has no room; cheap, since floods are made of these."""
        if not self._log.leaves_out(_REFUSED):
            self._refuse(message, None, Refused("unavailable", _TOO_MANY))
        elif message.reply:
            self._send(message, _TURNED_AWAY, _TURNED_AWAY_HEADERS)

    def _count_refused(self, verb: str, second: int) -> None:
        before, count = self._too_many.get(verb, (second, 0))
        count = count + 1 if before == second else 1
        self._too_many[verb] = second, count
        if count == _FLOOD:
            self._flooding.add(verb)
            self._on_flood(verb)

    async def _work(self, pace: QuestionLine) -> None:
        async for _ in self._ready[pace][1]:
            question = self._lines[pace].take()
            assert question is not None, "there is one for each item"
            await self._answer(question)
            del question

    async def _answer(self, question: _Question) -> None:
        began = trio.current_time()
        message, verb = question.message, question.verb
        build: str | None = None
        error = ""
        moved = False
        try:
            if began >= question.came + _DEADLINE:
                text = f"too many questions at a time: not looked at within {_DEADLINE:g} s; ask again"
                raise Refused("unavailable", text)  # noqa: TRY301 - one place answers every refusal
            document = await _read_beside(message.data)
            build = document.get("id") if isinstance(document.get("id"), str) else None
            with trio.fail_at(question.came + _DEADLINE):
                answer = await self._answer_of(question, document)
            if answer is None:
                moved = self._queue(evolve(question, elsewhere=False), document)
                if not moved:
                    raise Refused("unavailable", _TOO_MANY)  # noqa: TRY301 - one place answers every refusal
            elif isinstance(answer, Relayed):
                error = answer.error
                if message.reply:
                    self._send(message, answer.data, answer.headers)
            else:
                self._reply(message, answer)
        except Refused as refusal:
            error = str(refusal)
            self._refuse(message, build, refusal)
        except trio.TooSlowError:
            error = f"not done within {_DEADLINE:g} s; it may be done yet"
            self._refuse(message, build, Refused("unavailable", error))
        except (StoreError, BusError) as trouble:
            error = str(trouble)
            code = "conflict" if isinstance(trouble, Fenced) else "unavailable"
            self._refuse(message, build, Refused(code, error))
        except Exception as fault:  # noqa: BLE001 - a bug that this question triggers must cost no other
            self._log.exception("internal error: a question was not answered", verb=verb)
            error = f"internal error in the scheduler ({type(fault).__name__}); see its log"
            self._refuse(message, build, Refused("internal", error))
        finally:
            if not moved:
                self._endpoints[verb].served(trio.current_time() - began, error)

    async def _answer_of(self, question: _Question, document: Document) -> Answer | Document | Relayed | None:
        """Return the answer to a question; None where others had to be asked first, and it is for us."""
        if question.elsewhere and self._relay is not None:
            data = question.message.data
            return await self._relay.answer(question.verb, document, data, question.origin)
        return await self._give(question.verb, document, question.origin.user)

    def _reply(self, message: Message, answer: Answer | Document) -> None:
        if not message.reply:
            return
        try:
            self._bus.publish(message.reply, encode(answer))
        except MessageTooLarge as error:
            text = f"{error}; ask for less at a time (limit)"
            build = answer.get("id") if isinstance(answer, dict) else getattr(answer, "id", None)
            self._refuse(message, build, Refused("invalid", text))
        except BusError as error:
            self._log.warning("an operator was not answered", error=str(error))

    def _refuse(self, message: Message, build: str | None, refusal: Refused) -> None:
        text = str(refusal)[:4_000]
        # That an order came late tells of a broker that hung, or of clocks that are apart.
        log = self._log.warning if refusal.code == "expired" else self._log.info
        log(_REFUSED, subject=message.subject, build=build, code=refusal.code, why=text)
        if message.reply:
            self._send(message, *_refusal(build, refusal.code, text))

    def _send(self, message: Message, body: bytes, headers: Mapping[str, str]) -> None:
        try:
            self._bus.publish(message.reply, body, headers=headers)
        except BusError as error:
            self._log.warning("an operator was not answered", error=str(error))


def _refusal(build: str | None, code: str, text: str) -> tuple[bytes, dict[str, str]]:
    """Return the answer that refuses, and its headers."""
    headers = {
        "Nats-Service-Error": _NOT_FOR_HEADERS.sub("?", text[:500]),
        "Nats-Service-Error-Code": str(NUMBERS[code]),
    }
    return encode({"id": build, "error": {"code": code, "message": text}}), headers


_TURNED_AWAY, _TURNED_AWAY_HEADERS = _refusal(None, "unavailable", _TOO_MANY)


def read_object(data: bytes) -> Document:
    """Read a request; an empty one is an empty object.

    Raises:
        Refused: it is not a JSON object.
    """
    if not data:
        return {}
    try:
        document = decode(data) if len(data) <= _READ_HERE else decode_in_pieces(data)
    except InvalidJSON as error:
        raise Refused("invalid", f"not JSON: {error}") from None
    if not isinstance(document, dict):
        raise Refused("invalid", "a JSON object is required")
    return document


async def _read_beside(data: bytes) -> Document:
    """Read a request as `read_object` does, a large one in a thread."""
    if len(data) <= _READ_HERE:
        return read_object(data)
    return await ThreadExecutor().run("questions", partial(read_object, data), long=True)


def _glance(data: bytes) -> Document:
    if len(data) > _SHORT:
        return {}
    try:
        return read_object(data)
    except Refused:
        return {}
