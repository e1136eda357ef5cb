"""Merging of the lists of builds of several instances into one page; pure."""

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from attrs import frozen

from scheduler.control.verbs import Document
from scheduler.definition.strictjson import encode

_QUARANTINED: Final = "quarantined"


class Page(msgspec.Struct, frozen=True):
    """Page of the builds of one instance, by id."""

    builds: list[Document]
    next: str | None = None
    """Id after which there are more; None where there are none."""


_decode: Final = msgspec.json.Decoder(Page).decode


def read_page(data: bytes) -> Page | None:
    """Read the answer of another instance; None where it is no list of builds."""
    try:
        page = _decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None
    return page if all(isinstance(one.get("id"), str) for one in page.builds) else None


@frozen
class Merged:
    """Page of the builds of all instances."""

    builds: list[Document]
    next: str | None


def merge(pages: Sequence[Page], *, limit: int, most_bytes: int) -> Merged:
    """Merge pages that begin after the same id, each build once.

    A page that is not the last one of its instance is silent about what comes after its end, so the merged
    page ends there at the latest.

    Args:
        pages: pages of all instances.
        limit: most builds of the merged page.
        most_bytes: most bytes of them as JSON; one build is in it in any case.
    """
    found: dict[str, Document] = {}
    for build in (one for page in pages for one in page.builds):
        known = found.get(build["id"])
        if known is None or _weight(build) > _weight(known):
            found[build["id"]] = build
    end = min((page.next for page in pages if page.next is not None), default=None)
    told = sorted(build for build in found if end is None or build <= end)
    kept = _fitting([found[build] for build in told[:limit]], most_bytes)
    if len(kept) < len(told):
        return Merged(kept, kept[-1]["id"])
    return Merged(kept, end)


def _weight(build: Document) -> tuple[int, int]:
    """Return what decides where several instances list a build: the later owner, then who set it aside."""
    epoch = build.get("epoch")
    if isinstance(epoch, int):
        return 2, epoch
    return int(build.get("status") == _QUARANTINED), 0


def _fitting(builds: Iterable[Document], most_bytes: int) -> list[Document]:
    kept: list[Document] = []
    for build in builds:
        most_bytes -= len(encode(build)) + 1
        if most_bytes < 0 and kept:
            break
        kept.append(build)
    return kept
