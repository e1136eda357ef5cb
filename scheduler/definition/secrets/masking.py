"""Masking: the secrets of one build, and texts and documents without them.

Secret are: every value under a secret name (`names`), at any depth, and its parts (`parts`); in a component
whose type says ``credential`` also values under names such as ``key``; fields that a component names in its
``_secret``; the password in any URL. A build learns its secrets when it is read, and from the replies of
connectors.

Masking is for logs, events and screens. The stored and the reported build are unchanged.

*Bounds.* However much comes in, `Secrets.add` and `Secrets.mask` take a few milliseconds. The rest is learned
by the calls that follow. Until then, and if there are more secrets than are kept, no text is shown at all. A
text is searched for all secrets at once, in time limited by its length.
"""

from collections.abc import Iterator, Mapping
from threading import Lock
from typing import Any, Final

from scheduler.definition.model import Build, State
from scheduler.definition.places import Raw
from scheduler.definition.secrets.encodings import views
from scheduler.definition.secrets.forms import forms_of, is_trivial, pieces_of
from scheduler.definition.secrets.index import LONGEST_START, SHORTEST, SecretIndex, Span, Tries, folded
from scheduler.definition.secrets.names import MASK, has_secret_names, named_value
from scheduler.definition.secrets.parts import parts_of
from scheduler.definition.secrets.patterns import mask_named
from scheduler.definition.secrets.places import HELD, NOT_SECRET, SECRET, entered, level_of, secret_values
from scheduler.definition.strictjson import decode_own
from scheduler.errors import Problem
from scheduler.runtime.yielding import yield_now
from scheduler.text import CUT, mask_url

HIDDEN: Final = f"{MASK} (not shown: the build has more secrets than are looked for)"
UNREAD: Final = f"{MASK} (not shown yet: what came in with it is still searched for secrets)"
_SHORTEST_PIECE = 8
"""Fewest characters of a secret between the references in a secret field."""
_PUNCTUATION = " \t\r\n.,:;/|@=&?\"'"
_LONGEST: Final = 65_536
"""Most characters of a value that are looked for; of a longer one its beginning, its end, and its lines."""
_LONG: Final = 256
"""Characters; the end of a longer value is also found by itself."""
_AT_ONCE: Final = 4_000
"""Members of lists, or as much other work, before other tasks have a turn: 1 to 2 ms."""
_MORE_AT_ONCE: Final = 2_000
"""As much again each time that a text is masked: there may be many of those between two turns."""
_OF_A_PART: Final = 8
_OF_A_VALUE: Final = 20
"""Work for a secret, and for a part of one, in members of lists."""
_A_KEPT_VALUE: Final = 250
"""Bytes that a value takes beside its characters."""
_ROOM: Final = 131_072
"""Bytes for the secrets of a build, to begin with."""
_ROOM_OF_A_COMPONENT: Final = 4_096
"""Bytes for each time that a component with secrets comes in."""
_ROOM_OF_A_CHARACTER: Final = 3
"""Bytes for each character of a secret."""
_MOST_CUTS: Final = 4
"""Marks of a cut text, the last ones, before which half a secret may stand."""
_BEYOND: Final = 2_048
"""Characters of a text that are looked at behind those that are to be shown."""
_MOST_OF_A_PROBLEM: Final = 4_000
"""Most characters of the description of one problem of a build."""
_LONGEST_KEPT: Final = 64
_MOST_KEPT: Final = 4_096
"""Characters of a text in a memo, and texts in it: the same few names stand in every component."""
_COMPONENTS = ("components", "changes")
_DEEPEST = 256


