"""Setting up the streams: makes missing ones, and compares existing ones with the settings."""

from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve

from scheduler.definition.subjects import overlap
from scheduler.errors import (
    JetStreamError,
    LogMissing,
    NotPermitted,
    StoreError,
)
from scheduler.jetstream.answers import StreamInfo
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import (
    REPLIES,
    RETIRED,
    StreamLayout,
    captures,
    narrowed,
)
from scheduler.jetstream.streams import LOG, OBJECTS, REPORTS, configs, stream_info, unlisted_reply_streams
from scheduler.runtime.logger import Logger

_log = Logger()

_NAME_IN_USE = 10058

_OVERLAP = 10065

_TOO_MANY_REPLICAS = frozenset({10005, 10074})

_NO_ROOM = frozenset({10002, 10028, 10047})

# Flag of `nats stream edit` for each setting that can be changed on a live stream.
_FLAGS: Final[Mapping[str, str]] = {
    "subjects": "subjects",
    "num_replicas": "replicas",
    "max_age": "max-age",
    "max_bytes": "max-bytes",
    "max_msgs": "max-msgs",
    "max_msgs_per_subject": "max-msgs-per-subject",
    "max_msg_size": "max-msg-size",
    "discard": "discard",
    "allow_direct": "allow-direct",
    "allow_rollup_hdrs": "allow-rollup",
}


async def set_up(js: JetStream, layout: StreamLayout) -> list[str]:
    """Make missing streams, and check the existing ones; any number of processes may do so at once.

    Existing streams are not changed, except that captured replies are taken on all subjects that they may
    come on.

    Returns:
        A line for people on each deviation, with its cure.

    Raises:
        LogMissing: there is no log, or an empty one, although other streams show that there was one.
        StoreError: the streams cannot work like this; the message has the cure.
        JetStreamUnavailable: the server cannot answer or do it now.
        BusError: as for `JetStream`.
    """
    wanted = configs(layout)
    # The last one first: the existence of one proves those made before it, even while they are being made.
    found = {config["name"]: await stream_info(js, config["name"]) for config in reversed(wanted)}
    log = found[LOG]
    if log is None and (orphans := [name for name in (REPORTS, OBJECTS) if found[name] is not None]):
        raise LogMissing(
            f"stream {LOG} is missing, although there is {' and '.join(orphans)}: all builds' logs are gone."
            " Restore it from a backup (nats stream restore); or, to forget all builds, remove"
            f" the others as well (nats stream rm {orphans[0]}, and so on)"
        )
    reports = found[REPORTS]
    if log is not None and not log.messages and reports is not None and reports.messages:
        raise LogMissing(
            f"stream {LOG} is empty, although there are reports in {REPORTS}: all builds' logs were purged."
            " Restore it from a backup (nats stream restore); or, to forget all builds, purge"
            f" the reports as well (nats stream purge {REPORTS})"
        )
    lines: list[str] = []
    await _make_way(js, layout, found)
    for config in wanted:
        name = config["name"]
        have = found[name]
        if have is not None:
            lines += _compare(config, await _extended(js, config, have.config))
            continue
        lines += _compare(config, await _create(js, config))
        if log is not None and log.messages:
            lines.append(
                f"stream {name} was missing beside {LOG}: it was made again, and what it held is lost"
            )
    return lines


async def make_again(js: JetStream, layout: StreamLayout, stream: str) -> None:
    """Make one of the streams again that is gone; any number of processes may do so at once.

    Raises:
        StoreError: the broker refuses; the message has the cure.
        JetStreamUnavailable: the server cannot do it now.
        BusError: as for `JetStream`.
    """
    [config] = [config for config in configs(layout) if config["name"] == stream]
    await _create(js, config)


