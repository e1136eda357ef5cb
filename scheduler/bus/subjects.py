"""Rules for subjects, queue groups and headers, and the form of a message on the wire.

They are shared by the real bus and its in-memory twin, so that a test is refused whatever the broker would
refuse. nats-py lets some of it through, and the server then disconnects: an empty token, a control line over
4 KiB, a message whose headers take it over ``max_payload`` (nats-py counts the payload only).
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from scheduler.bus import HeaderBlock, Headers
from scheduler.definition.subjects import HeaderValue
from scheduler.errors import InvalidSubject, MessageTooLarge

MAX_SUBJECT_BYTES = 512
"""Most bytes of a subject: far below the server's 4 KiB for a control line with two subjects and sizes."""

_WORD = r"[^\x00-\x20\x7f-\xa0.*>\u2028\u2029]+"
_SUBJECT = re.compile(rf"{_WORD}(?:\.{_WORD})*")
_PATTERN = re.compile(rf"(?:{_WORD}|\*)(?:\.(?:{_WORD}|\*))*(?:\.>)?|>")
_HEADER_KEY = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_HEADER_LINE = "NATS/1.0"
_LINE_END = "\r\n"
_BEHIND_FIRST_LINE = len(_HEADER_LINE) + len(_LINE_END)
_PRINTABLE = bytes(range(0x20, 0x7F))
_SHORT = 128
"""Characters of a reply subject that cannot be too long."""


def encode_subject(subject: str, what: str = "subject") -> bytes:
    """Return a subject for publishing, as bytes.

    Raises:
        InvalidSubject: it is empty or too long, or has an empty token, a wildcard, white space or a control
            character.
    """
    return _encode(
        _SUBJECT, subject, what, "dot-separated tokens without wildcards, spaces or control characters"
    )


def encode_pattern(subject: str) -> bytes:
    """Return a subject for subscribing, as bytes: a whole token may be ``*``, the last one ``>``.

    Raises:
        InvalidSubject: as for ``encode_subject``, or a wildcard stands in the wrong place.
    """
    return _encode(
        _PATTERN, subject, "subject", "dot-separated tokens, '*' as a whole token, '>' as the last one"
    )


def encode_queue(queue: str) -> bytes:
    """Return the name of a queue group as bytes.

    Raises:
        InvalidSubject: as for ``encode_subject``.
    """
    return encode_subject(queue, "queue group")


def _encode(rule: re.Pattern[str], subject: str, what: str, expected: str) -> bytes:
    if rule.fullmatch(subject) is None:
        raise InvalidSubject(f"{what} {_shorten(subject)} is not allowed: expected {expected}")
    try:
        encoded = subject.encode()
    except UnicodeEncodeError:
        raise InvalidSubject(f"{what} {_shorten(subject)} is not valid Unicode") from None
    if len(encoded) > MAX_SUBJECT_BYTES:
        raise InvalidSubject(
            f"{what} {_shorten(subject)} takes {len(encoded)} bytes; at most {MAX_SUBJECT_BYTES} are allowed"
        )
    return encoded


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else f"{text[:77]}...")


# At most 3 MB: a subject over 512 bytes raises, and is not kept.
_known_subject = lru_cache(maxsize=2048)(encode_subject)
_known_beginning = lru_cache(maxsize=256)(encode_subject)


def _encode_reply(reply: str) -> bytes:
    """Return a reply subject and a blank before it, as bytes.

    Of those that begin alike, each ends with a token of its own.

    Raises:
        InvalidSubject: as for ``encode_subject``.
    """
    beginning, _, token = reply.rpartition(".")
    # Bytes are compared with letters and digits far sooner than text is.
    if token.isascii() and (end := token.encode()).isalnum() and len(reply) <= _SHORT:
        try:
            return b" %b.%b" % (_known_beginning(beginning), end)
        except InvalidSubject:
            # The whole of it has the better message.
            pass
    return b" " + encode_subject(reply, "reply subject")


@lru_cache(maxsize=64)
def _header_form(keys: tuple[str, ...]) -> tuple[str, bytes]:
    """Return a header block with places for the values of these keys, and the ends of its lines."""
    for key in keys:
        if _HEADER_KEY.fullmatch(key) is None:
            raise InvalidSubject(f"header {_shorten(key)} is not a token of printable ASCII")
    lines = [_HEADER_LINE, *(f"{key.replace('%', '%%')}: %s" for key in keys), "", ""]
    return _LINE_END.join(lines), _LINE_END.encode() * (len(lines) - 1)


def encode_headers(headers: Mapping[str, str]) -> bytes:
    """Return a header block, ready to stand before the payload.

    Raises:
        InvalidSubject: a key is not a token of RFC 7230, or a value is not printable ASCII.
    """
    form, ends = _header_form(tuple(headers))
    text = form % tuple(headers.values())
    # All values are checked at once: of what is right, nothing but the ends of the lines is left.
    if text.isascii() and (block := text.encode()).translate(None, _PRINTABLE) == ends:
        return block
    wrong = [key for key, value in headers.items() if not (value.isascii() and value.isprintable())]
    raise InvalidSubject(f"the value of header {wrong[0]!r} is not printable ASCII; percent-encode it")


class HeaderForm:
    """Header blocks with the same keys, which are checked once; values were checked where they come from.

    Args:
        keys: keys of the headers.

    Raises:
        InvalidSubject: a key is not a token of RFC 7230.
    """

    def __init__(self, *keys: str) -> None:
        self._form, _ = _header_form(keys)

    def filled(self, *values: HeaderValue) -> HeaderBlock:
        """Return the block with a value for each key."""
        return HeaderBlock((self._form % values).encode())

    def added(self, block: HeaderBlock, *values: HeaderValue) -> HeaderBlock:
        """Return a block with these headers behind its own."""
        return HeaderBlock(block[: -len(_LINE_END)] + (self._form % values).encode()[_BEHIND_FIRST_LINE:])


def compose(
    subject: str, data: bytes, reply: str, headers: Headers | HeaderBlock, max_payload: int
) -> tuple[bytes, int]:
    """Check a message; return its bytes before the payload, and its size for ``max_payload``.

    The payload and a CR LF are to follow. Subjects are remembered once checked; reply subjects, each of which
    is used once, are not.

    Raises:
        InvalidSubject: the subject, the reply subject or a header is not allowed.
        MessageTooLarge: payload and headers are over ``max_payload``.
    """
    to = _known_subject(subject)
    if reply:
        to += _encode_reply(reply)
    size = len(data)
    if not headers:
        if size > max_payload:
            raise MessageTooLarge(f"a message on {subject!r}", size, max_payload)
        return b"PUB %b %d\r\n" % (to, size), size
    block = headers if isinstance(headers, bytes) else encode_headers(headers)
    size += len(block)
    if size > max_payload:
        raise MessageTooLarge(f"a message on {subject!r} with its headers", size, max_payload)
    return b"HPUB %b %d %d\r\n%b" % (to, len(block), size, block), size


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subscription to ``pattern`` gets messages on ``subject``."""
    if pattern in (subject, ">"):
        return True
    wanted = pattern.split(".")
    got = subject.split(".")
    if wanted[-1] == ">":
        wanted.pop()
        if len(got) <= len(wanted):
            return False
        got = got[: len(wanted)]
    elif len(got) != len(wanted):
        return False
    return all(want in ("*", token) for want, token in zip(wanted, got, strict=True))
