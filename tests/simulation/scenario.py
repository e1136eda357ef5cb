"""Scenario of one run, by a seed: builds and the times of their submission, faults and their times."""

import random
from typing import Any, TypeAlias

from attrs import evolve, field, frozen

from simulation.aims import aims, burden, cancelled, paused, widen
from simulation.clocks import Disorder, disorder
from simulation.cluster import HARMLESS, Cluster, cluster
from simulation.connectors import PROVIDERS, TYPES, Manners
from simulation.crowding import crowd
from simulation.gates import put_gates
from simulation.instances import Instances, instances
from simulation.labour import laborious
from simulation.moving import moves
from simulation.operating import Operating, operate, spoil
from simulation.pulses import Pulse, pulsate
from simulation.vanishing import vanish

JSON: TypeAlias = dict[str, Any]

_ACTIONS = ("create", "create", "create", "create", "update", "get", "delete", "find", "none")
_SUPPLIES = {"create", "update", "get"}
"""Actions whose reply can be referred to afterwards."""
FAULTS = (
    "crash",
    "crash",
    "crash",
    "crash at",
    "crash at",
    "cut at",
    "cut at",
    "drain",
    "second",
    "cut",
    "cut",
    "silence",
    "slow reader",
    "cut connector",
    "connector dies",
    "connector dies",
    "broker",
    "broker",
    "quorum",
    "refusal",
    "full",
    "slow disk",
    "slow disk",
    "consumers",
    "cut client",
)
MOMENTS = (
    "append left",
    "append arrived",
    "request left",
    "request arrived",
    "taken",
    "answers",
    "report left",
    "report arrived",
    "kept",
)
"""Steps of the trace at which a fault can be aimed; it comes after them."""


@frozen
class Submission:
    """A build is handed in."""

    at: float
    build: int
    altered: bool = False
    """Whether its content differs from the first submission."""


@frozen
class Fault:
    """Something goes wrong."""

    at: float
    kind: str
    seconds: float
    """Duration in seconds; of a crash, until the next process starts; of a clock, the change of its time."""
    number: int
    """Chooses among several of the kind: which connector, how much is lost, which moment."""
    moment: str = ""
    """The step of the trace that it is aimed at, where the number does not choose it."""


@frozen
class Scenario:
    """One run."""

    seed: int
    builds: tuple[JSON, ...] = field(repr=False)
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]
    heals_at: float
    attempt_timeout: float
    start_timeout: float
    resend: str
    grace: float
    manners: tuple[Manners, ...]
    """Of the connector of each type."""
    clocks: Disorder
    """Faults of the processes' clocks."""
    cluster: Cluster
    """The servers of the broker."""
    instances: Instances
    """The processes that share the builds."""
    operating: Operating
    """How builds are to be run, and what operators ask for."""
    moving: bool
    """Whether builds move from instance to instance."""
    pulse: Pulse
    """Heartbeats of connectors, and what is asked of them."""


def imagine(seed: int) -> Scenario:
    """The scenario of a seed."""
    return _crowded(_imagine(seed))


def _crowded(scenario: Scenario) -> Scenario:
    """Return the scenario, or the crowd that there is instead with its seed."""
    many = crowd(scenario.seed)
    if many is None:
        return scenario
    troubles = many.instances.troubles
    return evolve(
        scenario,
        builds=many.builds,
        submissions=tuple(Submission(at, build) for build, at in enumerate(many.times)),
        faults=tuple(Fault(one.at, one.kind, one.seconds, one.number, one.moment) for one in troubles),
        heals_at=max(*many.times, many.instances.until + 1.0),
        attempt_timeout=40.0,
        start_timeout=10.0,
        resend="unsent",
        grace=many.grace,
        manners=many.manners,
        clocks=Disorder(),
        cluster=Cluster(many.servers),
        instances=many.instances,
        operating=Operating(many.rules),
        pulse=Pulse(),
    )


