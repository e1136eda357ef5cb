"""Keeps the embedded broker's token and port in its data directory, so that both are the same at each start.

A connector that was given its URL finds it again after a restart. A file that is removed is made again:
that rotates the token, or lets the broker choose another port.
"""

import contextlib
import re
import secrets
import socket
from pathlib import Path
from typing import Final

import structlog

from scheduler.client.brokers import TOKEN_FILE
from scheduler.errors import BrokerError
from scheduler.runtime.private_files import read_private, write_private

PORT_FILE: Final = "port"
ANY_PORT: Final = -1
"""Makes nats-server listen on a free port."""
LOOPBACK: Final = "127.0.0.1"
# It stands in a URL, unescaped.
_TOKEN: Final = re.compile(r"[A-Za-z0-9_-]{16,256}")

log = structlog.get_logger(__name__)


def keep_token(data_dir: Path) -> str:
    """Return the token of a data directory; one without gets a random one.

    Raises:
        BrokerError: the file cannot be used, others may read it, or what it holds is no token.
    """
    path = data_dir / TOKEN_FILE
    try:
        kept = read_private(path)
        if kept is None:
            kept = secrets.token_urlsafe(24)
            write_private(path, f"{kept}\n")
    except PermissionError as error:
        cure = "make it yours alone (chmod 600), or remove it for a new token"
        raise BrokerError(
            f"cannot use the broker's token in {str(path)!r}: {error.strerror}; {cure}"
        ) from None
    except OSError as error:
        raise BrokerError(f"cannot use the broker's token in {str(path)!r}: {error.strerror}") from error
    token = kept.strip()
    if not _TOKEN.fullmatch(token):
        raise BrokerError(
            f"{str(path)!r} holds no token (16 to 256 letters, digits, - and _): remove it for a new one"
        )
    return token


def kept_port(data_dir: Path) -> int:
    """Return the port of the last start, if it is free; else `ANY_PORT`, and log that it is taken."""
    path = data_dir / PORT_FILE
    try:
        text = (read_private(path) or "").strip()
    except OSError as error:
        log.warning("the broker's last port cannot be read", file=str(path), why=error.strerror)
        return ANY_PORT
    if not text.isascii() or not text.isdigit() or not 1024 <= (port := int(text[:6])) <= 65_535:
        return ANY_PORT
    if _is_free(port):
        return port
    log.warning(
        "the broker's last port is taken; it gets another one",
        port=port,
        cure="give connectors the new URL",
    )
    return ANY_PORT


def keep_port(data_dir: Path, port: int) -> None:
    """Note the port for the next start; if that is impossible, log it."""
    try:
        write_private(data_dir / PORT_FILE, f"{port}\n")
    except OSError as error:
        log.warning("the broker's port cannot be kept", file=str(data_dir / PORT_FILE), why=error.strerror)


def _is_free(port: int) -> bool:
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        # As nats-server binds it: connections that were closed a moment ago are not in the way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
