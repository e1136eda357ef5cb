"""Which streams capture replies, and which subjects each of them takes: one for all, or one a provider.

JetStream has no bound for a part of a stream: who sends the most pushes everybody else's replies out of one
that is full. So providers may have streams of their own. No subject is in two streams, and none is in none
for longer than it takes to move it.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from attrs import frozen

from scheduler.config import Settings
from scheduler.definition.reply_subjects import EVERY, OLD, interest
from scheduler.definition.subjects import overlap, reply_subjects

REPLIES: Final = "SCHEDULER_REPLIES"
RETIRED: Final = "scheduler.replies.retired."
"""Where nobody publishes: what a stream of replies takes that is not to take any more, and is still read."""


@frozen
class Layout:
    """What is up to the operator."""

    replicas: int = 1
    """Copies of each stream: 1, 3 or 5."""
    capture: tuple[str, ...] = ()
    """The component types whose replies are captured; all where empty."""
    reply_bytes: int = 1024**3
    """How many bytes of replies each stream of them keeps."""
    providers: tuple[str, ...] = ()
    """The providers whose replies are captured, each in a stream of its own; all in one where empty."""


def layout_of(settings: Settings) -> Layout:
    """What an operator has set."""
    return Layout(
        replicas=settings.replicas,
        capture=settings.capture,
        reply_bytes=settings.reply_bytes,
        providers=settings.capture_providers,
    )


def replies_of(provider: str) -> str:
    """The stream that has a provider's replies; that of all where there is none for it alone (empty)."""
    return f"{REPLIES}_{provider}" if provider else REPLIES


def is_captured(layout: Layout, type_: str, provider: str) -> bool:
    """Whether replies of a provider's connector for a component type are captured, on whatever they come."""
    of_type = not layout.capture or type_ in layout.capture
    return of_type and (not layout.providers or provider in layout.providers)


def captures(layout: Layout) -> dict[str, list[str]]:
    """What each stream of replies takes, by its name; none of them takes what another does."""
    types = layout.capture or ("*",)
    if not layout.providers:
        return {REPLIES: [*reply_subjects(types), OLD, EVERY]}
    # What requests of an earlier version are answered on does not tell the provider.
    return {REPLIES: [OLD]} | {
        replies_of(provider): [*reply_subjects(types, provider), interest("*", provider)]
        for provider in layout.providers
    }


def narrowed(layout: Layout, taking: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """What streams of replies are to take until the others have what is theirs, of those that take more.

    Args:
        layout: as it is to be.
        taking: what each stream takes that is there, in the layout or not.
    """
    wanted = captures(layout)
    found = {}
    for name, subjects in taking.items():
        taken = list(subjects)
        theirs = [one for other, wants in wanted.items() if other != name for one in wants]
        if name in wanted:
            kept = [one for one in taken if not any(overlap(one, other) for other in theirs)]
        else:
            kept = [one for one in taken if one.startswith(RETIRED)]
        if kept != taken:
            found[name] = kept or [f"{RETIRED}{name.removeprefix(REPLIES).strip('_') or '-'}"]
    return found
