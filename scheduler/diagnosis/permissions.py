"""Checks that the broker lets us publish and subscribe on all subjects that the service needs.

To check a subject for publishing, a message is sent that the server traces instead of delivering it
(``Nats-Trace-Only``): no one receives it, no stream stores it, no API carries it out. A subscription is made
for a moment, and its messages are ignored. It is in no queue group, so it takes no message from others.
"""

from collections.abc import Iterable, Sequence
from typing import Final

import trio
from attrs import field, frozen

from scheduler.bus import Bus, Message
from scheduler.bus.interest import SUBJECT as CONNECTIONS
from scheduler.definition.reply_subjects import EVERY, EVERY_BEAT, OLD
from scheduler.definition.subjects import CONTROL, EVENTS, REPLY_SUBJECTS
from scheduler.diagnosis import Diagnosis, Level
from scheduler.diagnosis.versions import TRACES, parse
from scheduler.dispatch.cancelling import CANCEL
from scheduler.dispatch.returned import EVERY as EVERY_RETURNED
from scheduler.errors import BusError
from scheduler.fleet.absences import INSTANCE
from scheduler.fleet.bucket import BUCKET as LEASES
from scheduler.fleet.bucket import STREAM as KV_LEASES
from scheduler.fleet.news import NEWS
from scheduler.fleet.sharing import CHANGED
from scheduler.jetstream.streams import BUCKET, LOG, OBJECTS, REPLIES, REPORTS, replies_of
from scheduler.supervision import intake
from scheduler.supervision.peers import CANDIDATES

DOCTOR: Final = "SCHEDULER_DOCTOR"
"""Name of our temporary stream."""
DOCTOR_SUBJECT: Final = "scheduler.doctor.commits"
_VERBS: Final = ("create", "update", "delete", "get", "find")
_CURE: Final = "let it {verb} {lines} (`scheduler permissions` prints all that it needs)"
_DEADLINE = 10.0


@frozen
class Need:
    """Need of the service: a subject on which it publishes."""

    line: str
    """Subject or pattern in the broker's configuration that allows it."""
    why: str
    level: Level = Level.FAILURE
    """Level of the finding if it is refused."""
    samples: tuple[str, ...] = field(default=())
    """Subjects to try; if empty, ``line`` itself."""

    @property
    def subjects(self) -> tuple[str, ...]:
        """Subjects to try."""
        return self.samples or (self.line,)


def _core() -> list[Need]:
    requests = [
        Need(f"*.{verb}.*", "requests to connectors of every type", Level.WARNING, (f"doctor.{verb}.doctor",))
        for verb in _VERBS
    ]
    reports = [
        Need(
            f"{prefix}.*.{suffix}",
            "reports and refusals",
            samples=tuple(f"{subject}.{suffix}" for subject in intake.SUBJECTS if subject.startswith(prefix)),
        )
        for prefix in ("build", "service")
        for suffix in ("done", "error")
    ]
    return [
        *requests,
        *reports,
        Need("_INBOX.>", "answers to submitters", Level.WARNING, ("_INBOX.doctor.1",)),
        Need("_R_.>", "answers to submitters in another account", Level.NOTE, ("_R_.doctor",)),
        Need("$SRV.PING.scheduler", "the question whether another scheduler is running"),
        Need(CONNECTIONS, "the question whether a silent scheduler subscribes", Level.NOTE),
        Need(CANDIDATES, "the question whether another scheduler is starting"),
        Need(f"{EVENTS}*", "progress", Level.WARNING, (f"{EVENTS}doctor",)),
        Need(
            f"{CANCEL}*.*.*",
            "word to connectors that an attempt was given up",
            Level.WARNING,
            (f"{CANCEL}doctor.create.doctor",),
        ),
    ]


