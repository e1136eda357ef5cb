"""Pages of a report, one component of it, and one value; with its secrets masked, or as it is.

All of this is synchronous, and for a thread: masking a thousand components may take a second.
"""

from collections.abc import Collection, Iterator
from typing import Any, Final

import msgspec
from attrs import field, frozen

from scheduler.control.suggestions import ended
from scheduler.control.verbs import Document
from scheduler.definition.nearly import nearly
from scheduler.definition.secrets.masking import Secrets
from scheduler.definition.splitting import SplitBuild
from scheduler.definition.strictjson import Raw, decode_own, encode, kind
from scheduler.definition.template.paths import MISSING, Path, Walker, parse, shown
from scheduler.errors import Refused, TemplateError
from scheduler.runtime.yielding import yield_now

PLAIN_OF_A_BUILD: Final = frozenset({"id", "action"})
PLAIN_OF_A_COMPONENT: Final = frozenset(
    {"_component_id", "_component", "_action", "_provider", "_state", "service"}
)
_PLAIN_OF_AN_EDGE: Final = frozenset({"source", "destination", "length"})
"""Fields that are shown as they are: ids and names are in every other answer, too."""
_COMMA: Final = 1
_USUAL: Final = 2 * 1024 * 1024
"""Bytes of a page, beyond which only a single entry goes: a larger one would hold the loop as it is sent."""


class _Named(msgspec.Struct):
    """Part of an entry that names it."""

    id: str = msgspec.field(name="_component_id", default="")


_decode_name = msgspec.json.Decoder(_Named).decode


@frozen
class Page:
    """Page of a report, as JSON text."""

    parts: dict[str, Raw] = field(repr=False)
    """Fields of the build, on the first page; and entries by list."""
    masked: bool
    """Whether something in it is masked."""
    next: int | None
    """Number of the entry that the next page begins with."""


