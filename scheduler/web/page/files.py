"""Files of the page: scripts, style and icon as they ship, and the HTML that they stand in.

All of them are read at the start, so that no path of a request ever reaches the file system.
"""

import gzip
from collections.abc import Iterator, Mapping
from hashlib import sha256
from html import escape
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final

from attrs import field, frozen

TYPES: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".png": "image/png",
    ".svg": "image/svg+xml",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""Types of files that are served, by the end of their name."""


@frozen
class ShippedFile:
    """File as it is sent."""

    data: bytes = field(repr=False)
    type: str
    etag: str
    packed: bytes = field(repr=False)
    """The same by gzip; empty where that is not smaller."""


class Files:
    """Files of the page, by their path."""

    def __init__(self) -> None:
        self._files: dict[str, ShippedFile] = {}
        for path, file in _walk(resources.files("scheduler.web").joinpath("static"), ""):
            type_ = TYPES.get(path[path.rfind(".") :] if "." in path else "")
            if type_ is not None:
                data = file.read_bytes()
                packed = gzip.compress(data, 6, mtime=0)
                packed = packed if len(packed) < len(data) else b""
                self._files[path] = ShippedFile(data, type_, f'"{sha256(data).hexdigest()[:32]}"', packed)

    def get(self, path: str) -> ShippedFile | None:
        """Return a file that is served as it is; None where there is none, or where it is a template."""
        file = self._files.get(path)
        return None if file is None or path.endswith(".html") else file

    def html(self, name: str, values: Mapping[str, str]) -> bytes:
        """Return a page.

        Args:
            name: name of its template.
            values: texts in the places of ``{{name}}``, which may be anybody's.
        """
        text = self._files[f"{name}.html"].data.decode()
        for key, value in values.items():
            # What one of them holds is no place for another.
            text = text.replace(f"{{{{{key}}}}}", escape(value).replace("{", "&#123;"))
        return text.encode()


def _walk(folder: Traversable, path: str) -> Iterator[tuple[str, Traversable]]:
    for entry in sorted(folder.iterdir(), key=lambda one: one.name):
        if entry.is_dir():
            yield from _walk(entry, f"{path}{entry.name}/")
        else:
            yield f"{path}{entry.name}", entry