def _imagine(seed: int) -> Scenario:
    rng = random.Random(f"scenario {seed}")
    number = rng.choice((1, 1, 2, 3))
    builds = tuple(_build(rng, f"b{position}") for position in range(number))
    submissions = []
    for position in range(number):
        first = rng.uniform(0.0, 3.0)
        submissions.append(Submission(first, position))
        if rng.random() < 0.3:
            submissions.append(Submission(first + rng.expovariate(1.0), position))
        if rng.random() < 0.2:
            submissions.append(Submission(first + rng.expovariate(0.5), position, altered=True))
    faults = []
    heals_at = rng.uniform(3.0, 18.0)
    for _ in range(rng.choice((0, 1, 1, 2, 2, 3, 4, 6))):
        # Most of it happens early: builds are short.
        at = min(heals_at, rng.choice((rng.uniform(0.3, 6.0), rng.uniform(0.3, heals_at))))
        seconds = rng.choice((rng.uniform(0.01, 1.0), rng.uniform(0.5, 5.0), rng.uniform(2.0, 20.0)))
        faults.append(Fault(at, rng.choice(FAULTS), seconds, rng.randrange(1000)))
    friendly = Manners(failing=0.0, mute=0.0, slow=0.0, again=0.0, foreign=0.0)
    manners = tuple(friendly if rng.random() < 0.4 else _manners(rng) for _ in TYPES)
    begin = {builds[one.build]["id"]: one.at for one in reversed(submissions) if not one.altered}
    wide = widen(seed, builds[0])
    operating = operate(seed, builds, begin, heals_at)
    cancels = cancelled(seed, builds)
    orders = operating.orders + paused(seed, builds) + cancels
    gates = not wide and put_gates(seed, builds)
    operating = evolve(operating, orders=orders, max_bytes=burden(seed, builds), gates=gates)
    impatient = random.Random(f"impatient {seed}").random() < 0.06
    if impatient:
        # Many an answer comes when the next attempt is being waited for.
        operating = evolve(operating, retries="*=3:4")
    if operating.orders or any("options" in build for build in builds):
        manners = tuple(spoil(seed, one) for one in manners)
    for number, strike in enumerate(operating.strikes):
        which = (seed + number) * 3
        faults.append(Fault(strike.at, strike.kind, strike.seconds, which, strike.moment))
    faults += [Fault(one.at, one.kind, one.seconds, one.number) for one in vanish(seed, heals_at)]
    first = min(begin.values())
    faults += [
        Fault(max(0.0, aim.at), aim.kind, aim.seconds, aim.number, aim.moment)
        for aim in aims(seed, first, operating, wide=wide, cancels=bool(cancels))
    ]
    clocks = disorder(seed, first, heals_at)
    faults += [Fault(one.at, "clock", one.seconds, one.number) for one in clocks.settings]
    if clocks.change_after_failure:
        operating = evolve(operating, retries=operating.retries or "*=2:3")
        faults.append(Fault(0.0, "crash at", 0.05, len(faults), "failed"))
    servers = cluster(seed, first)
    if servers.alone:
        faults = [fault for fault in faults if fault.kind in HARMLESS]
    faults += [Fault(one.at, "server", one.seconds, one.number, one.moment) for one in servers.losses]
    pulse = pulsate(seed, heals_at)
    if not servers.alone:
        faults += [Fault(at, kind, seconds, number, "taken") for kind, at, seconds, number in pulse.faults]
        manners = tuple(evolve(one, mute=max(one.mute, pulse.mute)) for one in manners)
    heavy = laborious(seed)
    if heavy is not None:
        # Beside the first one.
        builds = (*builds, heavy)
        submissions.append(Submission(first, len(builds) - 1))
        if random.Random(f"calm {seed}").random() < 0.5:
            # Nothing but the one can hold the others up.
            faults, clocks, servers = [], Disorder(), Cluster()
            operating = evolve(operating, rules="", orders=(), strikes=(), max_bytes=0)
    calm = bool(servers.alone or (heavy is not None and not faults))
    several = instances(seed, first, servers.servers, calm=calm)
    if several.alone:
        faults = [fault for fault in faults if fault.kind in HARMLESS]
    faults += [Fault(one.at, one.kind, one.seconds, one.number, one.moment) for one in several.troubles]
    heals_at = max(heals_at, several.until)
    submissions = [evolve(one, at=one.at + several.delay) for one in submissions]
    return Scenario(
        seed=seed,
        builds=builds,
        submissions=tuple(sorted(submissions, key=lambda one: one.at)),
        faults=tuple(sorted(faults, key=lambda one: one.at)),
        heals_at=heals_at,
        attempt_timeout=1.5 if impatient else rng.choice((4.0, 6.0, 15.0, 40.0)),
        start_timeout=rng.choice((3.0, 10.0)),
        resend=rng.choice(("unsent", "unsent", "unsent", "always", "never")),
        grace=rng.choice((0.0, 1.0, 10.0)),
        manners=manners,
        clocks=clocks,
        cluster=servers,
        instances=several,
        operating=operating,
        moving=moves(seed, several.number),
        pulse=pulse,
    )


