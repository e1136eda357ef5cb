"""Parts of a secret value that are secret by themselves: values of a document, lines of a key."""

import binascii
import re
from base64 import b64decode
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import unquote

import msgspec

from scheduler.definition.secrets.names import (
    is_public_name,
    is_secret_among_credentials,
    is_secret_name,
    like_a_secret,
)

_MOST_READ: Final = 65_536
"""Most characters of a value that are read as a document, or decoded; a longer one is split into lines."""
_SHORTEST_LINE: Final = 8
_DEEPEST: Final = 64

_SCHEME = re.compile(r"(?:Bearer|Basic|Digest|Token|ApiKey|Negotiate)\s{1,9}(\S+)$", re.IGNORECASE)
_PAIR = re.compile(
    r"""(?:export\s{1,9}|-\s{1,9})?["']?([A-Za-z_][\w.-]{0,127})["']?\s{0,99}(?:=>|[:=])(?!=*$)\s{0,99}(\S.*)""",
    re.DOTALL,
)
"""A line of YAML, of settings, or of shell."""
_BASE64 = re.compile(r"[A-Za-z0-9+/_-]{8,}={0,2}")
_PARAMETER = re.compile(r"[?&;]([\w.-]{1,128})=([^&;#\s\"'<>]{4,})")
_USER = re.compile(r"://([^\s\"'<>]{1,1024})")
_BROKEN: Final = dict.fromkeys(map(ord, "\r\n\t"), " ")
_AROUND: Final = " \t\r\n,;\"'"


def parts_of(value: str, *, deep: bool = True) -> Iterator[str]:
    """Yield the parts of a secret value that are secret by themselves; none for a word.

    Args:
        value: the value, without white space around it.
        deep: whether its content in base64 counts as well.

    Yields:
        Each part; and "" wherever a little work was done in vain.
    """
    yield from url_secrets(value)
    scheme = _SCHEME.match(value)
    if scheme is not None:
        yield scheme[1]
        value = scheme[1]
    if len(value) > _MOST_READ:
        yield from _of_lines(value)
        return
    if value[:1] in {"{", "["} and value[-1:] in {"}", "]"}:
        try:
            document = msgspec.json.decode(value)
        except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
            pass
        else:
            yield from _of_document(document)
            return
    if "\n" in value:
        yield from _of_lines(value)
    elif any(mark in value for mark in ";=:"):
        for pair in re.split(r"[;\s]\s*", value):
            yield ""
            yield from _of_line(pair, whole=False)
    if deep and _BASE64.fullmatch(value):
        inner = _decoded(value)
        if inner is not None:
            yield inner
            user, colon, password = inner.partition(":")
            if colon and "\n" not in inner and user.isprintable() and " " not in user:
                yield password
            yield from parts_of(inner, deep=False)


def url_secrets(text: str) -> Iterator[str]:
    """Yield passwords in the URLs of a text, and their parameters with secret names."""
    if "://" not in text:
        return
    for match in _USER.finditer(text):
        yield ""
        rest = match[1]
        if "@" in rest:
            authority = rest.partition("/")[0]
            # A password may contain slashes.
            user, _, _ = (authority if "@" in authority else rest).rpartition("@")
            name, colon, password = user.partition(":")
            if not colon and like_a_secret(name):
                password = name
            yield from {password, unquote(password)}
        if "=" in rest:
            for parameter in _PARAMETER.finditer(rest):
                if is_secret_name(parameter[1]) or parameter[1].lower() in {"sig", "signature"}:
                    yield from {parameter[2], unquote(parameter[2])}


def _of_document(document: Any) -> Iterator[str]:
    todo: list[tuple[str, Any]] = [("", document)]
    while todo:
        name, value = todo.pop()
        yield ""
        if isinstance(value, dict):
            todo += ((key, item) for key, item in value.items())
            if is_secret_name(name):
                yield from filter(like_a_secret, value)
        elif isinstance(value, list):
            todo += ((name, item) for item in value)
        elif isinstance(value, str):
            yield from _under(name, value)
        elif isinstance(value, int) and not isinstance(value, bool):
            yield from _under(name, str(value))


def _of_lines(value: str) -> Iterator[str]:
    begin = 0
    while begin <= len(value):
        end = value.find("\n", begin)
        end = len(value) if end < 0 else end
        yield ""
        yield from _of_line(value[begin : min(end, begin + _MOST_READ)].strip(), whole=True)
        begin = end + 1


def _of_line(line: str, *, whole: bool) -> Iterator[str]:
    pair = _PAIR.match(line)
    if pair is not None and line[pair.start(2) - 1 : pair.start(2) + 2] != "://":
        yield from _under(pair[1], pair[2].strip(_AROUND))
    elif whole and len(line) >= _SHORTEST_LINE and not line.startswith("-----") and not line.endswith(":"):
        yield line.removeprefix("- ").strip(_AROUND)


def _under(name: str, value: str) -> Iterator[str]:
    """Yield the secrets in ``value``, which stands under ``name`` in a document."""
    if "://" in value:
        yield from url_secrets(value)
    elif is_secret_among_credentials(name) or (not is_public_name(name) and like_a_secret(value)):
        yield value
        if len(value) <= _MOST_READ and _BASE64.fullmatch(value) and (inner := _decoded(value)) is not None:
            yield inner
            yield from _of_lines(inner)
        elif "\n" in value:
            yield from _of_lines(value)


def _decoded(value: str) -> str | None:
    """Return the text encoded in base64; None where there is none."""
    digits = value.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        text = b64decode(digits + "=" * (-len(digits) % 4), validate=True).decode()
    except (binascii.Error, ValueError):
        return None
    return text.strip() if text.translate(_BROKEN).isprintable() else None
