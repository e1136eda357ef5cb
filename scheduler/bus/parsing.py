"""Takes apart what the server sends, message by message, as cheaply as Python can.

nats-py's parser cuts each message off the front of its buffer, by a regular expression. It costs as much as
dropping a message that nobody wants does; so for whole messages there is another way here. Whatever else
comes is nats-py's.
"""

import re
from typing import Any, Final, TypeAlias

from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

_FEWEST = 4
"""Words of a line that announces a message."""
_LONGEST_LINE: Final = 64 * 1024
"""Bytes from which on a line without an end is left to nats-py, which has its own idea of that."""
_VERSION: Final = b"NATS/1.0\r\n"
"""What headers begin with, if there is no status among them."""
_NAME: Final = re.compile(rb"[!-9;-~]+")


def parse_headers(headers: bytes) -> dict[str, str]:
    """The headers of a message that have nothing unusual; of any other nothing, and nats-py is to be asked.

    That goes through each name character by character, which takes longer than all else about a build.
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

    What is usual is handled by `feed`, which does not wait: whatever waits in asyncio takes a turn of Trio's
    for each step. Where it comes upon something else, the rest is for nats-py's own `parse`, until that has
    nothing left.
    """

    nc: Any
    buf: bytearray

    def __init__(self, nc: Any = None) -> None:
        super().__init__(nc)
        self._line = b""
        """What there is of a line that is still to end, of what `feed` was given."""
        self._pieces: list[bytes] = []
        """What there is of a body that several reads bring."""
        self._missing = 0
        """Bytes of it that are to come, with the end of the line behind it."""
        self._announced: tuple[int, bytes, bytes, int] = (0, b"", b"", 0)
        """Of that message the subscription, the subject, the reply subject, and the bytes of its headers."""

    @property
    def clean(self) -> bool:
        """Whether `parse` has nothing left, so that `feed` can go on."""
        return not self.buf and self.state != AWAITING_MSG_PAYLOAD

    def feed(self, data: bytes, at: int) -> tuple[bytes, int, bool]:
        """Have what was read handled from there on, until it is others' turn, or something unusual comes.

        Returns:
            What was read, with what was kept of it before; up to where it was handled; and whether the rest
            is for `parse`. Otherwise it is to be given here once more.
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
            found = _announcement(data[at:end], end + CRLF_SIZE, with_headers)
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
        """A message of which there is only a part."""
        number, subject, answer, begin, body_at, stop = found
        self._announced = number, subject, answer, body_at - begin
        self._missing = stop + CRLF_SIZE - begin
        self._take_piece(data[begin:])

    def _take_piece(self, data: bytes) -> int:
        """Take what belongs to the message that is coming in; gives the place behind it."""
        taken = min(self._missing, len(data))
        body = self._missing - CRLF_SIZE
        if body > 0:
            self._pieces.append(data if body >= len(data) else data[:body])
        self._missing -= taken
        return taken

    def _collected(self) -> tuple[int, bytes, bytes, bytes, bytes | None]:
        """The message of which all pieces are there."""
        number, subject, answer, length = self._announced
        body = b"".join(self._pieces)
        self._pieces.clear()
        if length:
            return number, subject, answer, body[length:], body[:length]
        return number, subject, answer, body, None


_Announcement: TypeAlias = tuple[int, bytes, bytes, int, int, int]
"""Of a message the subscription, the subject, the reply subject; where it, and its body, begins; its end."""


def _announcement(line: bytes, begin: int, with_headers: bool) -> _Announcement | None:
    """What the line before a message says, which begins at ``begin``; None where it has something unusual."""
    words = line.split(b" ")
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