def _manners(rng: random.Random) -> Manners:
    return Manners(
        failing=rng.choice((0.0, 0.05, 0.2)),
        mute=rng.choice((0.0, 0.0, 0.1)),
        slow=rng.choice((0.02, 0.05, 0.3)),
        typed=rng.random() < 0.3,
        remembers=rng.random() < 0.5,
        via=rng.choice(("subject", "subject", "reply", "both")),
    )


def _build(rng: random.Random, name: str) -> JSON:
    size = rng.choice((1, 2, 3, 4, 5, 6, 8, 12))
    changes: list[JSON] = []
    edges: list[JSON] = []
    components: list[JSON] = []
    for number in range(size):
        action = rng.choice(_ACTIONS)
        change: JSON = {
            "_component_id": f"c{number}",
            "_component": rng.choice(TYPES),
            "_action": action,
            "_provider": rng.choice(PROVIDERS),
            "_state": rng.choice(("waiting", "waiting", "waiting", "", "running")),
            "note": f"{name} {number}",
        }
        if action in {"update", "delete"}:
            components.append({**change, "_state": "completed", "serial": "old"})
        if rng.random() < 0.05:
            change["_timeout"] = rng.choice((2, 5))
        for other in rng.sample(range(number), min(number, rng.choice((0, 1, 1, 2)))):
            _connect(rng, changes[other], change, edges)
        changes.append(change)
    rng.shuffle(changes)
    return {
        "id": name,
        "name": f"build {name}",
        "action": rng.choice(("build.create", "build.create", "service.patch")),
        "components": components,
        "changes": changes,
        "edges": edges,
    }


def _connect(rng: random.Random, source: JSON, destination: JSON, edges: list[JSON]) -> None:
    """Let one change depend on another: by an edge, or by a reference to what it returns."""
    mine, theirs = destination["_component_id"], source["_component_id"]
    if source["_action"] == "create" and rng.random() < 0.5:
        form = rng.choice(
            (f'$(components.#[_component_id="{theirs}"].serial)', f'{{{{ components["{theirs}"].serial }}}}')
        )
        destination[f"from-{theirs}"] = form
    else:
        edges.append({"source": theirs, "destination": mine, "length": 1})


def subject_of(build: JSON) -> str:
    """Return the action on which a build is submitted and reported; some name another one themselves."""
    return str(build["action"]).replace("patch", "create")


def dependencies(build: JSON) -> dict[str, set[str]]:
    """Return the dependencies of each change."""
    needed: dict[str, set[str]] = {change["_component_id"]: set() for change in build["changes"]}
    for edge in build["edges"]:
        needed[edge["destination"]].add(edge["source"])
    for change in build["changes"]:
        needed[change["_component_id"]] |= {key[5:] for key in change if key.startswith("from-")}
    return needed
