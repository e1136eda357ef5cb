"""Keys of the users of a deployment. A seed is secret: it is written once, and never replaced."""

import os
import re
import secrets
from collections.abc import Callable, Iterable, Mapping
from typing import Final

import nkeys  # type: ignore[import-untyped]
from attrs import field, frozen

from scheduler.permissions import users

ROUTE: Final = "route.password"
"""File with the password by which the brokers know each other."""
_SEED_BYTES: Final = 32
_PASSWORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9_-]{15,}")


@frozen
class Keys:
    """Secrets of a deployment."""

    seeds: Mapping[str, str] = field(repr=False)
    """Seed of each user's nkey."""
    route: str = field(repr=False)
    """Password of the brokers among each other; it may stand in a URL."""
    words: Mapping[str, str] = field(factory=dict, repr=False)
    """Other secret words of the deployment, by the names of their files."""

    def public(self, user: str) -> str:
        """Return the public key of a user."""
        key: bytes = nkeys.from_seed(self.seeds[user].encode()).public_key
        return key.decode()

    @property
    def files(self) -> dict[str, str]:
        """Content of each file, by its name; ``--nkey`` takes those of seeds."""
        seeds = {f"{user}.nk": f"{seed}\n" for user, seed in self.seeds.items()}
        words = {name: f"{word}\n" for name, word in self.words.items()}
        return {**seeds, ROUTE: f"{self.route}\n", **words}


class BadKey(ValueError):
    """A file of keys holds something else; its name is the first argument."""


def make_keys(
    read: Callable[[str], str | None], names: Iterable[str] = (), words: Iterable[str] = ()
) -> Keys:
    """Return the keys that are there, and draw those that are not.

    Args:
        read: returns the content of a file of keys; None where there is none.
        names: names of the users; by default those of the shipped permissions.
        words: names of the files with other secret words.

    Raises:
        BadKey: what is there is no key.
    """
    seeds = {}
    for name in tuple(names) or tuple(user.name for user in users()):
        file = f"{name}.nk"
        text = read(file)
        seeds[name] = _drawn() if text is None else text.strip()
        if not _is_seed(seeds[name]):
            raise BadKey(file)
    route = read(ROUTE)
    # It begins with a letter: the broker takes what begins with a digit for a number.
    password = f"r{secrets.token_hex(16)}" if route is None else route.strip()
    if not _PASSWORD.fullmatch(password):
        raise BadKey(ROUTE)
    return Keys(seeds, password, {name: _word(name, read(name)) for name in words})


def _word(name: str, text: str | None) -> str:
    """Return a secret word, or several of them, one a line, while one is replaced by another."""
    if text is None:
        return secrets.token_urlsafe(_SEED_BYTES)
    word = text.strip()
    if not word:
        raise BadKey(name)
    return word


def _drawn() -> str:
    seed: bytes = nkeys.encode_seed(os.urandom(_SEED_BYTES), nkeys.PREFIX_BYTE_USER)
    return seed.decode()


def _is_seed(text: str) -> bool:
    try:
        prefix, _ = nkeys.decode_seed(text.encode())
    except nkeys.NkeysError:
        return False
    return bool(prefix == nkeys.PREFIX_BYTE_USER)