def _ernest() -> list[Need]:
    words = (
        "set.mapping",
        "get.mapping",
        "set.mapping.change",
        "set.mapping.component",
        "del.mapping.component",
    )
    why = "the lease of the one scheduler that works, where the broker has JetStream"
    lines = ("$JS.API.INFO", *(f"$JS.API.STREAM.{verb}.{KV_LEASES}" for verb in ("CREATE", "MSG.GET")), NEWS)
    return [
        *(Need(f"build.{word}", "questions to the Ernest store") for word in (*words, "find")),
        *(Need(line, why, Level.NOTE) for line in lines),
        Need(f"$KV.{LEASES}.>", why, Level.NOTE, (f"$KV.{LEASES}.ernest.doctor",)),
        Need(f"{INSTANCE}*.*", "the question who stands by", Level.NOTE, (f"{INSTANCE}doctor.doctor",)),
    ]


def _jetstream(providers: Sequence[str]) -> list[Need]:
    streams = (LOG, REPLIES, *map(replies_of, providers), REPORTS, OBJECTS)
    needs = [
        Need("scheduler.log.*", "the log", samples=("scheduler.log.doctor",)),
        Need("scheduler.report.*.*", "stored reports", samples=("scheduler.report.doctor.1",)),
        Need(
            f"$O.{BUCKET}.>",
            "builds and reports too large for a message",
            samples=(f"$O.{BUCKET}.C.doctor", f"$O.{BUCKET}.M.doctor"),
        ),
        Need(f"$KV.{LEASES}.>", "leases", samples=(f"$KV.{LEASES}.lease.doctor",)),
        Need(NEWS, "word to other instances"),
        Need(CHANGED, "word of the limits that instances share"),
        Need(f"{INSTANCE}*.*", "questions to other instances", samples=(f"{INSTANCE}doctor.doctor",)),
        Need(f"{CONTROL}instances", "the question of a probe, under this login", Level.NOTE),
        *(Need(f"$JS.API.STREAM.{verb}.{KV_LEASES}", "leases") for verb in ("CREATE", "MSG.GET", "PURGE")),
        Need("$JS.API.INFO", "the question for JetStream"),
        Need("$JS.API.STREAM.NAMES", "the question which streams overlap with ours", Level.WARNING),
        Need(
            "$JS.API.STREAM.INFO.*",
            "the question how its streams are configured",
            samples=tuple(f"$JS.API.STREAM.INFO.{stream}" for stream in streams),
        ),
    ]
    for stream in streams:
        api = "$JS.API"
        needs += [
            Need(f"{api}.STREAM.CREATE.{stream}", f"creating {stream}"),
            Need(f"{api}.STREAM.MSG.GET.{stream}", f"reading {stream}"),
            Need(
                f"{api}.CONSUMER.CREATE.{stream}.>",
                f"reading {stream}",
                samples=(f"{api}.CONSUMER.CREATE.{stream}.doctor",),
            ),
            Need(
                f"{api}.CONSUMER.MSG.NEXT.{stream}.*",
                f"reading {stream}",
                samples=(f"{api}.CONSUMER.MSG.NEXT.{stream}.doctor",),
            ),
            Need(
                f"{api}.CONSUMER.DELETE.{stream}.*",
                f"finishing reading {stream}",
                Level.WARNING,
                (f"{api}.CONSUMER.DELETE.{stream}.doctor",),
            ),
        ]
        if stream.startswith(REPLIES):
            needs.append(Need(f"{api}.STREAM.UPDATE.{stream}", f"changing the subjects of {stream}"))
        else:
            needs.append(Need(f"{api}.STREAM.PURGE.{stream}", f"removing old messages of {stream}"))
    return needs


def _own() -> list[Need]:
    why = "tests of this diagnosis, which a service does not make"
    return [
        Need("scheduler.doctor.*", why, Level.NOTE, (DOCTOR_SUBJECT,)),
        *(
            Need(f"$JS.API.STREAM.{verb}.{DOCTOR}", why, Level.NOTE)
            for verb in ("CREATE", "DELETE", "MSG.GET")
        ),
    ]