async def _create(js: JetStream, config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Make a stream, or find that another process just did; return its configuration.

    Raises:
        StoreError: as for ``set_up``.
    """
    name = config["name"]
    try:
        answer = await js.call(f"STREAM.CREATE.{name}", config)
    except JetStreamError as error:
        refusal = error
    else:
        made: dict[str, Any] = answer["config"]
        return made
    if refusal.err_code == _NAME_IN_USE:
        return (await js.info(name)).config
    raise StoreError(f"cannot make stream {name}: {await _explain(js, config, refusal)}") from refusal


async def moves(js: JetStream, layout: StreamLayout) -> bool:
    """Whether `set_up` will have to move subjects of replies from one stream to another.

    Raises:
        BusError: as for `JetStream`.
    """
    names = [*captures(layout), *await unlisted_reply_streams(js, layout)]
    return bool(_narrowed(layout, {name: await stream_info(js, name) for name in names}))


def _narrowed(layout: StreamLayout, there: Mapping[str, StreamInfo | None]) -> dict[str, list[str]]:
    taking = {name: info.config.get("subjects") or () for name, info in there.items() if info is not None}
    return narrowed(layout, taking)


async def _make_way(js: JetStream, layout: StreamLayout, found: dict[str, StreamInfo | None]) -> None:
    """Take subjects from streams of replies that another one is to have: no subject is in two of them."""
    there = {name: found[name] for name in captures(layout)}
    for name in await unlisted_reply_streams(js, layout):
        there[name] = await stream_info(js, name)
    for name, subjects in _narrowed(layout, there).items():
        info = there[name]
        assert info is not None, "what is not there takes nothing"
        config = await _change(js, name, info.config, subjects)
        if name in found:
            found[name] = evolve(info, config=config)
        _log.info("replies are captured in other streams from now on", stream=name, now=subjects)


async def _change(
    js: JetStream, name: str, have: Mapping[str, Any], subjects: list[str]
) -> Mapping[str, Any]:
    """Set the subjects of a stream; return its configuration.

    Raises:
        StoreError: the change is not permitted, or impossible; the message has the cure.
        BusError: as for `JetStream`.
    """
    try:
        answer = await js.call(f"STREAM.UPDATE.{name}", {**have, "subjects": subjects})
    except NotPermitted as error:
        cure = _cure(name, "subjects", subjects)
        lacks = set(subjects) - set(have.get("subjects") or ())
        what = f"does not take {_show('subjects', lacks)}" if lacks else "takes what another one is to take"
        raise StoreError(f"stream {name} {what}, and {error.refusal}; allow that, or {cure}") from error
    made: dict[str, Any] = answer["config"]
    return made


async def _extended(js: JetStream, config: Mapping[str, Any], have: Mapping[str, Any]) -> Mapping[str, Any]:
    """Add to a stream of replies all subjects that it should have; return its configuration.

    Raises:
        StoreError: as for ``set_up``.
    """
    name, needed, taken = config["name"], config["subjects"], have.get("subjects") or ()
    if not name.startswith(REPLIES) or not set(needed) - set(taken):
        return have
    # Subjects that an operator has added stay where possible.
    others = [
        one
        for one in taken
        if not one.startswith(RETIRED) and not any(overlap(one, subject) for subject in needed)
    ]
    try:
        return await _change(js, name, have, [*needed, *others])
    except JetStreamError as error:
        lacks = f"stream {name} does not take {_show('subjects', set(needed) - set(taken))}"
        raise StoreError(
            f"{lacks}, and that cannot be changed: {await _explain(js, config, error)}"
        ) from error


async def _explain(js: JetStream, config: Mapping[str, Any], error: JetStreamError) -> str:
    if error.err_code == _OVERLAP:
        cure = "give the scheduler an account of its own on the server"
        if config["name"].startswith(REPLIES):
            cure += ", or have it capture only your components' types (SCHEDULER_CAPTURE=vpc,network)"
        return f"{await _overlap(js, config)}; {cure}"
    if error.err_code in _TOO_MANY_REPLICAS:
        count = config["num_replicas"]
        return (
            f"the broker cannot keep {count} copies of it ({error}); have {count} servers with JetStream in a"
            " cluster, or ask for fewer replicas"
        )
    if error.err_code in _NO_ROOM:
        return (
            f"the broker has no room for it ({error}); raise its limits (max_file_store, or the account's),"
            f" or lower the bytes of replies to keep ({config['max_bytes']} are asked for)"
        )
    return f"the broker refuses: {error}"


async def _overlap(js: JetStream, config: Mapping[str, Any]) -> str:
    for subject in config["subjects"]:
        answer = await js.call("STREAM.NAMES", {"subject": subject})
        for other in answer.get("streams") or ():
            if other != config["name"]:
                have = await stream_info(js, other)
                theirs = ", ".join(have.config.get("subjects", ())) if have is not None else "gone by now"
                return f"its subject {subject} overlaps with stream {other} ({theirs})"
    return "its subjects overlap with another stream's"


def _compare(want: Mapping[str, Any], have: Mapping[str, Any]) -> list[str]:
    """Return the differences, a line each.

    Raises:
        StoreError: the stream lacks subjects that are needed.
    """
    name = want["name"]
    lines = []
    for key, value in want.items():
        other = have.get(key)
        if key == "subjects":
            needed, taken = set(value), set(other or ())
            if needed - taken:
                raise StoreError(
                    f"stream {name} does not take {_show(key, needed - taken)}; {_cure(name, key, value)}"
                )
            if taken - needed:
                lines.append(
                    f"stream {name} takes {_show(key, taken - needed)} too; {_cure(name, key, value)}"
                )
        # The server leaves out fields that are false.
        elif (other or None) != (value or None):
            # One that is written asynchronously cannot be replicated, not even after giving that up.
            fixed = key == "num_replicas" and bool(have.get("persist_mode"))
            lines.append(
                f"stream {name}: {key} is {_show(key, other)}, expected {_show(key, value)};"
                f" {_cure(name, key, value, fixed=fixed)}"
            )
    return lines


def _cure(name: str, key: str, value: Any, *, fixed: bool = False) -> str:
    if key in _FLAGS and not fixed:
        on = "" if value else "no-"
        text = f"={_show(key, value).replace(' ', '')}"
        flag = f"{on}{_FLAGS[key]}" if isinstance(value, bool) else f"{_FLAGS[key]}{text}"
        return f"change it: nats stream edit {name} '--{flag}'"
    if name.startswith(REPLIES):
        return f"this cannot be changed: while no build runs, nats stream rm {name}, then start again"
    return f"this cannot be changed: nats stream backup {name}, and restore it with a corrected configuration"


def _show(key: str, value: Any) -> str:
    if key == "subjects":
        return ", ".join(sorted(value))
    if key == "max_age":
        return f"{(value or 0) // 1_000_000_000} s"
    return "off" if value in (None, False, "") else "on" if value is True else str(value)
