"""Simulated connectors: answer requests of any type and provider, after a delay, with invented results.

They serve to try builds without a cloud, and for load tests. One task with a heap of deadlines answers all
requests: thousands can be "at work" at a time, and a slow one delays no other.
"""

import heapq
import json
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from itertools import count
from typing import Any, Literal, TypeAlias

import msgspec
import trio
from attrs import define, field, frozen

from scheduler.bus import Bus, Message
from scheduler.errors import BusClosed, BusError, BusFull
from scheduler.setting import Range, Section, invalid, setting

ReplyTo: TypeAlias = Literal["subject", "inbox", "both"]

_AN_HOUR = Range(0.0, 3_600.0, duration=True)
VERBS = ("create", "update", "delete", "get", "find")
QUEUE = "simulator"
_SYSTEM_TYPES = frozenset({"build", "service", "environment", "scheduler"})
_SYSTEM_PROVIDERS = frozenset({"done", "error", "mapping", "definition", "validation"})
_BATCH = 200
"""Answers in a row before other tasks run."""
_BACKOFF = 0.05
_SETTLING = 3.0
"""Seconds without answers after a reconnect: a scheduler that is not back yet would miss them."""
_PATTERN_TOKEN = re.compile(r"\*|[A-Za-z0-9_-]{1,64}")

_AWS_IDS = {
    "vpc": ("vpc_aws_id", "vpc-", 8),
    "internet_gateway": ("internet_gateway_aws_id", "igw-", 8),
    "network": ("network_aws_id", "subnet-", 8),
    "firewall": ("security_group_aws_id", "sg-", 8),
    "instance": ("instance_aws_id", "i-", 17),
    "nat": ("nat_gateway_aws_id", "nat-", 17),
    "ebs_volume": ("volume_aws_id", "vol-", 17),
    "route53": ("hosted_zone_id", "Z", 13),
}
"""Field in which an Ernest connector returns the cloud's name of the new resource, and its form."""


@frozen
class OutputRule:
    """Field that simulated connectors set in answers to requests that match ``pattern``."""

    pattern: tuple[str, ...]
    name: str
    value: Any

    def matches(self, tokens: Sequence[str]) -> bool:
        """Tell whether it applies to a request whose subject has these tokens."""
        return all(mine in {"*", token} for mine, token in zip(self.pattern, tokens, strict=True))


def parse_output(text: str) -> OutputRule:
    """Read ``instance.create.*:public_ip=1.2.3.4``; the value is read as JSON, otherwise as text.

    Raises:
        ValueError: the text does not have this form.
    """
    pattern, colon, assignment = text.partition(":")
    name, equals, value = assignment.partition("=")
    tokens = tuple(pattern.strip().split("."))
    if not colon or not equals or not name.strip() or len(tokens) != 3:
        raise ValueError(text)
    if not all(_PATTERN_TOKEN.fullmatch(token) for token in tokens):
        raise ValueError(text)
    try:
        decoded = json.loads(value)
    except ValueError:
        decoded = value
    return OutputRule(tokens, name.strip(), decoded)


def parse_outputs(texts: Sequence[str]) -> tuple[OutputRule, ...]:
    """Read several flags, each as `parse_output` does.

    Raises:
        InvalidSettings: one of them does not have this form.
    """
    outputs = []
    for text in texts:
        try:
            outputs.append(parse_output(text))
        except ValueError:
            allowed = "is not of the form PATTERN:FIELD=VALUE, such as instance.create.*:public_ip=1.2.3.4"
            raise invalid("outputs", text, allowed) from None
    return tuple(outputs)


@frozen
class Behaviour:
    """Behaviour of simulated connectors."""

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

    def fate(self, component: str, subject: str) -> tuple[float, bool]:
        """Return the seconds until the answer, and whether it is a failure."""
        key = f"{self.seed}\0{subject}\0{component}".encode(errors="surrogatepass")
        digest = blake2b(key, digest_size=16).digest()
        delay = self.latency + self.jitter * (2 * _fraction(digest[:8]) - 1)
        return max(0.0, delay), _fraction(digest[8:]) < self.failure_rate


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
        delay, fails = self.behaviour.fate(str(component.get("_component_id", "")), message.subject)
        due = trio.current_time() + delay
        heapq.heappush(self._due, (due, next(self._number), message.subject, message.reply, component, fails))
        if self._due[0][0] == due:
            self._news.set()

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
        reply = dict(component)
        tokens = subject.split(".")
        if fails:
            reply["_state"] = "errored"
            reply["error"] = f"simulated failure: {subject} refused {component.get('name') or 'it'}"
            return reply
        reply["_state"] = "completed"
        verb = tokens[1]
        if verb in {"create", "get"}:
            _invent(reply, tokens[0])
        elif verb == "find":
            reply["components"] = [_found(component, tokens[0])]
        for output in self.behaviour.outputs:
            if output.matches(tokens):
                reply[output.name] = output.value
        return reply


def _invent(component: dict[str, Any], kind: str) -> None:
    """Set the cloud's name of the new resource, unless it has one."""
    seed = f"{component.get('service', '')}\0{component.get('_component_id', '')}"
    digest = blake2b(seed.encode(errors="surrogatepass"), digest_size=16).hexdigest()
    name, prefix, digits = _AWS_IDS.get(kind, (f"{kind}_id", f"{kind}-", 8))
    invented: dict[str, Any] = {name: prefix + digest[:digits]}
    last = int(digest[-2:], 16)
    if kind == "instance":
        # An address reserved for documentation (RFC 5737).
        invented |= {"public_ip": f"203.0.113.{last}"}
        if component.get("assign_elastic_ip"):
            invented |= {"elastic_ip": f"198.51.100.{last}"}
    elif kind == "nat":
        invented |= {"nat_gateway_allocation_id": f"eipalloc-{digest[:17]}"}
    elif kind == "elb":
        invented = {"dns_name": f"{component.get('name')}-{int(digest[:8], 16)}.eu-west-1.elb.amazonaws.com"}
    elif kind in {"rds_instance", "rds_cluster"}:
        invented = {"endpoint": f"{component.get('name')}.{digest[:12]}.eu-west-1.rds.amazonaws.com"}
    for key, value in invented.items():
        if not component.get(key):
            component[key] = value


def _found(query: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """Return the one component that a search finds."""
    found = {key: value for key, value in query.items() if key not in {"components", "error"}}
    found |= {
        "_component_id": f"{kind}::found-{query.get('name') or 'it'}",
        "_action": "none",
        "_state": "completed",
    }
    _invent(found, kind)
    return found
