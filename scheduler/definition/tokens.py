"""Ids as tokens of a subject."""

import re
from urllib.parse import unquote

_UNSAFE_IN_TOKEN = re.compile(rb"[^A-Za-z0-9_-]")


def encode_token(text: str) -> str:
    """Return ``text`` as one subject token: every byte outside ``[A-Za-z0-9_-]`` becomes ``=XX``."""
    return _UNSAFE_IN_TOKEN.sub(lambda match: b"=%02X" % match[0][0], text.encode()).decode("ascii")


def decode_token(token: str) -> str:
    """Return the text of a token made by `encode_token`; for any other token, the result is arbitrary."""
    return unquote(token.replace("=", "%"))
