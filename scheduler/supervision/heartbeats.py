"""Heartbeats of an attempt, as answers to operators tell them."""

from collections.abc import Mapping
from typing import Any

import trio

from scheduler.dispatch.call import Call
from scheduler.plan.texts import Texts
from scheduler.text import printable, seconds, so_far


def heartbeats(call: Call | None, texts: Texts) -> dict[str, Any]:
    """Return what the heartbeats of an attempt in flight have said, and the seconds since the last.

    Args:
        call: the attempt; None where there is none.
        texts: masks the secrets of its build.
    """
    pulse = None if call is None else call.pulse
    if pulse is None or pulse.heard is None:
        return {}
    document: dict[str, Any] = {"beat": round(max(0.0, trio.current_time() - pulse.heard), 3)}
    if pulse.instance:
        document["instance"] = printable(texts.masked(pulse.instance))
    if pulse.progress is not None:
        document["progress"] = pulse.progress
    if pulse.message:
        document["message"] = printable(texts.masked(pulse.message))
    return document


def in_words(beats: Mapping[str, Any]) -> str:
    """Return that as part of a sentence: ``beats from cloud-7, the last 2.0s ago: 40 %, attaching``."""
    by = f" from {beats['instance']}" if "instance" in beats else ""
    said = so_far(beats.get("progress"), beats.get("message", ""))
    return f"beats{by}, the last {seconds(beats['beat'])} ago" + (f": {said}" if said else "")
