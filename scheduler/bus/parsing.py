"""Takes apart what the server sends, message by message, as cheaply as Python can.

nats-py's parser cuts each message off the front of its buffer, by a regular expression. It costs as much as
dropping a message that nobody wants does; so for whole messages there is another way here. Whatever else
comes, and the one message that a read has cut in two, is nats-py's.
"""

import asyncio
import re
from typing import Any, Final

from nats.protocol.parser import AWAITING_MSG_PAYLOAD, CRLF_SIZE, Parser

_FEWEST = 4
"""Words of a line that announces a message."""
_VERSION: Final = b"NATS/1.0\r\n"
"""What headers begin with, if there is no status among them."""
_NAME: Final = re.compile(rb"[!-9;-~]+")


def parse_headers(headers: bytes) -> dict[str, str]:
    """The headers of a message that have nothing unusual; of any other nothing, and nats-py is to be asked.

    It goes through each name character by character, which takes longer than all else about a build.
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
    """nats-py's parser, with a short cut."""

    nc: Any
    buf: bytearray

    def __init__(self, nc: Any = None) -> None:
        super().__init__(nc)
        self._pieces: list[bytes] = []
        """What there is of a body that several reads bring."""
        self._missing = 0
        """Bytes of it that are to come, with the end of the line behind it."""
        self._announced: tuple[int, bytes, bytes, int] = (0, b"", b"", 0)
        """Of that message the subscription, the subject, the reply subject, and the bytes of its headers."""

    async def parse(self, data: bytes = b"") -> None:
        """Take in what was read, and have every message in it processed.

        Raises:
            nats.errors.ProtocolError: it is not what a server says.
        """
        at, size = 0, len(data)
        process = self.nc._process_msg  # noqa: SLF001 - this is part of the client
        take = self.nc.take
        if self._missing:
            at = self._take_piece(data)
            if self._missing:
                return
            number, subject, answer, length = self._announced
            body, headers = b"".join(self._pieces), None
            self._pieces.clear()
            if length:
                body, headers = body[length:], body[:length]
            await process(number, subject, answer, body, headers)
        elif self.state == AWAITING_MSG_PAYLOAD:
            # Of a line that has something unusual.
            missing = self.needed + CRLF_SIZE - len(self.buf)
            if missing > size:
                self.buf += data
                return
            self.buf += data[:missing]
            await super().parse()
            at = missing
        elif self.buf:
            data = bytes(self.buf) + data
            self.buf.clear()
            size = len(data)
        while at < size:
            with_headers = data.startswith(b"HMSG ", at)
            end = data.find(b"\r\n", at) if with_headers or data.startswith(b"MSG ", at) else -1
            if end < 0:
                break
            words = data[at:end].split(b" ")
            if len(words) < _FEWEST:
                break
            _, subject, sid, *reply, needed = words
            try:
                number, begin = int(sid), end + CRLF_SIZE
                stop = begin + int(needed)
                body_at = begin + int(reply.pop()) if with_headers else begin
            except (ValueError, IndexError):
                break
            if len(reply) > 1 or not begin <= body_at <= stop:
                break
            answer = reply[0] if reply else b""
            if stop + CRLF_SIZE > size:
                self._announced = number, subject, answer, body_at - begin
                self._missing = stop + CRLF_SIZE - begin
                self._take_piece(data[begin:])
                return
            at = stop + CRLF_SIZE
            if with_headers:
                await process(number, subject, answer, data[body_at:stop], data[begin:body_at])
            elif take(number, subject, answer, data[begin:stop], None):
                await asyncio.sleep(0)
        if at < size:
            self.buf += data[at:]
            await super().parse()

    def _take_piece(self, data: bytes) -> int:
        """Take what belongs to the message that is coming in; gives the place behind it."""
        taken = min(self._missing, len(data))
        body = self._missing - CRLF_SIZE
        if body > 0:
            self._pieces.append(data if body >= len(data) else data[:body])
        self._missing -= taken
        return taken
