"""Reads and checks the settings of notifications: their URLs, the hosts that builds may name, the secret."""

import re
from pathlib import Path
from typing import Final

from scheduler.definition.destinations import Destination, read_destination, read_host
from scheduler.setting import invalid, wrong

_MOST_URLS: Final = 16
_MOST_HOSTS: Final = 64
_MOST_KEYS: Final = 4
_SHORTEST_KEY: Final = 24
"""Fewest bytes of a secret that signs."""
_LONGEST_SECRET: Final = 4_096
_PREFIX: Final = "whsec_"
"""Beginning of a secret in the form of Standard Webhooks: base64 follows."""
_BETWEEN_URLS: Final = r"\s*,\s*(?=https?://)"
"""Comma between two URLs; another one belongs to a URL."""


def parse_notify(text: str) -> tuple[str, ...]:
    """Parse comma-separated URLs, each once.

    Raises:
        InvalidSettings: one of them cannot be used, or there are too many.
    """
    urls = tuple(dict.fromkeys(filter(None, re.split(_BETWEEN_URLS, text.strip().strip(",")))))
    check_notify(urls)
    return urls


def check_notify(urls: tuple[str, ...]) -> None:
    """Check the URLs that every build is notified to.

    Raises:
        InvalidSettings: as `parse_notify`.
    """
    read_notify(urls)
    if len(urls) > _MOST_URLS:
        raise wrong("notify", f"names {len(urls)} URLs, of at most {_MOST_URLS}")


def read_notify(urls: tuple[str, ...]) -> tuple[Destination, ...]:
    """Return the destinations of URLs.

    Raises:
        InvalidSettings: one of them cannot be used.
    """
    destinations = []
    for number, url in enumerate(urls, 1):
        try:
            destinations.append(read_destination(url))
        except ValueError as error:
            # Not repeated: its path may be a secret.
            raise wrong("notify", f"URL {number}: {error}") from None
    return tuple(destinations)


def parse_notify_hosts(text: str) -> tuple[str, ...]:
    """Parse comma-separated hosts, each once.

    Raises:
        InvalidSettings: one of them is no host, or there are too many.
    """
    hosts = tuple(dict.fromkeys(filter(None, (part.strip() for part in text.split(",")))))
    check_notify_hosts(hosts)
    return hosts


def check_notify_hosts(hosts: tuple[str, ...]) -> None:
    """Check the hosts that builds may name.

    Raises:
        InvalidSettings: as `parse_notify_hosts`.
    """
    for host in hosts:
        try:
            read_host(host)
        except ValueError as error:
            raise invalid("notify_hosts", host, str(error)) from None
    if len(hosts) > _MOST_HOSTS:
        raise wrong("notify_hosts", f"names {len(hosts)} hosts, of at most {_MOST_HOSTS}")


def read_signing_keys(secret: str | None, file: Path | None) -> tuple[bytes, ...]:
    """Return the keys that notifications are signed with; several while one is replaced by another.

    Args:
        secret: the secret itself; several are separated by white space.
        file: file with the secret, or with one on each line.

    Raises:
        InvalidSettings: there is none, both are given, or one cannot be used.
    """
    if secret is not None and file is not None:
        raise wrong("notify_secret", "is given, and --notify-secret-file as well; choose one")
    name, text = "notify_secret", secret or ""
    if file is not None:
        name, text = "notify_secret_file", _text_of(file)
    keys = tuple(_key(name, word) for word in text.split())
    if not keys:
        raise wrong(name, "a secret is needed, as notifications are signed: 24 random characters or more")
    if len(keys) > _MOST_KEYS:
        raise wrong(name, f"has {len(keys)} secrets, of at most {_MOST_KEYS}")
    return keys


def _text_of(file: Path) -> str:
    name = "notify_secret_file"
    try:
        with file.open("rb") as opened:
            data = opened.read(_LONGEST_SECRET + 1)
        if len(data) > _LONGEST_SECRET:
            raise wrong(name, f"{str(file)!r} has more than {_LONGEST_SECRET:,} bytes")
        return data.decode("ascii")
    except OSError as error:
        raise wrong(name, f"cannot read {str(file)!r}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise wrong(name, f"{str(file)!r} is no text in ASCII") from None


def _key(name: str, word: str) -> bytes:
    try:
        # As `decode` of the file: what is no ASCII may differ between here and the receiver.
        key = word.encode("ascii")
        if word.startswith(_PREFIX):
            from base64 import b64decode  # noqa: PLC0415 - every command loads this module

            key = b64decode(word.removeprefix(_PREFIX), validate=True)
    except ValueError:
        raise invalid(name, None, f"is neither ASCII nor {_PREFIX} and base64") from None
    if len(key) < _SHORTEST_KEY:
        raise invalid(name, None, f"is shorter than {_SHORTEST_KEY} bytes: anyone could guess it")
    return key
