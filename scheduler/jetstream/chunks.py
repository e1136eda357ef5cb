"""Chunks of an object: data cut to their size, and the digest over them."""

import base64
import hashlib
from collections.abc import Iterable, Iterator

_DIGEST = "SHA-256="


class Sum:
    """Size and digest of an object, computed as its chunks pass by."""

    def __init__(self) -> None:
        self.size = 0
        """Size in bytes."""
        self.count = 0
        """Number of chunks."""
        self._digest = hashlib.sha256()

    @property
    def digest(self) -> str:
        """Digest in the form of an object's metadata."""
        return _DIGEST + base64.urlsafe_b64encode(self._digest.digest()).decode()

    def add(self, chunk: bytes) -> None:
        """Add a chunk."""
        self._digest.update(chunk)
        self.size += len(chunk)
        self.count += 1

    def of(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the same chunks, each added when it is taken."""
        for chunk in chunks:
            self.add(chunk)
            yield chunk


def recut(pieces: Iterable[bytes], size: int) -> Iterator[bytes]:
    """Yield the same bytes in pieces of ``size`` bytes each; the last one may be smaller."""
    rest: list[bytes] = []
    kept = 0
    for piece in pieces:
        start = 0
        while kept + len(piece) - start >= size:
            end = start + size - kept
            rest.append(piece[start:end])
            yield b"".join(rest)
            rest, kept, start = [], 0, end
        if start < len(piece):
            rest.append(piece[start:])
            kept += len(piece) - start
    if rest:
        yield b"".join(rest)
