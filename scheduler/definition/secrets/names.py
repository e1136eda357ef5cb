"""Names of secret fields.

There is one list of names for logs, events, terminals and errors. A name is judged by its words, however they
are joined (``db_password``, ``dbPassword``, ``DB-PASSWORD``): ``token`` is secret, ``token_count`` and
``tokenizer`` are not.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

MASK: Final = "***"
"""Text in place of a secret."""

_LONGEST_KEPT = 128
_MOST_KEPT = 8_192
_LONGEST_JUDGED = 256
"""Characters of each end of a long name that are judged."""
_MOST_LOOKED_AT = 5_000
"""Members of an object at any depth; a larger one has to be looked through in slices."""
_SHORTEST_LIKELY = 8

_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|[0-9]+")
# All four work on the words of a name, in lower case, with `_` between, before and after them.
_BETWEEN = re.compile(r"[\W_]+")
_TELLING = re.compile(
    r"passw|passphrase|passwd|passcode|_pass_|pwd_|_pw_|pword|secret(?!ar)|tokens?_|credential|bearer|jwt|"
    r"kubeconfig|dockerconfig|_psk_|_nkeys?_|authorization_|mnemonic|seed_phrase|snmp_community|"
    r"(?:api|access|private|shared|account|master|encryption|signing)_?keys?_|"
    r"(?:api|access|private)_?key|connection_?string_|_conn_str_|(?:amz|x_ms)_signature_|"
    # Only at the end: a name that begins like this is about something else (`host_key_checking`, `pat_pool`).
    r"(?:(?:ssh|tls|ssl|rsa|dsa|ecdsa|ed25519|pem|gpg|pgp|hmac|aes|cipher|crypto|auth|webhook|deploy|license|"
    r"session|client|server|host|service|application|app|function|recovery|unseal|unlock|join|wireguard|wg|"
    r"vpn|root|admin|subscription)_?keys?|cookies?|_t?otps?|(?:recovery|backup|unlock|mfa|one_time)_codes?|"
    r"_sas(?:_ur[li])?|(?:^|_git|hub|lab|azure|devops)_pat|_sig)_(?:(?:pem|data|value|base64|b64)_)?(?:[0-9]+_)?$"
)
_ABOUT_IT = re.compile(
    # Properties of a secret, or its location, are not secret: its name, size, age, policy. An AppRole's
    # `secret_id` is secret, and an `access_key_id` is better not shown; a URL with a SAS is secret.
    r"_(?:counts?|length|size|ttl|types?|policy|policies|names?|arns?|path|file|filename|(?<!sas_)ur[li]|"
    r"endpoint|versions?|expiry|expires|expires_(?:in|at|on)|expiration|lifetime|age|enabled|required|"
    r"rotation|limit|format|scopes?|issuer|audience|algorithm|refs?|status|fingerprints?|bits|pairs?|"
    r"(?:encryption|signing|master|ssh|tls|host|session|client|service|root|function)_keys?_ids?)_$|"
    r"^_(?:max|min|num|total|has|is|use|used|enable|require|rotate)_|_public_(?:[a-z0-9]+_)?keys?_"
)
HINTS: Final = (
    *("secret", "pass", "token", "credential", "pwd", "_pw", "pword", "key", "jwt", "psk", "bearer"),
    *("kubeconfig", "dockerconfig", "authorization", "connection", "conn", "signature", "sig", "otp", "sas"),
    *("cookie", "mfa", "code", "mnemonic", "phrase", "community", "pat"),
)
"""Parts of which every secret name has at least one, in lower case."""


class _Names(dict[str, bool]):
    """Verdicts by name; the most frequent look-up of all must cost next to nothing."""

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
    if len(name) > 2 * _LONGEST_JUDGED:
        name = f"{name[:_LONGEST_JUDGED]} {name[-_LONGEST_JUDGED:]}"
    # With its capitals, and without regard to them.
    words = "_".join(_WORDS.findall(name)).lower()
    framed = (f"_{words}_", f"_{_BETWEEN.sub('_', name.lower()).strip('_')}_")
    return any(map(_TELLING.search, framed)) and not any(map(_ABOUT_IT.search, framed))


_names = _Names()
_plain: set[str] = set()
"""Names that are not secret: for checking many at a time."""

is_secret_name: Callable[[str], bool] = _names.__getitem__
"""Return whether a field of this name holds a secret, whatever its value. Kept by name: 0.05 us."""


is_judged: Callable[[str], bool] = _names.__contains__
"""Return whether the verdict on a name is known; to find out takes 5 us."""

_BARE = frozenset({"key", "keys", "pin"})
_BARE_AT_THE_END = _BARE | {"value", "data"}
"""Words that make a name secret only among credentials: ``data``, but not ``data_center``."""
_PUBLIC = frozenset({"url", "urls", "environment", "vdc", "username", "region", "name", "id", "ids"})
_PUBLIC_IN_DOCUMENTS = _PUBLIC | {
    *("user", "email", "host", "hostname", "server", "address", "port", "type", "kind", "version", "uri"),
    *(
        "cluster",
        "namespace",
        "context",
        "provider",
        "zone",
        "database",
        "dbname",
        "path",
        "file",
        "endpoint",
    ),
    *("project", "domain", "issuer", "audience", "source", "algorithm", "expires", "expiration", "date"),
}
"""Last words of names that are public among credentials, whatever stands before them."""


def is_secret_among_credentials(name: str) -> bool:
    """Whether a field of this name holds a secret in a component that holds credentials.

    Much in such a component is not secret: the place of its cloud, the user, ids. Only names of secrets
    count, and here also those with a word such as ``key`` (``azure_key``, ``key2``, ``data``).
    """
    words = [word.lower() for word in _WORDS.findall(name) if not word.isdigit()]
    if not words or (words[-1] in _PUBLIC and words[-2:] != ["secret", "id"]):
        return False
    if _names[name]:
        return True
    bare = words[-1] in _BARE_AT_THE_END or not _BARE.isdisjoint(words)
    return bare and not _ABOUT_IT.search(f"_{'_'.join(words)}_")


def is_public_name(name: str) -> bool:
    """Whether the value under this name in a secret document is public, whatever it looks like."""
    words = [word.lower() for word in _WORDS.findall(name) if not word.isdigit()]
    return bool(words) and words[-1] in _PUBLIC_IN_DOCUMENTS


def like_a_secret(word: str) -> bool:
    """Whether a word of which nothing else is known may be a secret: it is long, with a digit in it."""
    return len(word) >= _SHORTEST_LIKELY and any(map(word.__contains__, "0123456789"))


def named_value(document: Mapping[str, Any]) -> str | None:
    """Return the key of the secret in an object that names it: ``{"name": "DB_PASSWORD", "value": ...}``."""
    for name, value in _NAMED_VALUES:
        if value in document and isinstance(called := document.get(name), str) and is_secret_name(called):
            return value
    return None


def may_name_value(document: Mapping[str, Any]) -> bool:
    """Whether an object has the keys of one that names its secret; `named_value` looks at the name, too."""
    return any(name in document and value in document for name, value in _NAMED_VALUES)


_NAMED_VALUES: Final = (("name", "value"), ("key", "value"), ("Name", "Value"), ("Key", "Value"))
_OF_PAIRS: Final = frozenset(value for _, value in _NAMED_VALUES)


def is_credentials(text: object) -> bool:
    """Whether a component's type, or a field's name, says that it holds credentials among other things."""
    return isinstance(text, str) and "credential" in text.lower()


def has_secret_names(document: Mapping[str, Any], *, texts: bool = True) -> bool:
    """Whether anything in a component, or in another JSON object, may be secret because of its place.

    Also true if it is too large to be looked through at once, or has an ``@``, which may end the password in
    a URL. The answer is nearly always no: 2 us for a component of 15 fields and four lists or objects.

    Args:
        document: the object.
        texts: whether it may have an ``@`` in a text.
    """
    todo: list[Any] = [document]
    left = _MOST_LOOKED_AT
    for value in todo:
        items = value
        left -= len(value)
        if left < 0:
            return True
        if type(value) is dict:
            if not _plain.issuperset(value) and (any(map(_tells, value)) or named_value(value) is not None):
                return True
            if "_component" in value and is_credentials(value["_component"]):
                return True
            items = value.values()
        for item in items:
            kind = type(item)
            if kind is str:
                # Nearly all are texts.
                if texts and "@" in item:
                    return True
            elif kind is dict or kind is list:
                todo.append(item)
    return False


def _tells(name: str) -> bool:
    if name == "_secret" or _names[name]:
        return True
    if len(name) <= _LONGEST_KEPT and name not in _OF_PAIRS:
        if len(_plain) >= _MOST_KEPT:
            _plain.clear()
        _plain.add(name)
    return False
