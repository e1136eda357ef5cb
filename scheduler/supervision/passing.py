"""Passing builds on to the instance of the fleet where they fit best, and taking those of others.

A build is passed on as it came, with its intake subject and its sender in headers. The other instance says at
once that it has it, then what became of it; whoever got the build from its sender gives that answer to them.
Until then it keeps the build. Where nothing is said, or the other one goes, it takes the build itself: if
both do, the first record of the log decides, and the other one finds the same build accepted.

What was passed on is never passed on again. A message that was long under way is refused: by then the build
may have been taken elsewhere, have ended, and have been forgotten.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from functools import partial
from itertools import count
from sys import intern
from typing import Final

import trio
from attrs import define, field

from scheduler.bus import Bus, Message, Subscription
from scheduler.definition.subjects import may_be_answered
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, InvalidBuild
from scheduler.fleet.fleet import INSTANCE, Fleet
from scheduler.fleet.lease import Member
from scheduler.fleet.placing import HERE, Candidate, Placing, Report, estimate
from scheduler.runtime.log_limits import RateLimitedLog
from scheduler.runtime.logger import Logger
from scheduler.supervision.intake import SUBJECTS, Passed, Receipts
from scheduler.supervision.passing_wire import (
    ELSEWHERE,
    SUBMIT,
    Answer,
    Headers,
    load_header,
    read_answer,
    read_headers,
    read_report,
)
from scheduler.supervision.refusals import refused, shutting_down
from scheduler.tracing.context import read_context

_PATIENCE: Final = 2.0
"""Seconds for the other instance to say that it has the build."""
_LONGEST: Final = 150.0
"""Seconds for its answer after that: it may have to read a large one, and its store may be away."""
_LOOK: Final = 0.5
"""Seconds between two looks whether that instance, and the connection, are still there."""
_EXPIRY: Final = 10.0
"""Seconds for which a build may be under way."""
_REFRESH: Final = 0.2
"""Seconds for which the leases of others are not looked at again."""
_RECOUNT: Final = 1.0
"""Seconds for which what is active here is not counted again: that goes through all builds."""
_MOST_TRIES: Final = 3
"""Instances that are asked to take a build, this one included, after the first."""
_MOST: Final = 600
"""Builds that wait for answers of others at a time; beyond that they stay here."""
_MOST_BYTES: Final = 128 * 1024 * 1024
"""Size of these, in bytes."""

log = Logger()


@define(eq=False)
class _Waiting:
    """Build that was passed on and has no answer yet."""

    moved: trio.Event = field(factory=trio.Event)
    taken: bool = False
    """Whether the other instance has it."""
    answer: Message | None = None


class Passing:
    """Passes builds on, and takes those of others; does nothing without other instances.

    Args:
        fleet: other instances.
        bus: connection for what is passed on, and the answers.
        is_unfinished: returns whether any instance has a build of this id that is not reported.
    """

    def __init__(self, fleet: Fleet, bus: Bus, is_unfinished: Callable[[str], Awaitable[bool]]) -> None:
        self._fleet = fleet
        self._bus = bus
        self._is_unfinished = is_unfinished
        self._placing = Placing()
        self._inbox = bus.new_inbox()
        self._numbers = count(1)
        self._waiting: dict[str, _Waiting] = {}
        """Builds that were passed on, by the subject for answers."""
        self._waiting_bytes = 0
        self._active = 0
        """Components that were active here at the last count, and those of the builds taken since."""
        self._counted = self._looked = float("-inf")
        self._log = RateLimitedLog(log)

    @property
    def shares(self) -> bool:
        """Whether there is another instance."""
        return len(self._fleet.owners()) > 1

    async def listen(
        self, bus: Bus, receipts: Receipts, admit: Callable[[Passed, str], None]
    ) -> Subscription:
        """Take builds of other instances from now on.

        Args:
            bus: connection on which builds come in.
            receipts: answers those that come too late.
            admit: callback with each other one, and its sender: puts it into the queue, or refuses it;
                synchronous, must not raise.

        Raises:
            BusError: a subscription could not be made.
        """
        await self._bus.subscribe(f"{self._inbox}.*", self._on_answer)
        handler = partial(self._on_passed, receipts=receipts, admit=admit)
        return await bus.subscribe(f"{self._fleet.subject}{SUBMIT}", handler)

    # ---- where a build goes

    async def place(
        self, message: Message, sender: str, begin: Callable[[], Awaitable[None]]
    ) -> Answer | None:
        """Begin a build where it fits best, here or at another instance.

        Args:
            message: the build as it came in.
            sender: its sender.
            begin: begins the build here, and answers it.

        Returns:
            Answer of the instance that it was passed on to; None where it has begun here.

        Raises:
            InvalidBuild: the refusal, where it cannot be begun here nor anywhere else.
        """
        size, components = len(message.data), estimate(message.data)
        tried: set[str] = set()
        refusal = shutting_down()
        while (key := self._choose(size, tried)) is not None or HERE not in tried:
            tried.add(key or HERE)
            if key:
                answer = await self._pass_on(key, message, sender, components)
                if answer is None:
                    continue
                if answer.refusal is None or answer.refusal.code not in ELSEWHERE:
                    return answer
                refusal = answer.refusal
            else:
                try:
                    await self.take(message, begin)
                except InvalidBuild as error:
                    if error.code not in ELSEWHERE:
                        raise
                    # A new error: the old one, with its traceback, would refer to this frame.
                    refusal = InvalidBuild(error.code, error.problems)
                else:
                    return None
        raise refusal

    async def take(self, message: Message, begin: Callable[[], Awaitable[None]]) -> None:
        """Begin a build here; counted meanwhile."""
        components = estimate(message.data)
        self._placing.begin(HERE, components)
        try:
            await begin()
        finally:
            self._placing.end(HERE, components)

    async def runs_elsewhere(self, build: str | None) -> bool:
        """Return whether another instance has a build, as far as that can be told within a moment."""
        if build is None or not self.shares:
            return False
        with trio.move_on_after(_PATIENCE):
            try:
                return await self._is_unfinished(build)
            except BusError as error:
                self._log.warning("who has a build cannot be told", build=build, reason=str(error))
        return False

    def note_taken(self, components: int) -> None:
        """Note that a build of so many components has begun here."""
        self._active += components

    def _choose(self, size: int, tried: Collection[str]) -> str | None:
        """Choose where a build goes: the key of an instance, or `HERE`; None where it can go nowhere."""
        self._look()
        if HERE not in tried and (tried or not self._has_room(size)):
            return HERE
        if len(tried) > _MOST_TRIES:
            return None
        return self._placing.choose(self._active if self._fleet.fresh else None, tried)

    def load(self) -> Mapping[str, str]:
        """Return the header of an answer to another instance."""
        self._look()
        return load_header(Report(self._fleet.keeper.count, self._active))

    def _look(self) -> None:
        now = trio.current_time()
        if now - self._looked >= _REFRESH:
            self._looked = now
            self._placing.see(map(_candidate, self._fleet.others()))
        if now - self._counted >= _RECOUNT:
            self._counted = now
            self._active = self._fleet.keeper.load().components

    def _has_room(self, size: int) -> bool:
        return len(self._waiting) < _MOST and self._waiting_bytes + size <= _MOST_BYTES

    # ---- passing on

    async def _pass_on(self, key: str, message: Message, sender: str, components: int) -> Answer | None:
        """Pass a build on; None where the other instance did not answer, but may have taken it.

        Args:
            key: the other instance, from `_choose`.
            message: the build as it came in.
            sender: its sender.
            components: its estimated number of components.
        """
        placing, reply = self._placing, f"{self._inbox}.{next(self._numbers)}"
        waiting = self._waiting[reply] = _Waiting()
        self._waiting_bytes += len(message.data)
        placing.begin(key, components)
        report: Report | None = None
        answer: Answer | None = None
        try:
            await self._ask(key, message, sender, reply, waiting)
            if waiting.answer is not None:
                report, answer = read_report(waiting.answer), read_answer(waiting.answer)
        finally:
            placing.end(key, components, report)
            del self._waiting[reply]
            self._waiting_bytes -= len(message.data)
        if answer is None or (answer.error is not None and answer.error.code in ELSEWHERE):
            placing.rest(key)
        if answer is None:
            self._log.warning("a build was passed on, and is not answered: it is taken here", to=key)
        return answer

    async def _ask(self, key: str, message: Message, sender: str, reply: str, waiting: _Waiting) -> None:
        """Publish a build to another instance, and wait until it is answered, or will not be."""
        bus, fleet = self._bus, self._fleet
        generation = bus.generation
        expires = fleet.keeper.wall_clock() + _EXPIRY
        headers = Headers(message.subject, sender, expires, read_context(message.headers)).encode()
        try:
            outgoing = bus.publish(f"{INSTANCE}{key}.{SUBMIT}", message.data, reply=reply, headers=headers)
        except BusError as error:
            # It may be as large as a message can be without these headers.
            self._log.info("a build cannot be passed on", reason=str(error))
            return
        try:
            with trio.move_on_after(_PATIENCE):
                await waiting.moved.wait()
            if not waiting.taken:
                return
            with trio.move_on_after(_LONGEST):
                while waiting.answer is None and bus.generation == generation and self._is_there(key):
                    waiting.moved = trio.Event()
                    with trio.move_on_after(_LOOK):
                        await waiting.moved.wait()
        finally:
            outgoing.withdraw()

    def _is_there(self, key: str) -> bool:
        self._look()
        return self._placing.knows(key)

    def _on_answer(self, message: Message) -> None:
        waiting = self._waiting.get(message.subject)
        if waiting is None:
            return
        if message.data:
            waiting.taken, waiting.answer = True, message
        elif not message.no_responders:
            waiting.taken = True
        waiting.moved.set()

    # ---- builds of others

    def _on_passed(self, message: Message, receipts: Receipts, admit: Callable[[Passed, str], None]) -> None:
        headers = read_headers(message)
        if headers is None or headers.intake not in SUBJECTS or not may_be_answered(message.reply):
            self._log.warning("a message is ignored: no instance passes a build on like that")
            return
        kept = None if headers.context is None else headers.context.headers()
        passed = Passed(intern(headers.intake), message.data, message.reply, kept)
        if headers.expires < self._fleet.keeper.wall_clock():
            text = "it was passed on too long ago, or the clocks of the instances are apart"
            receipts.reject(passed, refused("busy", text))
            return
        try:
            self._bus.publish(message.reply, b"")
        except BusError as error:
            self._log.info("another instance is not told that its build is here", reason=str(error))
        admit(passed, intern(headers.sender))


def _candidate(member: Member) -> Candidate:
    lease = member.lease
    report = Report(lease.count, lease.load.components)
    return Candidate(encode_token(lease.name), lease.instance, report, member.takes)
