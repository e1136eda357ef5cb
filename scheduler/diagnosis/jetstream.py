"""Checks JetStream as a store of builds: whether it is there, its room, and its streams."""

import secrets
import time
from collections.abc import Mapping
from typing import Any

from scheduler.bus import Bus
from scheduler.config import Settings
from scheduler.definition.reply_subjects import EVERY, OLD, REPLY
from scheduler.diagnosis import Diagnosis, size
from scheduler.errors import BusError, JetStreamError, LogMissing, StoreError, StreamNotFound, Unanswered
from scheduler.jetstream.api import JetStream
from scheduler.jetstream.capturing import captures, layout_of
from scheduler.jetstream.codes import STORAGE_FAILED
from scheduler.jetstream.rivals import CURE, find_rival
from scheduler.jetstream.setup import set_up
from scheduler.jetstream.streams import LOG, OBJECTS, PROBE, REPLIES, REPORTS, StreamLayout
from scheduler.journal.records import tombstone
from scheduler.stores.absence import find_absence

_OVERLAP = 10065
_NEARLY_FULL = 0.8


def ours(layout: StreamLayout) -> list[str]:
    """List the names of our streams."""
    return [LOG, *captures(layout), REPORTS, OBJECTS]


class Rehearsal(JetStream):
    """Rehearsal of `set_up`: its calls of the API, without making or changing anything."""

    def __init__(self, bus: Bus) -> None:
        super().__init__(bus)
        self.missing: list[str] = []
        """Streams that would have been made."""
        self.changed: list[str] = []
        """Streams whose subjects would have been changed."""
        self.upgrades = False
        """Whether the stream of replies is from before reply subjects had owners."""

    async def call(self, endpoint: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Call the API; for a call that would make a stream, check that its subjects are free."""
        if body is not None and endpoint.startswith("STREAM.UPDATE."):
            name = body["name"]
            have = (await self.info(name)).config.get("subjects") or ()
            self.upgrades |= name == REPLIES and OLD in have and len(have) > 1 and EVERY not in have
            self.changed.append(name)
            return {"config": dict(body)}
        if body is None or not endpoint.startswith("STREAM.CREATE."):
            return await super().call(endpoint, body)
        for subject in body["subjects"]:
            found = (await super().call("STREAM.NAMES", {"subject": subject})).get("streams") or ()
            if not set(self.changed).issuperset(found):
                text = f"{endpoint}: its subjects overlap with another stream's"
                raise JetStreamError(text, code=400, err_code=_OVERLAP)
        self.missing.append(body["name"])
        return {"config": dict(body)}


async def check_jetstream(diagnosis: Diagnosis, bus: Bus, settings: Settings) -> bool:
    """Check whether there is a JetStream, its limits, and our streams in it.

    Returns:
        Whether it can be used at all.

    Raises:
        BusError: the bus cannot be used.
    """
    needed = settings.store in {"auto", "jetstream"}
    absence = await find_absence(bus)
    if absence is not None:
        if needed:
            diagnosis.fail("jetstream", absence.text, absence.cure)
        else:
            diagnosis.note("jetstream", f"cannot be used (--store {settings.store} does without)")
        return False
    account = await JetStream(bus).account()
    diagnosis.facts["jetstream"] = {key: value for key, value in account.items() if key != "type"}
    if not needed:
        diagnosis.ok("jetstream", f"is there (--store {settings.store} does without)")
        return True
    rival = await find_rival(JetStream(bus))
    if rival:
        diagnosis.fail("streams", rival, CURE)
    streams = Diagnosis()
    missing = await _check_streams(streams, bus, settings)
    _check_limits(diagnosis, account, settings, missing)
    diagnosis.findings += streams.findings
    return True


async def _check_streams(diagnosis: Diagnosis, bus: Bus, settings: Settings) -> list[str]:
    """Rehearse the start of the service; return the streams that it would make."""
    rehearsal = Rehearsal(bus)
    layout = layout_of(settings)
    try:
        deviations = await set_up(rehearsal, layout)
    except LogMissing as error:
        text, _, cure = str(error).partition(". ")
        diagnosis.fail("streams", text, cure)
        return []
    except StoreError as error:
        text, _, cure = str(error).partition("; ")
        diagnosis.fail("streams", text, cure or "see the broker's configuration")
        return []
    except BusError as error:
        diagnosis.fail("streams", f"cannot be checked: {error}", "see permissions, and the broker's log")
        return []
    for deviation in deviations:
        text, _, cure = deviation.partition("; ")
        diagnosis.warn("streams", text, cure or "see the broker's log")
    missing = rehearsal.missing
    if rehearsal.upgrades:
        diagnosis.warn(
            "streams",
            f"{REPLIES} is that of an earlier version: the service changes it at its next start, and from"
            f" then on connectors have to reply on {REPLY}<owner>.<provider>.<token>",
            f"before that, let each connector publish on {REPLY}*.<provider>.*, beside {OLD} (see"
            " `scheduler permissions`): otherwise the broker drops its answers",
        )
    elif rehearsal.changed:
        names = ", ".join(dict.fromkeys(rehearsal.changed))
        diagnosis.note("streams", f"{names}: the service changes the captured subjects at its next start")
    if LOG not in missing and not await _takes_records(bus):
        what, _, cure = STORAGE_FAILED.partition(". ")
        diagnosis.fail("streams", f"{LOG}: {what}", cure)
        return missing
    if len(missing) == len(ours(layout)):
        diagnosis.ok("streams", "none yet: the service makes them at its first start")
    elif missing:
        diagnosis.note("streams", f"{', '.join(missing)}: missing; the service makes them at its start")
    elif not deviations and not rehearsal.changed:
        diagnosis.ok("streams", f"{await _contents(bus, layout)}, all set up as they should be")
    return missing


async def _takes_records(bus: Bus) -> bool:
    """Tell whether the stream of logs takes records; False only if it can be read but does not answer."""
    js = JetStream(bus)
    data, headers = tombstone(
        f"doctor-{secrets.token_hex(8)}", instance="doctor", at=int(time.time() * 1_000), why="doctor"
    )
    try:
        await js.publish(PROBE, data, headers=headers)
        await js.purge(LOG, PROBE)
    except Unanswered:
        try:
            return await js.last(LOG, PROBE) is not None
        except BusError:
            return True
    except BusError:
        # Any other problem is found by another check.
        return True
    return True


async def _contents(bus: Bus, layout: StreamLayout) -> str:
    js = JetStream(bus)
    parts = []
    for stream in ours(layout):
        try:
            info = await js.info(stream)
        except StreamNotFound:
            continue
        parts.append(f"{stream} ({size(info.bytes)})")
    return ", ".join(parts)


def _check_limits(
    diagnosis: Diagnosis, account: Mapping[str, Any], settings: Settings, missing: list[str]
) -> None:
    tiers = account.get("tiers")
    used: Mapping[str, Any] = account
    if isinstance(tiers, dict) and tiers:
        tier = f"R{settings.replicas}"
        if tier not in tiers:
            text = (
                f"the account has no tier for {settings.replicas} replicas, only {', '.join(sorted(tiers))}"
            )
            diagnosis.fail("jetstream", text, f"give the account a tier {tier}, or set --replicas")
            return
        used = tiers[tier]
    limits = used.get("limits") or {}
    stored = max(used.get("storage", 0), used.get("reserved_storage", 0))
    most = _bound(limits.get("max_storage"))
    streams = _bound(limits.get("max_streams"))
    before = len(diagnosis.findings)
    if limits.get("max_bytes_required"):
        diagnosis.fail(
            "jetstream",
            "the account requires a size limit of streams; the log has none, as it never drops a record",
            "set max_bytes_required: false for the account",
        )
    have = used.get("streams", 0)
    if streams is not None and have + len(missing) > streams:
        diagnosis.fail(
            "jetstream",
            f"the account may have {streams} streams, has {have}, and needs {len(missing)} more",
            "raise the account's max_streams",
        )
    if most is not None:
        reserve = settings.reply_bytes * sum(name in missing for name in captures(layout_of(settings)))
        if stored + reserve > most:
            diagnosis.fail(
                "jetstream",
                f"the account may store {size(most)}, and {size(stored)} are used: there is no room for"
                f" {size(reserve)} of captured replies",
                "raise the account's max_file, or lower --reply-bytes",
            )
        elif stored > _NEARLY_FULL * most:
            diagnosis.warn(
                "jetstream",
                f"{size(stored)} of {size(most)} are used: when it is full, builds are suspended",
                "raise the account's max_file, or lower --keep",
            )
    if len(diagnosis.findings) == before:
        room = "without a limit of the account" if most is None else f"of {size(most)}"
        diagnosis.ok("jetstream", f"is there; {size(stored)} used or reserved, {room}")


def _bound(limit: Any) -> int | None:
    return limit if isinstance(limit, int) and limit >= 0 else None