def publishes(store: str, providers: Sequence[str] = ()) -> list[Need]:
    """List what a service with this store publishes; replies of ``providers`` have their own streams."""
    match store:
        case "memory":
            return _core()
        case "ernest":
            return [*_core(), *_ernest()]
        case _:
            return [*_core(), *_jetstream(providers), *_own()]


SUBSCRIPTIONS: Final = (
    *intake.SUBJECTS,
    *REPLY_SUBJECTS,
    OLD,
    EVERY,
    EVERY_BEAT,
    EVERY_RETURNED,
    CANDIDATES,
    NEWS,
    CHANGED,
    f"{INSTANCE}*.*",
    f"{CONTROL}*",
    *(
        f"$SRV.{verb}{tail}"
        for verb in ("PING", "INFO", "STATS")
        for tail in ("", ".scheduler", ".scheduler.doctor")
    ),
)
"""Subjects to which the service subscribes, beside its inbox, without which there is no connection."""


async def check_permissions(
    diagnosis: Diagnosis, bus: Bus, store: str, providers: Sequence[str] = ()
) -> None:
    """Check all that a service with this store needs; replies of ``providers`` have their own streams.

    Raises:
        BusError: the bus cannot be used.
    """
    unheard = await refused_subscriptions(bus, SUBSCRIPTIONS)
    if unheard:
        lines = ", ".join(f'"{subject}"' for subject in unheard)
        text = f"{len(unheard)} of the {len(SUBSCRIPTIONS)} subscriptions that it needs are refused"
        diagnosis.fail("permissions", text, _CURE.format(verb="subscribe to", lines=lines))
    version = parse(diagnosis.version)
    if version is None or version < TRACES:
        what = "may subscribe to all that it needs; " if not unheard else ""
        diagnosis.note("permissions", f"{what}publishing is not checked: that needs nats-server 2.11")
        return
    needs = publishes(store, providers)
    refused = await refused_publishes(bus, [subject for need in needs for subject in need.subjects])
    if refused is None:
        diagnosis.warn(
            "permissions",
            "publishing cannot be checked: we may not publish on our own inbox",
            _CURE.format(verb="publish on", lines='"_INBOX.>"'),
        )
        return
    denied = [need for need in needs if refused.intersection(need.subjects)]
    for level, add in (
        (Level.FAILURE, diagnosis.fail),
        (Level.WARNING, diagnosis.warn),
        (Level.NOTE, diagnosis.note),
    ):
        these = [need for need in denied if need.level is level]
        if these:
            reasons = ", ".join(dict.fromkeys(need.why for need in these))
            lines = ", ".join(f'"{need.line}"' for need in these)
            add("permissions", f"may not publish: {reasons}", _CURE.format(verb="publish on", lines=lines))
    if not denied and not unheard:
        diagnosis.ok("permissions", "may publish and subscribe on all that it needs")


async def refused_subscriptions(bus: Bus, subjects: Iterable[str]) -> list[str]:
    """Find the subjects to which the broker does not let us subscribe."""
    refused = []
    for subject in subjects:
        try:
            with trio.fail_after(_DEADLINE):
                subscription = await bus.subscribe(subject, _ignore)
                await subscription.unsubscribe()
        except BusError:
            refused.append(subject)
    return refused


async def refused_publishes(bus: Bus, subjects: Iterable[str]) -> set[str] | None:
    """Find the subjects on which the broker does not let us publish; None if that is impossible.

    The server must be able to trace messages: an older one would deliver them.
    """
    inbox = bus.new_inbox()
    refused: set[str] = set()
    bus.on_refused(refused.add)
    headers = {"Nats-Trace-Dest": inbox, "Nats-Trace-Only": "true"}
    for subject in subjects:
        bus.publish(subject, b"", headers=headers)
    with trio.fail_after(_DEADLINE):
        await bus.flush()
    return None if inbox in refused else refused


def _ignore(_: Message) -> None:
    """Ignore a message, which is only a copy."""
