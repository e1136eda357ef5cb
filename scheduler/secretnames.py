"""Which fields are secret by their name, and texts in which such a name stands before its value.

There is one list of names, for logs, events, terminals and errors alike. A name decides by its words,
however they are joined (``db_password``, ``dbPassword``, ``DB-PASSWORD``): ``token`` is secret,
``token_count`` and ``tokenizer`` are not.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

MASK: Final = "***"
"""What stands in the place of a secret."""

_LONGEST_KEPT = 128
_MOST_KEPT = 8_192

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|[0-9]+")
# All four on the words of a name, in lower case, with `_` between, before and after them.
_BETWEEN = re.compile(r"[\W_]+")
_TELLING = re.compile(
    r"passw|passphrase|passwd|_pass_|pwd_|secret(?!ar)|tokens?_|credential|bearer|jwt|kubeconfig|_psk_|_nkeys?_|"
    r"authorization_|(?:api|access|private|shared|account|master|encryption|signing)_?keys?_|"
    r"(?:api|access|private)_?key|connection_?string_|amz_signature_"
)
_ABOUT_IT = re.compile(
    # What is known of a secret, or where it lies, is none: its name, size, age, policy. An AppRole's
    # `secret_id` is one, and an `access_key_id` is better not shown.
    r"_(?:counts?|length|size|ttl|types?|policy|policies|names?|arns?|path|file|filename|url|uri|endpoint|"
    r"versions?|expiry|expires|expires_(?:in|at|on)|expiration|lifetime|age|enabled|required|rotation|limit|"
    r"format|scopes?|issuer|audience|algorithm|refs?|status|(?:encryption|signing|master)_key_id)_$|"
    r"^_(?:max|min|num|total|has|is|use|used|enable|require|rotate)_"
)
_HINTS = (
    *("secret", "pass", "token", "credential", "pwd", "key", "jwt", "psk", "bearer", "kubeconfig"),
    *("authorization", "connection", "amz"),
)
"""One of these stands in every secret name, in lower case."""


class _Names(dict[str, bool]):
    """Names that were judged; what is looked up most of all must cost next to nothing."""

    def __missing__(self, name: str) -> bool:
        if len(name) > _LONGEST_KEPT:
            return _judge(name)
        if len(self) >= _MOST_KEPT:
            self.clear()
        verdict = self[name] = _judge(name)
        return verdict


def _judge(name: str) -> bool:
    if name == "_secret":
        # It names fields.
        return False
    # By its capitals, and without regard to them.
    words = "_".join(_WORDS.findall(name)).lower()
    framed = (f"_{words}_", f"_{_BETWEEN.sub('_', name.lower()).strip('_')}_")
    return any(map(_TELLING.search, framed)) and not any(map(_ABOUT_IT.search, framed))


_names = _Names()
_plain: set[str] = set()
"""Names that tell nothing: for many at a time."""

is_secret_name: Callable[[str], bool] = _names.__getitem__
"""Whether a field of this name holds a secret, whatever its value. Kept by name: 0.05 us the next time."""


_BARE = frozenset({"key", "keys", "pin"})
_BARE_AT_THE_END = _BARE | {"value", "data"}
"""Words that make a name secret only where credentials are kept: ``data``, but not ``data_center``."""
_PUBLIC = frozenset({"url", "urls", "environment", "vdc", "username", "region", "name", "id", "ids"})
"""What a field of credentials is by its last word, and no secret, whatever stands before it."""


def is_secret_among_credentials(name: str) -> bool:
    """Whether a field of this name holds a secret in a component that holds credentials.

    Such a component has much that is no secret: where its cloud is, whom to log in as, ids. Only names of
    secrets count, and there also those with a word such as ``key`` (``azure_key``, ``key2``, ``data``).
    """
    words = [word.lower() for word in _WORDS.findall(name) if not word.isdigit()]
    if not words or (words[-1] in _PUBLIC and words[-2:] != ["secret", "id"]):
        return False
    if _names[name]:
        return True
    bare = words[-1] in _BARE_AT_THE_END or not _BARE.isdisjoint(words)
    return bare and not _ABOUT_IT.search(f"_{'_'.join(words)}_")


def is_credentials(text: object) -> bool:
    """Whether a component's type, or a field's name, says that it holds credentials among other things."""
    return isinstance(text, str) and "credential" in text.lower()


def has_secret_names(document: Mapping[str, Any]) -> bool:
    """Whether anything in a component, or in another JSON object, may be secret for where it stands.

    Nearly always it is asked in vain: 2 us for a component of 15 fields and four lists or objects.
    """
    todo: list[Any] = [document]
    for value in todo:
        items = value
        if value.__class__ is dict:
            if not _plain.issuperset(value) and any(map(_tells, value)):
                return True
            if "_component" in value and is_credentials(value["_component"]):
                return True
            items = value.values()
        for item in items:
            if item.__class__ is dict or item.__class__ is list:
                todo.append(item)  # noqa: PERF401 - twice as fast as a list for each
    return False


def _tells(name: str) -> bool:
    if name == "_secret" or _names[name]:
        return True
    if len(name) <= _LONGEST_KEPT:
        if len(_plain) >= _MOST_KEPT:
            _plain.clear()
        _plain.add(name)
    return False


_NAME = re.compile(r"""(?<!\w)(?<!\w-)([A-Za-z_][\w-]{0,63}+)\\{0,3}["']?\s{0,3}(:|=>?)(\s{0,3})""")
"""A name and what stands between it and its value."""
_VALUE = re.compile(
    r"""
    "(?:[^"\\]|\\.)*+"?
    | '(?:[^'\\]|\\.)*+'?
    | \\{1,3}(["'])(?:(?!\\{1,3}\1).)*+(?:\\{1,3}\1)?
    | (?P<scheme>(?:Bearer|Basic|Digest|Token|AWS4-HMAC-SHA256)\s{1,3})?
      [^\s,;&"'<>()\[\]{}:\\] [^\s,;&"'<>()\[\]{}\\]*+
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)
_QUOTE = re.compile(r"""\\*["']""")
_BY_ITSELF = re.compile(
    r"""
    \b(?:AKIA|ASIA)[0-9A-Z]{16}\b
    | (?<![\w-])eyJ[\w-]{8,}+\.eyJ[\w-]{8,}+\.[\w-]*+
    | -----BEGIN\ [A-Z ]{0,30}?PRIVATE\ KEY-----(?:(?!-----END).)*+(?:-----END[A-Z ]{0,40}-----)?
    | (?<=\bBearer\ )(?=[A-Za-z_.~+/=-]{0,64}\d)[\w.~+/=-]{16,}+
    """,
    re.VERBOSE | re.DOTALL,
)
"""What shows by its form that it is a secret: ids of access keys, JSON web tokens, private keys."""
_SHORTEST_AFTER_SPACE = 8


def mask_named(text: str) -> str:
    """``text`` with the values masked that stand behind secret names in it.

    That is ``password=...``, ``"api_key": "..."``, ``Authorization: Bearer ...``, also within quoted JSON;
    and what is known by its form. Prose stays (``token: expected a string``): behind a colon and a space
    only what is quoted, or has a digit in it, counts as a value. Linear in the length of the text.
    """
    if any(mark in text for mark in ("AKIA", "ASIA", "eyJ", "PRIVATE KEY", "Bearer ")):
        text = _BY_ITSELF.sub(MASK, text)
    if "=" not in text and ":" not in text:
        return text
    low = text.lower()
    if not any(hint in low for hint in _HINTS):
        return text
    parts: list[str] = []
    done = 0
    for match in _NAME.finditer(text):
        if match.start() < done or not _names[match[1]]:
            continue
        if match[2] == ":" and text[match.start() - 1 : match.start()] == ":":
            # Within a path, such as arn:aws:secret:db.
            continue
        value = _VALUE.match(text, match.end())
        if value is None:
            continue
        shown = value[0]
        quote = _QUOTE.match(shown)
        if (
            quote is None
            and value["scheme"] is None
            and match[2] == ":"
            and match[3]
            and not _like_a_secret(shown)
        ):
            continue
        frame = quote[0] if quote else value["scheme"] or ""
        end = frame if quote and shown.endswith(frame) and len(shown) > len(frame) else ""
        parts += (text[done : match.end()], frame, MASK, end)
        done = value.end()
    return "".join((*parts, text[done:])) if parts else text


def _like_a_secret(word: str) -> bool:
    return len(word) >= _SHORTEST_AFTER_SPACE and any(character.isdigit() for character in word)
