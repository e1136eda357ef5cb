"""The streams of durable builds: their names, their subjects and their settings.

| stream | holds |
|---|---|
| `LOG` | a log for each build: the truth |
| `REPLIES` | replies of connectors, heard directly or not (`scheduler.jetstream.capturing`) |
| `REPORTS` | the report of each run |
| `OBJECTS` | an object store: graphs and reports beyond the payload limit |
"""

from typing import Any, Final, Literal

from scheduler.definition.reply_subjects import EVERY
from scheduler.definition.tokens import encode_token
from scheduler.errors import (
    NotPermitted,
    StreamNotFound,
)
from scheduler.jetstream.answers import StreamInfo
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import (
    REPLIES,
    RETIRED,
    StreamLayout,
    captures,
    replies_of,
)
from scheduler.runtime.logger import Logger

__all__ = [
    "BUCKET",
    "LOG",
    "LOGS",
    "OBJECTS",
    "PROBE",
    "REPLIES",
    "REPORTS",
    "SENTINEL",
    "STORED_REPORTS",
    "StreamLayout",
    "configs",
    "log_subject",
    "replies_of",
    "reply_streams",
    "report_subject",
    "stream_info",
    "unlisted_reply_streams",
]

_log = Logger()

LOG: Final = "SCHEDULER_LOG"
REPORTS: Final = "SCHEDULER_REPORTS"
BUCKET: Final = "SCHEDULER_OBJECTS"
OBJECTS: Final = f"OBJ_{BUCKET}"

LOGS: Final = "scheduler.log."
"""Beginning of the subjects of logs; the encoded id of the build follows."""
STORED_REPORTS: Final = "scheduler.report."
"""Beginning of the subjects of stored reports; the encoded id and the number of the run follow."""
SUBJECT_HEADER: Final = "Scheduler-Subject"
SUMMARY_HEADER: Final = "Scheduler-Summary"
"""Header of a stored report: subject on which it is published."""
REPORT_HEADER: Final = "Scheduler-Report"
"""Header of a stored report: message id with which it is published."""
MARK_HEADER: Final = "Scheduler-Mark"
"""Header of a stored report: mark of the acceptance that it belongs to."""
SENTINEL: Final = "scheduler.log.=sentinel"
"""Subject of a record of no build, from the stream's first use on: if it is missing, the whole stream was
purged. A ``=`` is followed by a number in every encoded id, so this is no build's log."""
PROBE: Final = "scheduler.log.=probe"
"""Subject on which `scheduler doctor` writes a record, and removes it; no build's log either."""
UPLOADS: Final = "upload/"
"""Beginning of the names of objects that are handed in as builds."""

_REPLY_AGE: Final = 72 * 3600 * 1_000_000_000


def log_subject(build: str) -> str:
    """Return the subject of a build's log."""
    return f"{LOGS}{encode_token(build)}"


def report_subject(build: str, run: int | Literal["*"]) -> str:
    """Return the subject of the report of one run of a build, or of all its runs."""
    return f"{STORED_REPORTS}{encode_token(build)}.{run}"


def configs(layout: StreamLayout) -> list[dict[str, Any]]:
    """Return the streams' configurations, in the server's words, in the order in which they are made."""
    common: dict[str, Any] = {
        "storage": "file",
        "retention": "limits",
        "discard": "new",
        "num_replicas": layout.replicas,
        "max_age": 0,
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_msg_size": -1,
        "allow_direct": False,
        "deny_delete": False,
        "deny_purge": False,
    }
    replies: dict[str, Any] = {
        **common,
        # Connectors await no acknowledgement; and only without them may a stream's subjects begin with a
        # wildcard.
        "no_ack": True,
        "discard": "old",
        "max_age": _REPLY_AGE,
        "max_bytes": layout.reply_bytes,
    }
    if layout.replicas == 1:
        replies["persist_mode"] = "async"
    return [
        *({**replies, "name": name, "subjects": subjects} for name, subjects in captures(layout).items()),
        {**common, "name": LOG, "subjects": [f"{LOGS}*"]},
        {**common, "name": REPORTS, "subjects": [f"{STORED_REPORTS}*.*"]},
        {
            **common,
            "name": OBJECTS,
            "subjects": [f"$O.{BUCKET}.C.>", f"$O.{BUCKET}.M.>"],
            "allow_rollup_hdrs": True,
            # As other clients make a bucket, and may read it. The scheduler does not read by direct get.
            "allow_direct": True,
        },
    ]


async def reply_streams(js: JetStream, layout: StreamLayout) -> tuple[dict[str, str], dict[str, str]]:
    """Return the streams of replies by provider; the common one under an empty name.

    Returns:
        The streams that replies come into; and those that get no more, but may hold some that are unread.

    Raises:
        BusError: as for `JetStream`.
    """
    live = {provider: replies_of(provider) for provider in ("", *layout.providers)}
    retired = {
        name.removeprefix(f"{REPLIES}_"): name
        for name in await unlisted_reply_streams(js, layout)
        if (info := await stream_info(js, name)) is not None and info.messages
    }
    return live, retired


async def unlisted_reply_streams(js: JetStream, layout: StreamLayout) -> list[str]:
    """Return the names of existing streams of single providers' replies that are not in the layout."""
    found: set[str] = set()
    try:
        for subject in (EVERY, f"{RETIRED}*"):
            found.update((await js.call("STREAM.NAMES", {"subject": subject})).get("streams") or ())
    except NotPermitted as error:
        _log.warning("cannot look for streams of single providers' replies", reason=error.refusal)
    wanted = captures(layout)
    return sorted(name for name in found if name.startswith(f"{REPLIES}_") and name not in wanted)


async def stream_info(js: JetStream, stream: str) -> StreamInfo | None:
    """Return configuration and state of a stream; None where it does not exist.

    Raises:
        BusError: as for `JetStream`.
    """
    try:
        return await js.info(stream)
    except StreamNotFound:
        return None