@frozen
class ReportView:
    """View of a report.

    Args:
        report: the report.
        secrets: secrets to be masked, which must not change; None shows everything as it is.
    """

    report: SplitBuild
    secrets: Secrets | None
    memo: dict[str, str] = field(factory=dict, repr=False)
    """Short texts that were masked before, with the same secrets."""

    def page(self, start: int, limit: int, most_bytes: int) -> Page:
        """Return a page of entries.

        Args:
            start: number of the first entry, over all lists.
            limit: most entries.
            most_bytes: most bytes of the whole page.

        Raises:
            Refused: not even the first entry fits.
        """
        parts: dict[str, list[bytes]] = {}
        masked, size, build = False, 0, b""
        if not start:
            build, masked = self._shown_object(self.report.fields)
            size += len(build)
            if size > most_bytes:
                cure = "ask for single ones (--field), or for components (--component)"
                raise _too_large("the fields of the build itself", len(build), most_bytes, cure)
            parts = {name: [] for name in self.report.lists}
        position = start
        for name, index, raw in self._entries(start, start + limit):
            yield_now()
            text, hidden = self._shown(raw, _PLAIN_OF_AN_EDGE if name == "edges" else PLAIN_OF_A_COMPONENT)
            size += len(text) + _COMMA
            if position > start and size > min(_USUAL, most_bytes):
                break
            if size > most_bytes:
                raise self._entry_too_large(name, index, raw, len(text), most_bytes)
            masked |= hidden
            parts.setdefault(name, []).append(text)
            position += 1
        lists = {name: Raw(b"[%b]" % b",".join(texts)) for name, texts in parts.items()}
        total = sum(map(len, self.report.lists.values()))
        return Page(
            ({"build": Raw(build)} if build else {}) | lists, masked, position if position < total else None
        )

    @staticmethod
    def _entry_too_large(name: str, index: int, raw: Raw, size: int, most: int) -> Refused:
        if not (named := _decode_name(raw).id):
            return _too_large(f"{name}[{index}]", size, most)
        cure = f"ask for single fields of it (--component {named} --field NAME)"
        return _too_large(f"{name}[{index}], {named},", size, most, cure)

    def _entries(self, start: int, end: int) -> Iterator[tuple[str, int, Raw]]:
        """Yield the entries of these numbers, each with its list and its place there."""
        before = 0
        for name, entries in self.report.lists.items():
            for index in range(max(0, start - before), min(len(entries), end - before)):
                yield name, index, entries[index]
            before += len(entries)

    def component(self, name: str) -> Document | None:
        """Return a component: the change as it ended, or else what exists; None without one of this id."""
        for list_ in ("changes", "components"):
            for raw in self.report.lists.get(list_, ()):
                yield_now()
                if _decode_name(raw).id == name:
                    found: Document = decode_own(bytes(raw))
                    return found
        return None

    def names(self) -> list[str]:
        """Return the ids of all components."""
        lists = (self.report.lists.get(name, ()) for name in ("changes", "components"))
        found: dict[str, None] = {}
        for entries in lists:
            for raw in entries:
                yield_now()
                found[_decode_name(raw).id] = None
        return list(found)

    def fields(self) -> Document:
        """Return the fields of the build itself."""
        return {name: decode_own(bytes(raw)) for name, raw in self.report.fields.items()}

    def masked(self, document: Document, plain: Collection[str]) -> Document:
        """Return an entry, or the fields of the build, as this view shows them.

        Args:
            document: the entry or the fields.
            plain: names of fields that are shown as they are, where they hold a single text or number.
        """
        if self.secrets is None:
            return document
        names = {key: document[key] for key in plain if key in document}
        names = {key: value for key, value in names.items() if not isinstance(value, dict | list)}
        if len(names) == len(document):
            return document
        # The type tells whether it is a credential; the other names need not be searched.
        unsearched = names.keys() - {"_component"}
        told = {key: None if key in unsearched else value for key, value in document.items()}
        hidden: Document = self.secrets.mask_document(told, self.memo)
        return hidden | names

    def _shown(self, raw: Raw, plain: Collection[str]) -> tuple[bytes, bool]:
        """Return the text of an entry, and whether something in it is masked."""
        if self.secrets is None:
            return bytes(raw), False
        document = decode_own(bytes(raw))
        shown = self.masked(document, plain)
        return (encode(shown), True) if shown != document else (bytes(raw), False)

    def _shown_object(self, fields: Any) -> tuple[bytes, bool]:
        if self.secrets is None:
            return encode(fields), False
        document = self.fields()
        shown = self.masked(document, PLAIN_OF_A_BUILD)
        return encode(shown), shown != document


def value_of(document: Document, text: str, whose: str) -> Any:
    """Return the value of a field.

    Args:
        document: a component, or the fields of the build.
        text: path of the field, in the grammar of references.
        whose: name of the document, for messages.

    Raises:
        Refused: the path cannot be read, or leads to nothing; the text says how far it leads.
    """
    try:
        path = parse(text)
    except TemplateError as error:
        raise Refused("invalid", f"field: {error}") from None
    value, _ = Walker().walk(path, document)
    if value is not MISSING:
        return value
    raise Refused("unknown", _missing(document, path, whose))


def _missing(document: Document, path: Path, whose: str) -> str:
    """Return the message about a path that leads to nothing."""
    length = next(
        number for number in range(1, len(path) + 1) if Walker().walk(path[:number], document)[0] is MISSING
    )
    parent, _ = Walker().walk(path[: length - 1], document)
    name = shown(path[length - 1 : length])
    where = f"{shown(path[: length - 1])} of {whose}" if length > 1 else whose
    if isinstance(parent, dict):
        return f"{where} has no field {name!r}{ended(nearly(name, parent), list(parent), 'its fields are')}"
    if isinstance(parent, list):
        return f"{where} is a list of {len(parent)}, and has no {name!r}"
    return f"{where} is {kind(parent)}, and has no field {name!r}"


def _too_large(what: str, size: int, most: int, cure: str = "") -> Refused:
    cures = [*([cure] if cure else []), "raise max_payload in the broker's configuration"]
    text = f"{what} takes {size:,} bytes, over the {most:,} that an answer may have: {', or '.join(cures)}"
    return Refused("invalid", text)
