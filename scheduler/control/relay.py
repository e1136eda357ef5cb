"""Passes questions and commands on to the instances that own the builds that they are about.

Any instance gets them, as one of a queue group. Who owns a build stands in the last record of its log, and
that is read each time: nothing is kept here that could be wrong. What an owner is asked on its own subject it
never passes on, so nothing goes round in a circle. Nobody answers in the place of an owner.

An owner that says nothing for two seconds, not even that it is there, is given up. One that works at a long
answer has the whole time of a question.
"""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from contextlib import nullcontext
from functools import partial
from typing import Final

import trio
from attrs import field, frozen

from scheduler.bus import Bus, Message
from scheduler.control.everywhere import Page, merge, read_page
from scheduler.control.origins import Origin
from scheduler.control.parts import Parts
from scheduler.control.registry import read_request
from scheduler.control.verbs import PAGE, Document, List
from scheduler.control.verbs import Builds as BuildPage
from scheduler.definition.strictjson import encode
from scheduler.definition.tokens import encode_token
from scheduler.errors import BusError, NoResponders, Refused, SchedulerError, StoreError, UnreadableLog
from scheduler.fleet.absences import INSTANCE, PING
from scheduler.fleet.fleet import Fleet
from scheduler.fleet.lease import PERIOD, Member
from scheduler.jetstream.streams import log_subject
from scheduler.journal.records import Status, instance_of, read_headers
from scheduler.runtime.executor import ThreadExecutor
from scheduler.runtime.logger import Logger
from scheduler.stores.jetstream import JetStreamStore

_SILENCE: Final = 2.0
"""Seconds after which an instance that says nothing is given up."""
_PATIENCE: Final = 1.0
"""Seconds of them that it has to say that it is there."""
_LOOKS: Final = PERIOD + 0.5
"""Seconds within which the leases are looked at once."""
_LOOK: Final = 0.1
"""Seconds between two looks whether an instance is known by now."""
_AT_ONCE: Final = 16
"""Questions that one instance is asked at a time."""
_LISTS_AT_ONCE: Final = 2
"""Lists with finished builds at a time: those are read from their reports."""
_FEW: Final = 500
"""Builds that are merged in the loop: two milliseconds."""
_SMALL: Final = 64 * 1024
"""Bytes of a list that is read in the loop."""
_ROOM: Final = 8 * 1024
"""Bytes of an answer beside its builds."""
_ERROR: Final = "Nats-Service-Error"
"""Beginning of the headers of a refusal."""

log = Logger()


@frozen
class Relayed:
    """Answer of another instance, as it came."""

    data: bytes = field(repr=False)
    headers: Mapping[str, str]

    @property
    def error(self) -> str:
        """Text of a refusal; empty where it is none."""
        return self.headers.get(_ERROR, "")


