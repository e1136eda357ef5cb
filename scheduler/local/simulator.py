"""Simulated connectors: answer requests of any type and provider, after a delay, with invented results.

They serve to try builds without a cloud, and for load tests. One task with a heap of deadlines answers all
requests: thousands can be "at work" at a time, and a slow one delays no other.
"""

import heapq
from collections.abc import Mapping
from hashlib import blake2b
from itertools import count
from typing import Any, Literal, TypeAlias

import msgspec
import trio
from attrs import define, field, frozen

from scheduler.bus import Bus, Message
from scheduler.errors import BusClosed, BusError, BusFull
from scheduler.local.results import NOTHING, Invention, OutputRule, completed, parse_outputs
from scheduler.local.script import Script, rule_for
from scheduler.setting import Range, Section, setting

ReplyTo: TypeAlias = Literal["subject", "inbox", "both"]

_AN_HOUR = Range(0.0, 3_600.0, duration=True)
VERBS = ("create", "update", "delete", "get", "find")
QUEUE = "simulator"
_SYSTEM_TYPES = frozenset({"build", "service", "environment", "scheduler"})
_SYSTEM_PROVIDERS = frozenset({"done", "error", "mapping", "definition", "validation"})
_BATCH = 200
"""Answers in a row before other tasks run."""
_COUNTED = 100_000
"""Components whose requests are counted."""
_BACKOFF = 0.05
_SETTLING = 3.0
"""Seconds without answers after a reconnect: a scheduler that is not back yet would miss them."""


@frozen
class Behaviour:
    """Behaviour of simulated connectors."""

    invention: Invention = field(default=NOTHING, kw_only=True, repr=False)
    """Fields that references of the builds ask for."""
    script: Script = field(default=(), kw_only=True)
    """Rules by subject, which go before these settings."""
    latency: float = setting(0.5, "Time a connector takes to answer.", Section.SIMULATED, _AN_HOUR)
    jitter: float = setting(0.2, "Vary that time by as much, either way.", Section.SIMULATED, _AN_HOUR)
    failure_rate: float = setting(
        0.0, "Share of requests that fail, from 0 to 1.", Section.SIMULATED, Range(0.0, 1.0)
    )
    seed: int = setting(
        0,
        "Seed of the random failures and times.",
        Section.SIMULATED,
        Range(0, 2**63),
        more="The same seed treats the same components alike, in any order.",
    )
    reply_to: ReplyTo = setting(
        "subject", "Answer on <subject>.done, on the reply subject, or on both.", Section.SIMULATED
    )
    outputs: tuple[OutputRule, ...] = setting(
        (),
        "Field to set in answers: 'instance.create.*:public_ip=1.2.3.4'; repeatable.",
        Section.SIMULATED,
        read=parse_outputs,
        written=(),
    )

    def outputs_for(self, subject: str) -> dict[str, Any]:
        """Return the fields to set in answers to requests on a subject."""
        rule, tokens = rule_for(self.script, subject), subject.split(".")
        flags = {output.name: output.value for output in self.outputs if output.matches(tokens)}
        return flags if rule is None else {**rule.output, **flags}

    def fate(self, component: str, subject: str, before: int = 0) -> tuple[float, bool]:
        """Return the seconds until the answer, and whether it is a failure.

        Args:
            component: id of the component.
            subject: the subject of the request.
            before: number of earlier requests of this component.
        """
        rule = rule_for(self.script, subject)
        key = f"{self.seed}\0{subject}\0{component}".encode(errors="surrogatepass")
        digest = blake2b(key, digest_size=16).digest()
        delay = self.latency + self.jitter * (2 * _fraction(digest[:8]) - 1)
        rate = self.failure_rate
        if rule is not None:
            if rule.seconds is not None:
                shortest, longest = rule.seconds
                delay = shortest + (longest - shortest) * _fraction(digest[:8])
            if before < rule.first:
                return max(0.0, delay), True
            rate = rate if rule.rate is None else rule.rate
        return max(0.0, delay), _fraction(digest[8:]) < rate


def _fraction(data: bytes) -> float:
    return int.from_bytes(data) / (1 << 8 * len(data))


@define
class Counts:
    """Counts of answers so far."""

    completed: int = 0
    errored: int = 0
    ignored: int = 0
    """Number of requests without a component, and of messages that could not be answered."""


