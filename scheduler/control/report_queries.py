"""Answers ``report``, about a build that has ended, and ``unmasked``, the same with its secrets."""

from typing import Any, Final

from scheduler.control import verbs
from scheduler.control.parts import Parts
from scheduler.control.registry import Verbs
from scheduler.control.report_pages import PLAIN_OF_A_BUILD, PLAIN_OF_A_COMPONENT, ReportView, value_of
from scheduler.control.report_reader import ReadReport
from scheduler.control.suggestions import suggest
from scheduler.control.verbs import PAGE, Document
from scheduler.definition.converter import LISTS
from scheduler.definition.strictjson import Raw, encode
from scheduler.errors import Refused

REPORTS: Final[Verbs[Parts]] = Verbs()

_ROOM: Final = 8 * 1024
"""Bytes of an answer beside its entries: ids, status, numbers."""
_LEAST: Final = 1024
"""Bytes of a page at least, however little the broker takes."""


@REPORTS.register(verbs.Report)
async def report(parts: Parts, request: verbs.Report) -> Document:
    """Show a page of a report, one component or one value, with secrets masked."""
    return await _answer(parts, request, masked=True)


@REPORTS.register(verbs.Unmasked)
async def unmasked(parts: Parts, request: verbs.Unmasked) -> Document:
    """Show the same, with secrets."""
    return await _answer(parts, request, masked=False)


async def _answer(parts: Parts, request: verbs.Report, *, masked: bool) -> Document:
    found = await parts.report_reader.read(request.id, request.run, request.identity, masked=masked)
    view = found.masked if masked else found.whole
    stored = found.stored
    head = {"id": stored.build, "run": stored.run, "status": stored.status, "identity": stored.identity}
    most = max(_LEAST, parts.most_bytes() - _ROOM)
    if request.component is None and request.field is None:
        limit = min(request.limit, PAGE)
        page = await parts.executor.run("reports", lambda: view.page(request.start, limit, most), long=True)
        return head | {"masked": page.masked} | page.parts | {"next": page.next}
    document, whose = await _document(parts, found, view, request)
    return head | await parts.executor.run(
        "reports", lambda: _part(view, document, request, whose, most), long=True
    )


def _part(view: ReportView, document: Document, request: verbs.Report, whose: str, most: int) -> Document:
    """Return a component, or the fields of the build, or one value of them, as JSON text."""
    plain = PLAIN_OF_A_BUILD if request.component is None else PLAIN_OF_A_COMPONENT
    shown, path = view.masked(document, plain), request.field
    if path is None:
        return _fitting("component", shown, whose, most) | {"masked": shown != document}
    value = value_of(shown, path, whose)
    masked = shown is not document and _is_masked(value, document, path, whose)
    return _fitting("value", value, f"{path} of {whose}", most) | {"masked": masked}


def _is_masked(value: Any, document: Document, path: str, whose: str) -> bool:
    try:
        return bool(value != value_of(document, path, whose))
    except Refused:
        # A masked name leads to it; the message would have the name itself.
        return True


async def _document(
    parts: Parts, found: ReadReport, view: ReportView, request: verbs.Report
) -> tuple[Document, str]:
    """Return the component that is asked for, or the fields of the build, and a name for it."""
    name = request.component
    if name is None:
        assert request.field is not None
        first = request.field.partition(".")[0]
        if first in LISTS and first in found.split.lists:
            text = f"field: {first} is a list of {len(found.split.lists[first]):,}: name a component of it"
            raise Refused("invalid", f"{text} (--component)")
        return await parts.executor.run("reports", view.fields), f"build {request.id}"
    document = await parts.executor.run("reports", lambda: view.component(name), long=True)
    if document is None:
        names = await parts.executor.run("reports", view.names, long=True)
        near = await suggest(name, names, "its components are")
        run = f"run {found.stored.run} of {request.id}"
        raise Refused("unknown", f"the report of {run} has no component {name!r}{near}")
    return document, name


def _fitting(name: str, value: Any, what: str, most: int) -> Document:
    """Return a part of an answer, if the broker takes it."""
    text = encode(value)
    if len(text) > most:
        over = f"{what} takes {len(text):,} bytes, over the {most:,} that an answer may have"
        cures = "ask for less of it (--field), or raise max_payload in the broker's configuration"
        raise Refused("invalid", f"{over}: {cures}")
    return {name: Raw(text)}