class Relay:
    """Passes questions on, and asks all instances for their builds.

    Args:
        bus: connection for questions and answers.
        parts: parts of the service.
        fleet: this process and the others.
        store: store that they share.
        local: lists the builds of this instance.
    """

    def __init__(
        self,
        bus: Bus,
        parts: Parts,
        fleet: Fleet,
        store: JetStreamStore,
        local: Callable[[Document], Awaitable[BuildPage]],
    ) -> None:
        self._bus = bus
        self._parts = parts
        self._fleet = fleet
        self._store = store
        self._local = local
        self._asking: Counter[str] = Counter()
        """Questions that await their answer, by name of the instance."""
        self._listing = trio.CapacityLimiter(_LISTS_AT_ONCE)

    @property
    def subject(self) -> str:
        """Beginning of the subjects of this instance; a verb follows."""
        return self._fleet.subject

    def concerns(self, verb: str, document: Document, *, passed: bool) -> bool:
        """Return whether others may have to answer; synchronous, for what was not looked at in full.

        Args:
            verb: what is asked for.
            document: the request, not yet checked; empty where it is large.
            passed: whether another instance has passed it on.
        """
        if self._is_alone():
            return False
        if verb == List.verb():
            return not passed
        return verb != "instances" and not self._parts.builds.is_running(document.get("id"))

    async def answer(
        self, verb: str, document: Document, data: bytes, origin: Origin
    ) -> BuildPage | Relayed | None:
        """Return the answer of others to a question that they may concern; None where it is for this one.

        Args:
            verb: what is asked for.
            document: the request, not yet checked.
            data: the same, as it came.
            origin: where it comes from.

        Raises:
            Refused: the owner of the build does not answer, or there is none now.
            BusError: the log could not be read.
        """
        if verb == List.verb():
            return await self._list(document)
        build = document.get("id")
        if not isinstance(build, str) or document.get("build") is not None:
            return None
        member = await self._owner(build)
        if member is None:
            return None
        if origin.passed:
            text = f"{build} has just gone to {member.lease.name}: ask again"
            raise Refused("unavailable", text)
        found = await self._ask(member, verb, data, origin.passed_on())
        if found is None:
            name, age = member.lease.name, self._age(member)
            text = f"{build} is owned by {name}, which does not answer; its lease is {age:.1f} s old"
            raise Refused("unavailable", f"{text}; a command may still be carried out")
        errors = {name: value for name, value in (found.headers or {}).items() if name.startswith(_ERROR)}
        return Relayed(found.data, errors)

    def _is_alone(self) -> bool:
        """Return whether no other instance has builds, nor has left any lately."""
        fleet = self._fleet
        if len(fleet.owners()) > 1:
            return False
        return all(member.lease.name == fleet.name for member in fleet.members())

    # ---- owners

    async def _owner(self, build: str) -> Member | None:
        """Return the instance that owns a build; None where it is this one, or where the build has ended.

        Raises:
            Refused: its owner is gone, and it is about to be taken over.
            BusError: its log could not be read.
        """
        last = await self._store.logs.last(log_subject(build))
        if last is None:
            return None
        try:
            headings = read_headers(last.headers)
        except UnreadableLog:
            # Whoever looks at it finds that out, and says more of it.
            return None
        status, instance = headings.status, instance_of(headings.record_id)
        if status is Status.REPORTED or instance == self._fleet.instance:
            return None
        if await self._is_live(instance):
            return self._fleet.find(instance)
        if status is Status.FINISHED or build in self._parts.roster.quarantined:
            return None
        owner = f"was owned by {instance}, which is gone" if instance else "has no owner now"
        raise Refused("unavailable", f"{build} {owner}; it is being taken over")

    async def _is_live(self, instance: str) -> bool:
        """Return whether an instance owns its builds; waits for the next look at the leases for a new one."""
        with trio.move_on_after(_LOOKS):
            while not (live := instance in self._fleet.owners()) and instance and self._may_be_new(instance):  # noqa: ASYNC110 - the fleet has one listener, and that is another
                await trio.sleep(_LOOK)
        return live

    def _may_be_new(self, instance: str) -> bool:
        """Return whether an instance may have come since the last look."""
        known = self._fleet.find(instance)
        return known is None or known.live

    def _age(self, member: Member) -> float:
        """Return the age of a lease now, in seconds."""
        now = self._fleet.find(member.lease.instance)
        return (member if now is None else now).age

    # ---- asking

    async def _ask(
        self, member: Member, verb: str, data: bytes, headers: Mapping[str, str] | None = None
    ) -> Message | None:
        """Ask an instance; None where it does not answer.

        Raises:
            BusError: it cannot be asked.
        """
        name, subject = member.lease.name, f"{INSTANCE}{encode_token(member.lease.name)}."
        if self._asking[name] >= _AT_ONCE:
            return None
        found: list[Message] = []
        failed: list[BusError] = []

        async def ask() -> None:
            try:
                found.append(await self._bus.request(f"{subject}{verb}", data, headers=headers))
            except NoResponders:
                pass
            except BusError as error:
                failed.append(error)
            nursery.cancel_scope.cancel()

        self._asking[name] += 1
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ask)
                while await self._is_there(f"{subject}{PING}"):
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self._asking[name] -= 1
            if not self._asking[name]:
                del self._asking[name]
        if failed:
            # Popped, as an exception that its own frame refers to is freed by the collector only.
            raise failed.pop()
        return found[0] if found else None

    async def _is_there(self, subject: str) -> bool:
        """Return, after a while, whether an instance says that it is there."""
        await trio.sleep(_SILENCE - _PATIENCE)
        with trio.move_on_after(_PATIENCE):
            try:
                await self._bus.request(subject, b"")
            except BusError:
                return False
            return True
        return False

    # ---- lists

    async def _list(self, document: Document) -> BuildPage:
        """List the builds of all instances; those that do not answer are named."""
        request = read_request(List, document)
        limit = min(request.limit, PAGE)
        question = encode({"limit": limit} | ({"after": request.after} if request.after else {}))
        pages: list[Page] = []
        silent: list[Member] = []
        failed: list[SchedulerError] = []
        async with trio.open_nursery() as nursery:
            for member in self._fleet.others():
                nursery.start_soon(self._list_of, member, question, pages, silent)
            try:
                async with self._listing if request.all else nullcontext():
                    own = await self._local(document)
                pages.append(Page(own.builds, own.next))
            except (BusError, StoreError) as error:
                # Raised below: here it would come out in a group.
                failed.append(error)
                nursery.cancel_scope.cancel()
        if failed:
            raise failed.pop()
        merging = partial(merge, pages, limit=limit, most_bytes=self._parts.most_bytes() - _ROOM)
        if sum(len(page.builds) for page in pages) <= _FEW:
            merged = merging()
        else:
            merged = await self._parts.executor.run("lists", merging, long=True)
        named = [
            {"instance": one.lease.instance, "name": one.lease.name, "age": round(self._age(one), 3)}
            for one in silent
        ]
        if named:
            return BuildPage(builds=merged.builds, next=merged.next, silent=named)
        return BuildPage(builds=merged.builds, next=merged.next)

    async def _list_of(
        self, member: Member, question: bytes, pages: list[Page], silent: list[Member]
    ) -> None:
        page: Page | None = None
        try:
            with trio.move_on_after(_SILENCE):
                found = await self._ask(member, List.verb(), question)
                if found is not None and len(found.data) <= _SMALL:
                    page = read_page(found.data)
                elif found is not None:
                    page = await ThreadExecutor().run("lists", partial(read_page, found.data))
        except BusError as error:
            log.info("an instance cannot be asked for its builds", name=member.lease.name, error=str(error))
        if page is None:
            silent.append(member)
        else:
            pages.append(page)
