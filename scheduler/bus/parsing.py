"""Parsing of the server's data, message by message, as cheaply as Python can.

nats-py's parser cuts each message off the front of its buffer, by a regular expression. That costs as much as
dropping an unwanted message; so whole messages have another way here. Everything else is nats-py's.
"""

import re
from typing import Any, Final, TypeAlias

from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

_FEWEST = 4
"""Fewest words of a line that announces a message."""
_LONGEST_LINE: Final = 64 * 1024
"""Bytes from which on a line without an end is left to nats-py, which has its own limit for that."""
_VERSION: Final = b"NATS/1.0\r\n"
"""Beginning of headers without a status."""
_NAME: Final = re.compile(rb"[!-9;-~]+")


def parse_headers(headers: bytes) -> dict[str, str]:
    """Return a message's headers if nothing in them is unusual; otherwise none: nats-py is to be asked.

    nats-py goes through each name character by character, which takes longer than everything else about a
    build.
    """
    fields: dict[str, str] = {}
    if headers.startswith(_VERSION):
        for line in headers[len(_VERSION) :].split(b"\r\n"):
            if line:
                name, colon, value = line.partition(b":")
                if not colon or _NAME.fullmatch(name) is None:
                    return {}
                fields[name.decode()] = value.strip().decode("utf-8", "replace")
    return fields


class FastParser(Parser):
    """nats-py's parser, with a short cut.

    Usual data is handled by `feed`, which does not wait: waiting in asyncio takes a turn of Trio's for each
    step. If it meets anything else, the rest is for nats-py's own `parse`, until that has nothing left.
    """

    nc: Any
    buf: bytearray

    def __init__(self, nc: Any = None) -> None:
        super().__init__(nc)
        self._line = b""
        """Beginning of a line whose end has not come yet."""
        self._pieces: list[bytes] = []
        """Parts of a body that comes in several reads."""
        self._missing = 0
        """Bytes of that body still to come, including the end of its line."""
        self._announced: tuple[int, bytes, bytes, int] = (0, b"", b"", 0)
        """Subscription, subject, reply subject, and bytes of headers of that message."""

    @property
    def clean(self) -> bool:
        """Whether `parse` has nothing left, so that `feed` can continue."""
        return not self.buf and self.state != AWAITING_MSG_PAYLOAD

    def feed(self, data: bytes, at: int) -> tuple[bytes, int, bool]:
        """Handle data from ``at`` on, until other tasks are to get a turn, or something unusual comes.

        Returns:
            The data, with what was kept of earlier data; the place up to which it was handled; and whether
            the rest is for `parse`. Otherwise the rest is to be given here once more.
        """
        if self._missing:
            at = self._take_piece(data)
            if self._missing or self.nc.take(*self._collected()):
                return data, at, False
        elif self._line:
            data = self._line + data
            self._line = b""
        size, take = len(data), self.nc.take
        while at < size:
            end = data.find(b"\r\n", at)
            if end < 0:
                if size - at > _LONGEST_LINE:
                    return data, at, True
                self._line = data[at:]
                break
            words = data[at:end].split(b" ")
            if len(words) == _FEWEST and words[0] == b"MSG" and words[2].isdigit() and words[3].isdigit():
                # Nearly all are like that: without a reply subject, without headers.
                begin = end + CRLF_SIZE
                stop = begin + int(words[3])
                if stop + CRLF_SIZE <= size:
                    at = stop + CRLF_SIZE
                    if take(int(words[2]), words[1], b"", data[begin:stop], None):
                        return data, at, False
                    continue
            with_headers = data.startswith(b"HMSG ", at)
            if not with_headers and not data.startswith(b"MSG ", at):
                if data.startswith(b"PONG\r\n", at):
                    self.nc.note_pong()
                elif data.startswith(b"PING\r\n", at):
                    self.nc.answer_ping()
                else:
                    return data, at, True
                at = end + CRLF_SIZE
                continue
            found = _announcement(words, end + CRLF_SIZE, with_headers)
            if found is None:
                return data, at, True
            number, subject, answer, begin, body_at, stop = found
            if stop + CRLF_SIZE > size:
                self._announce(data, found)
                break
            at = stop + CRLF_SIZE
            headers = data[begin:body_at] if with_headers else None
            if take(number, subject, answer, data[body_at:stop], headers):
                return data, at, False
        return data, size, False

    def _announce(self, data: bytes, found: "_Announcement") -> None:
        """Note a message that has come only in part."""
        number, subject, answer, begin, body_at, stop = found
        self._announced = number, subject, answer, body_at - begin
        self._missing = stop + CRLF_SIZE - begin
        self._take_piece(data[begin:])

    def _take_piece(self, data: bytes) -> int:
        """Take the next part of the incoming message; return the place behind it."""
        taken = min(self._missing, len(data))
        body = self._missing - CRLF_SIZE
        if body > 0:
            self._pieces.append(data if body >= len(data) else data[:body])
        self._missing -= taken
        return taken

    def _collected(self) -> tuple[int, bytes, bytes, bytes, bytes | None]:
        """Return the message whose parts have all come."""
        number, subject, answer, length = self._announced
        body = b"".join(self._pieces)
        self._pieces.clear()
        if length:
            return number, subject, answer, body[length:], body[:length]
        return number, subject, answer, body, None


_Announcement: TypeAlias = tuple[int, bytes, bytes, int, int, int]
"""Subscription, subject and reply subject of a message; places of its headers and its body; its end."""


def _announcement(words: list[bytes], begin: int, with_headers: bool) -> _Announcement | None:
    """Return what the line before a message announces, from ``begin`` on; None if anything is unusual."""
    if len(words) < _FEWEST:
        return None
    _, subject, sid, *reply, needed = words
    try:
        number = int(sid)
        stop = begin + int(needed)
        body_at = begin + int(reply.pop()) if with_headers else begin
    except (ValueError, IndexError):
        return None
    if len(reply) > 1 or not begin <= body_at <= stop:
        return None
    return number, subject, reply[0] if reply else b"", begin, body_at, stop
