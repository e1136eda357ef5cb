"""Broker of an attack: its logins, and the accounts of the submitters."""

import contextlib
import json
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import nats
from nats.aio.client import Client

from benchmarks.processes import configured_server

PASSWORD = "bench"
MAX_PAYLOAD = 8 * 1024 * 1024
"""As in the server file that ``scheduler permissions`` prints."""
_MAX_PENDING = 256 * 1024 * 1024
_SUBMITTER = "build", "service"
_PENDING = 512 * 1024 * 1024


class User(StrEnum):
    """Logins; the first two are in the scheduler's own account."""

    SCHEDULER = "scheduler"
    CONNECTOR = "connector"
    HEALTHY = "healthy"
    HOSTILE = "hostile"


@contextlib.contextmanager
def broker(folder: Path, *, jetstream: bool) -> Iterator[str]:
    """Run a nats-server on which each submitter has its own account; yield its URL."""
    exports: list[dict[str, Any]] = [{"service": f"{kind}.*"} for kind in _SUBMITTER]
    exports += [{"service": "scheduler.build.*"}, {"stream": "scheduler.event.*"}]
    exports += [{"stream": f"{kind}.*.{how}"} for kind in _SUBMITTER for how in ("done", "error")]
    settings: dict[str, Any] = {
        "max_payload": MAX_PAYLOAD,
        "max_pending": _MAX_PENDING,
        "accounts": {
            "SCHEDULER": {
                "users": [_login(User.SCHEDULER), _login(User.CONNECTOR)],
                "exports": exports,
                **({"jetstream": "enabled"} if jetstream else {}),
            }
        },
    }
    for user in (User.HEALTHY, User.HOSTILE):
        settings["accounts"][user.upper()] = {
            "users": [_login(user)],
            "imports": [_imported(export) for export in exports],
        }
    if jetstream:
        settings["jetstream"] = {"store_dir": str(folder / "jetstream"), "sync_interval": "always"}
    with configured_server(folder, json.dumps(settings)) as url:
        yield url


def _login(user: User) -> dict[str, str]:
    return {"user": user, "password": PASSWORD}


def _imported(export: dict[str, Any]) -> dict[str, Any]:
    ((kind, subject),) = export.items()
    imported: dict[str, Any] = {kind: {"account": "SCHEDULER", "subject": subject}}
    # So the scheduler learns who asks.
    return imported | {"share": True} if kind == "service" else imported


async def log_in(url: str, user: User) -> Client:
    """A connection of this user."""
    return await nats.connect(
        url, user=user, password=PASSWORD, inbox_prefix=f"_INBOX.{user}".encode(), pending_size=_PENDING
    )
