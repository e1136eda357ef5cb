"""Capturing of replies: the streams of replies, and the subjects of each: one for all, or one a provider.

JetStream cannot limit a part of a stream: in a full one, the provider that sends the most pushes the replies
of all others out. So providers may have streams of their own. No subject is in two streams, and none is in no
stream for longer than it takes to move it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from attrs import frozen

from scheduler.config import Settings
from scheduler.definition.reply_subjects import EVERY, OLD, interest
from scheduler.definition.subjects import REPLY_SUBJECTS, overlap, reply_subjects

REPLIES: Final = "SCHEDULER_REPLIES"
_MOST_OWNERS: Final = 128
"""Owners of reply subjects that a consumer names; the server compares each message with them."""
RETIRED: Final = "scheduler.replies.retired."
"""Subject without publishers: given to a stream that is to take no more replies, and is still read."""


@frozen
class StreamLayout:
    """The operator's choices for the streams."""

    replicas: int = 1
    """Copies of each stream: 1, 3 or 5."""
    capture: tuple[str, ...] = ()
    """Component types whose replies are captured; all where empty."""
    reply_bytes: int = 1024**3
    """Bytes of replies that each of their streams keeps."""
    providers: tuple[str, ...] = ()
    """Providers whose replies are captured, each in a stream of its own; all in one where empty."""


def layout_of(settings: Settings) -> StreamLayout:
    """Return the layout by an operator's settings."""
    return StreamLayout(
        replicas=settings.replicas,
        capture=settings.capture,
        reply_bytes=settings.reply_bytes,
        providers=settings.capture_providers,
    )


def replies_of(provider: str) -> str:
    """Return the name of the stream with a provider's replies; the common one for an empty name."""
    return f"{REPLIES}_{provider}" if provider else REPLIES


def is_captured(layout: StreamLayout, type_: str, provider: str) -> bool:
    """Whether replies of a provider's connector for a component type are captured, on any subject."""
    of_type = not layout.capture or type_ in layout.capture
    return of_type and (not layout.providers or provider in layout.providers)


def captures(layout: StreamLayout) -> dict[str, list[str]]:
    """Return the subjects of each stream of replies, by its name; no subject is in two of them."""
    types = layout.capture or ("*",)
    if not layout.providers:
        return {REPLIES: [*reply_subjects(types), OLD, EVERY]}
    # The reply subjects of requests by an earlier version do not tell the provider.
    return {REPLIES: [OLD]} | {
        replies_of(provider): [*reply_subjects(types, provider), interest("*", provider)]
        for provider in layout.providers
    }


def followed(owners: Iterable[str]) -> list[str]:
    """Return the subjects of captured replies that may be to the requests of these owners.

    They are the same for all streams: one may still hold replies of an earlier layout.
    """
    few = owners if len(owners := sorted(set(owners))) <= _MOST_OWNERS else ["*"]
    return [*REPLY_SUBJECTS, OLD, *map(interest, few)]


def narrowed(layout: StreamLayout, taking: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Return the subjects that streams of replies keep for now, while other streams take over theirs.

    Only streams that have to give up subjects are in it.

    Args:
        layout: the desired layout.
        taking: subjects of each existing stream, in the layout or not.
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