@define(eq=False)
class Simulator:
    """Answers requests on a bus; see `run`."""

    bus: Bus
    behaviour: Behaviour = field(factory=Behaviour)
    counts: Counts = field(factory=Counts)
    _due: list[tuple[float, int, str, str, dict[str, Any], bool]] = field(factory=list)
    _number: "count[int]" = field(factory=count)
    _news: trio.Event = field(factory=trio.Event)
    _generation: int = 0
    _requests: dict[tuple[str, str, str], int] = field(factory=dict)
    """Number of requests by build, component and subject, the latest at the end."""

    @property
    def at_work(self) -> int:
        """Number of requests that are not answered yet."""
        return len(self._due)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; started once the server knows the subscriptions."""
        subscriptions = []
        self._generation = self.bus.generation
        try:
            for verb in VERBS:
                subscription = await self.bus.subscribe(f"*.{verb}.*", self._take, queue=QUEUE)
                subscriptions.append(subscription)
            task_status.started()
            await self._answer_when_due()
        finally:
            with trio.move_on_after(1, shield=True):
                for subscription in subscriptions:
                    await subscription.unsubscribe()

    def _take(self, message: Message) -> None:
        """Put a request on the heap; called back by the broker's client, so it must not raise."""
        tokens = message.subject.split(".")
        if len(tokens) != 3 or tokens[0] in _SYSTEM_TYPES or tokens[2] in _SYSTEM_PROVIDERS:
            # The subjects of the verbs also match `build.create.done` and `build.get.mapping`.
            return
        try:
            component = msgspec.json.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            component = None
        if not isinstance(component, dict):
            self.counts.ignored += 1
            return
        before = self._requests_before(message.subject, component)
        delay, fails = self.behaviour.fate(str(component.get("_component_id", "")), message.subject, before)
        due = trio.current_time() + delay
        heapq.heappush(self._due, (due, next(self._number), message.subject, message.reply, component, fails))
        if self._due[0][0] == due:
            self._news.set()

    def _requests_before(self, subject: str, component: Mapping[str, Any]) -> int:
        """Count a request, where that matters; return the number of earlier ones of its component."""
        rule = rule_for(self.behaviour.script, subject)
        if rule is None or not rule.first:
            return 0
        key = (str(component.get("service", "")), str(component.get("_component_id", "")), subject)
        before = self._requests.pop(key, 0)
        self._requests[key] = before + 1
        if len(self._requests) > _COUNTED:
            del self._requests[next(iter(self._requests))]
        return before

    async def _answer_when_due(self) -> None:
        while True:
            if not self._due:
                await self._news.wait()
            self._news = trio.Event()
            with trio.move_on_at(self._due[0][0]):
                # An earlier deadline may be added while we wait for the earliest.
                await self._news.wait()
            await self._be_connected()
            answered = 0
            while self._due and self._due[0][0] <= trio.current_time():
                if not self._answer(*self._due[0][2:]):
                    await trio.sleep(_BACKOFF)
                    continue
                heapq.heappop(self._due)
                answered += 1
                if answered % _BATCH == 0:
                    await trio.lowlevel.checkpoint()

    async def _be_connected(self) -> None:
        while not self.bus.connected or self.bus.generation != self._generation:
            if self.bus.connected:
                self._generation = self.bus.generation
                await trio.sleep(_SETTLING)
            else:
                await trio.sleep(_BACKOFF)

    def _answer(self, subject: str, inbox: str, component: dict[str, Any], fails: bool) -> bool:
        """Publish the answer; return False if the bus has no room at the moment."""
        reply = self.result(subject, component, fails=fails)
        data = msgspec.json.encode(reply)
        targets = []
        if self.behaviour.reply_to != "inbox" or not inbox:
            targets.append(f"{subject}.{'error' if fails else 'done'}")
        if self.behaviour.reply_to != "subject" and inbox:
            targets.append(inbox)
        try:
            for target in targets:
                self.bus.publish(target, data)
        except BusFull:
            return False
        except BusClosed:
            raise
        except BusError:
            # Too large, or a subject that no server accepts: the request will time out.
            self.counts.ignored += 1
            return True
        if fails:
            self.counts.errored += 1
        else:
            self.counts.completed += 1
        return True

    def result(self, subject: str, component: Mapping[str, Any], *, fails: bool) -> dict[str, Any]:
        """Return the component as a connector would."""
        if fails:
            reply = dict(component)
            reply["_state"] = "errored"
            rule = rule_for(self.behaviour.script, subject)
            said = rule.error if rule is not None else ""
            reply["error"] = said or f"simulated failure: {subject} refused {component.get('name') or 'it'}"
            return reply
        return completed(subject, component, self.behaviour.outputs_for(subject), self.behaviour.invention)