class Secrets:
    """The values known to be secret in one build.

    Several threads may learn at a time, and one may mask meanwhile.
    """

    __slots__ = ("_index", "_last", "_learns", "_room", "_todo", "_values", "full", "size")

    def __init__(self) -> None:
        self.full = False
        """Whether there are more than are kept: from then on texts are masked as a whole."""
        self.size = 0
        """Bytes that they take, about."""
        self._values: set[str] = set()
        self._index = SecretIndex()
        self._room = _ROOM
        self._todo: list[Iterator[int]] = []
        """Sources that are still to be learned from, the last one first."""
        self._learns = Lock()
        self._last: tuple[str, tuple[int, bool, int], str] = "", (0, False, 0), ""
        """The text that was masked last; the length to show, whether it was longer, and the number of
        secrets; and the result."""

    @classmethod
    def of(cls, build: Build) -> "Secrets":
        """Return the secrets of a build as it was read.

        To be run in a thread if the build is large, like the rest of reading.
        """
        secrets = cls()
        secrets.add(build.fields, literal=False, at_once=None)
        for component in build.components:
            yield_now()
            secrets.add(component.fields, literal=False, at_once=None)
        for change in build.changes:
            if change.sensitive:
                yield_now()
                literal = change.state is State.COMPLETED
                secrets.add(change.fields, literal=literal, at_once=None)
        return secrets

    @classmethod
    def of_document(cls, document: Mapping[str, Any]) -> "Secrets":
        """Return the secrets of a build, or of its report, as JSON, as far as they show by themselves."""
        secrets = cls()
        secrets.add_build(document)
        return secrets

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"<Secrets: {len(self)}>"

    @property
    def known(self) -> tuple[int, bool, bool]:
        """State of knowledge: changes whenever texts may have to be masked differently from before.

        A caller that asks whether a text masked before is still good also has the rest learned (`learn`).
        """
        learnt = self.learn()
        return len(self._values), self.full, learnt

    def add_build(self, document: Mapping[str, Any]) -> None:
        """Learn the secrets of a build, or of its report, as JSON: all at once, component by component."""
        lists = {key: document[key] for key in _COMPONENTS if isinstance(document.get(key), list)}
        self.add({key: document[key] for key in document if key not in lists}, literal=False, at_once=None)
        for components in lists.values():
            for component in components:
                yield_now()
                if isinstance(component, dict):
                    self.add(component, literal=False, at_once=None)

    def add_json(self, data: bytes, *, at_once: int | None = _AT_ONCE) -> None:
        """Learn the secrets of a component's JSON, such as a request with its references resolved."""
        self.add(decode_own(data), at_once=at_once)

    def add(
        self, document: Mapping[str, Any], *, literal: bool = True, at_once: int | None = _AT_ONCE
    ) -> None:
        """Learn the secrets of a component. If it has none, this takes 2 us.

        Args:
            document: its fields, such as a connector returned them; not to be changed afterwards.
            literal: whether braces in it are text. Otherwise they are references, which are no secrets.
            at_once: number of its members that are looked at before this returns; the rest is left to
                `learn`, and until then no text is shown. None: all of them, for a thread.
        """
        if not has_secret_names(document):
            return
        self._room += _ROOM_OF_A_COMPONENT
        learning = self._learning(document, literal=literal)
        if at_once is None:
            for _ in learning:
                yield_now()
        else:
            self._todo.append(learning)
            self.learn(at_once)

    def learn(self, at_once: int = _MORE_AT_ONCE) -> bool:
        """Continue to learn for some milliseconds; return whether everything is learned."""
        if not self._todo:
            return True
        if not self._learns.acquire(blocking=False):
            # Another thread is learning.
            return False
        try:
            while self._todo:
                learning = self._todo[-1]
                for work in learning:
                    at_once -= work
                    if at_once < 0:
                        return False
                self._todo.remove(learning)
        finally:
            self._learns.release()
        return True

    def _learning(self, document: Mapping[str, Any], *, literal: bool) -> Iterator[int]:
        """Learn from a document; yield now and then how much was done."""
        for value, work in secret_values(document):
            yield work
            if value:
                yield from self._learn(value, literal=literal)

    def _learn(self, value: str, *, literal: bool) -> Iterator[int]:
        if self.full or not value:
            return
        self._room += _ROOM_OF_A_CHARACTER * len(value)
        yield _OF_A_VALUE + (len(value) >> 6)
        if not literal and (value.startswith("$(") or "{{" in value):
            pieces = pieces_of(value)
            if not any(piece.strip() for piece in pieces):
                return
            for piece in pieces:
                if len(bare := piece.strip(_PUNCTUATION)) >= _SHORTEST_PIECE:
                    yield self._keep(bare)
        value = value.strip()
        if not value:
            return
        if len(value) <= _LONGEST and (value in self._values or is_trivial(value)):
            return
        # The beginning is masked as far as it is there.
        yield self._keep(value[:_LONGEST])
        if len(value) > _LONG:
            yield self._keep(value[-LONGEST_START:])
        for part in parts_of(value):
            yield _OF_A_PART + self._keep(part.strip())

    def _keep(self, value: str) -> int:
        """Keep a value to be found from now on; return how much work that was."""
        if self.full or len(value) < SHORTEST or value in self._values or is_trivial(value):
            return 1
        self._values.add(value)
        for form in forms_of(value):
            taken = len(form) + _A_KEPT_VALUE
            self._room -= taken
            if self._room < 0:
                self.full = True
                return 1
            self._index.add(form)
            self.size += taken
        return _OF_A_VALUE + (len(value) >> 6)

    def mask(self, text: str, most: int = 0) -> str:
        """Return ``text`` for people: without known secrets, and without values behind secret names.

        A secret is also found as JSON, Python, Go, HTML or a URL would write it, in capitals or without, in
        base64 and in hex. A text must be masked before it is cut or made printable: half a secret is found
        only before the mark of a cut text (`outcome.cut`), and where this method cuts.

        Args:
            text: the text to be shown.
            most: number of characters that are shown; 0: all. For a long text a limit takes less time.
        """
        if not self.learn():
            return UNREAD[:most] if most else UNREAD
        if self.full:
            return HIDDEN[:most] if most else HIDDEN
        if not most:
            return self._masked(text, cut=False)
        reach = most + _BEYOND
        looked_at, known = text[:reach], (most, len(text) > reach, len(self._values))
        if self._last[:2] != (looked_at, known):
            # An event and a line of the log tell the same error, and all attempts often the same one.
            shown = self._masked(looked_at, cut=len(text) > reach)[:most]
            self._last = looked_at, known, shown
        return self._last[2]

    def _masked(self, text: str, *, cut: bool) -> str:
        *parts, rest = text.rsplit(CUT, _MOST_CUTS) if CUT in text else [text]
        shown = [self._without_values(part, cut=True) for part in parts]
        return mask_url(mask_named(CUT.join([*shown, self._without_values(rest, cut=cut)])))

    def _without_values(self, text: str, *, cut: bool = False) -> str:
        if not self._values or len(text) < SHORTEST:
            return text
        tries = Tries(len(text))
        spans: list[Span] = []
        for view in views(text):
            found = self._index.find(folded(view.text), tries, cut=cut)
            spans += (view.place(*span) for span in found)
        return _without(text, spans)

    def mask_document(self, value: Any, memo: dict[str, str] | None = None) -> Any:
        """Return a JSON value for people: ``***`` under secret names, and every text in it masked.

        Args:
            value: the value.
            memo: short texts that were masked before, for a caller with many documents alike; to be used as
                long as `known` stays the same.
        """
        return self._shown(value, NOT_SECRET, None, 0, {} if memo is None else memo)

    def _shown(self, value: Any, level: int, named: Raw | None, depth: int, memo: dict[str, str]) -> Any:
        if value is None or isinstance(value, bool):
            return value
        if depth > _DEEPEST:
            return MASK
        if isinstance(value, Mapping):
            level, named = entered(value, level, named)
            pair = named_value(value)
            return {
                self._shown_key(str(key), memo): self._shown_under(
                    key, item, SECRET if key == pair else level, named, depth=depth, memo=memo
                )
                for key, item in value.items()
            }
        if isinstance(value, list | tuple):
            return [
                self._shown_under(at, item, level, named, depth=depth, memo=memo)
                for at, item in enumerate(value)
            ]
        return self._shown_text(value, memo) if isinstance(value, str) else value

    def _shown_under(
        self, key: str | int, item: Any, level: int, named: Raw | None, *, depth: int, memo: dict[str, str]
    ) -> Any:
        at, below = level_of(key, level, named)
        if item is None or isinstance(item, bool):
            return item
        if at == SECRET or (at == HELD and not isinstance(item, Mapping | list | tuple)):
            return MASK
        return self._shown(item, at, below, depth + 1, memo)

    def _shown_key(self, key: str, memo: dict[str, str]) -> str:
        # A key is not the same as a text: as a text a URL in it would be masked as well.
        name = f"{key}\0"
        if (shown := memo.get(name)) is None:
            shown = self._without_values(key)
            _remember(memo, name, shown)
        return shown

    def _shown_text(self, text: str, memo: dict[str, str]) -> str:
        if (shown := memo.get(text)) is None:
            shown = self.mask(text)
            _remember(memo, text, shown)
        return shown

    def mask_problem(self, problem: Problem) -> Problem:
        """Return a problem of a build for people and for its sender; only the beginning of a long one."""
        return Problem(self._without_values(problem.place), self.mask(problem.message, _MOST_OF_A_PROBLEM))


def _remember(memo: dict[str, str], text: str, shown: str) -> None:
    if len(text) <= _LONGEST_KEPT and len(memo) < _MOST_KEPT:
        memo[text] = shown


def _without(text: str, spans: list[Span]) -> str:
    """Return ``text`` with a mask for each of ``spans``; overlapping ones get one mask."""
    if not spans:
        return text
    parts: list[str] = []
    done = end = 0
    for begin, stop in sorted(spans):
        if begin > end or not parts:
            parts += (text[done:begin], MASK)
        end = done = max(end, stop)
    return "".join((*parts, text[done:]))
