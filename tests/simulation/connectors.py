"""Simulated connectors: they take requests, answer them or not, and keep a record of their own."""

import json
from typing import Any, TypeAlias

from attrs import define, field, frozen

from scheduler.bus import Message
from simulation.network import SimBus
from simulation.pulses import Pulse
from simulation.world import World

JSON: TypeAlias = dict[str, Any]

TYPES = ("vpc", "network", "instance")
PROVIDERS = ("aws", "gcp")
_STRANGERS = ("components", "_timeout", "note")
"""Fields that a connector which is built on typed structs does not know."""


@frozen
class Manners:
    """Behaviour of a connector."""

    failing: float = 0.08
    """The share of requests that fail."""
    mute: float = 0.03
    """The share of requests that are never answered."""
    slow: float = 0.05
    """The share of requests that take very long."""
    again: float = 0.1
    """The share of answers that are given twice, or are followed by one that contradicts them."""
    foreign: float = 0.03
    """The share of answers that come with one about something else."""
    typed: bool = False
    """Whether it drops fields that it does not know."""
    remembers: bool = True
    """Whether it gives the same answer to the same attempt, and does the work once."""
    via: str = "subject"
    """``subject``, ``reply`` or ``both``."""
    final: float = 0.0
    """The share of failures that another attempt cannot mend, as it says."""
    later: float = 0.0
    """The share of failures before which it wants to be left alone for a while."""


@define(eq=False)
class Connector:
    """One connector process for one type of component."""

    world: World
    name: str
    type: str
    manners: Manners
    pulse: Pulse = field(factory=Pulse)
    bus: SimBus = field(init=False)
    answers: dict[str, JSON] = field(factory=dict)
    """Replies by attempt."""
    unanswered: dict[str, str] = field(factory=dict)
    """Its record of attempts that it has taken and not answered, with their providers."""
    life: int = 0
    """Number of starts."""

    def __attrs_post_init__(self) -> None:
        self.bus = SimBus(self.world, self.name)

    async def start(self) -> None:
        """Connect and take requests."""
        await self.bus.connect()
        await self.bus.subscribe(f"{self.type}.*.*", self._take, queue=f"{self.type}-connectors")
        self.life += 1
        if self.pulse.every and self.manners.remembers:
            self._come_back()

    def _come_back(self) -> None:
        """Say which attempts it has not answered."""
        for provider in PROVIDERS:
            attempts = [one for one, other in self.unanswered.items() if other == provider]
            if attempts:
                body = json.dumps({"instance": self.name, "attempts": attempts}).encode()
                self.bus.publish(f"scheduler.returned.{provider}", body)

    def _beat(self, message: Message, attempt: str, life: int) -> None:
        """Say that it works, as long as it does."""
        if life != self.life or self.bus.dead or attempt not in self.unanswered:
            return
        said = {"instance": self.name, "progress": 1, "message": attempt, "_state": "completed"}
        headers = message.headers or {}
        self.bus.publish(headers["Scheduler-Heartbeat"], json.dumps(said).encode())
        self.world.later.after(self.pulse.every, lambda: self._beat(message, attempt, life))

    def _take(self, message: Message) -> None:
        if message.subject.count(".") != 2 or message.subject.endswith((".done", ".error")):
            return
        rng, manners = self.world.rng, self.manners
        component: JSON = json.loads(message.data)
        attempt = (message.headers or {}).get("Nats-Msg-Id", "")
        references = tuple((key[5:], component[key]) for key in component if key.startswith("from-"))
        detail = (attempt, references)
        self.world.trace.add("taken", self.name, component["service"], component["_component_id"], detail)
        life = self.life
        self.unanswered[attempt] = component["_provider"]
        if self.pulse.every and rng.random() > manners.mute:
            self.world.later.after(self.pulse.every, lambda: self._beat(message, attempt, life))
        if rng.random() < manners.mute:
            return
        seconds = rng.uniform(0.01, 2.0)
        if rng.random() < manners.slow:
            seconds = rng.uniform(2.0, 30.0)
        self.world.later.after(seconds, lambda: self._done(message, component, attempt, life))

    def _done(self, message: Message, component: JSON, attempt: str, life: int) -> None:
        if life != self.life:
            return  # it died over it
        rng, manners = self.world.rng, self.manners
        answer = self.answers.get(attempt) if manners.remembers else None
        if answer is None:
            state = "errored" if rng.random() < manners.failing else "completed"
            answer = self.answers[attempt] = self._answer(component, state)
        self.unanswered.pop(attempt, None)
        self._say(message, answer, attempt=attempt)
        if rng.random() < manners.again:
            if rng.random() < 0.5:
                other = "completed" if answer["_state"] == "errored" else "errored"
                answer = self._answer(component, other)
            again = answer
            self.world.later.after(rng.expovariate(1.0), lambda: self._say(message, again, attempt=attempt))
        if rng.random() < manners.foreign:
            # One about a component that nobody asked for, which has to change nothing.
            stranger = {**self._answer(component, "completed"), "_component_id": "nobody"}
            self._say(message, stranger, "subject", attempt)

    def _answer(self, component: JSON, state: str) -> JSON:
        fields = {key: value for key, value in component.items() if not self._strange(key)}
        fields["serial"] = f"{self.name}-{self.world.rng.randrange(1 << 32):x}"
        fields["_state"] = state
        if state == "errored":
            fields |= self._failure()
        elif component["_action"] == "find":
            found = {"_component_id": f"found-{component['_component_id']}", "_component": self.type}
            fields["components"] = [{**found, "_provider": "aws", "_action": "none", "_state": "completed"}]
        return fields

    def _failure(self) -> JSON:
        rng, manners = self.world.rng, self.manners
        if manners.final and rng.random() < manners.final:
            return {"error": f"{self.name} cannot, ever", "retryable": False}
        if manners.later and rng.random() < manners.later:
            seconds = round(rng.uniform(0.5, 5.0), 3)
            return {"error": f"{self.name} cannot, for {seconds} s", "retry_after": seconds}
        return {"error": f"{self.name} cannot"}

    def _strange(self, key: str) -> bool:
        return self.manners.typed and key in _STRANGERS

    def _say(self, message: Message, answer: JSON, via: str = "", attempt: str = "") -> None:
        via = via or self.manners.via
        if self.bus.dead:
            return
        detail = (answer["_state"], answer["serial"], via, attempt)
        self.world.trace.add("answers", self.name, answer["service"], answer["_component_id"], detail)
        body = json.dumps(answer).encode()
        suffix = "error" if answer["_state"] == "errored" else "done"
        if via in {"subject", "both"}:
            self.bus.publish(f"{message.subject}.{suffix}", body)
        if via in {"reply", "both"}:
            self.bus.publish(message.reply, body)

    def die(self) -> None:
        """End at once, and forget unfinished work; `start` begins again, with the finished work."""
        self.life += 1
        self.bus.die(self.world.rng.randrange(3))
        self.world.trace.add("dies", self.name)
        self.bus = SimBus(self.world, self.name)
