"""Submits a build and follows it to its end, for ``run`` and ``demo``."""

import sys

import trio

from scheduler.bus import Bus
from scheduler.client.follow import open_following, show
from scheduler.client.progress import Progress
from scheduler.client.submit import stored_report, submit
from scheduler.commands.saying import complain
from scheduler.definition.validation import Prepared
from scheduler.display import open_view
from scheduler.errors import MessageTooLarge, NoResponders, NotPermitted
from scheduler.text import count, printable

SUBMIT_TIMEOUT = 60.0
"""Seconds to wait for the answer to a submitted build: it may be large, and its store slow."""


async def run_build(bus: Bus, prepared: Prepared, data: bytes, *, json: bool = False) -> int:
    """Submit a build, show its progress, and return the exit code: 0 if it succeeded.

    Args:
        bus: the connection.
        prepared: the build.
        data: its bytes to submit.
        json: whether to print JSON lines.

    Raises:
        SteeringError: this user may not follow builds; nothing was submitted.
        BusError: the bus cannot be used.
    """
    build = prepared.build
    total = len(build.changes)
    async with open_following(bus, build.id, build.action) as following:
        progress = Progress(build.id, build.action, trio.current_time(), total=total, informed=True)
        try:
            with trio.fail_after(SUBMIT_TIMEOUT):
                answer = await submit(bus, build.action, data, build.id)
        except NoResponders:
            complain(
                f"no scheduler answers on {build.action}: start one with `scheduler serve`, "
                "or add --embedded to run one in this process"
            )
            return 1
        except NotPermitted as error:
            complain(f"this user may not submit builds: {error.refusal}")
            return 1
        except MessageTooLarge as error:
            cure = "raise max_payload in the broker's configuration, or enable JetStream"
            if isinstance(error.__cause__, NotPermitted):
                cure = f"this user may not put larger ones into the object store, {error.__cause__.refusal}"
            complain(
                f"the build takes {error.size:,} bytes, over the broker's limit for a message of "
                f"{error.limit:,} bytes: {cure}"
            )
            return 1
        except trio.TooSlowError:
            complain(f"no answer within {SUBMIT_TIMEOUT:g} s; the build may still run")
            return 1
        if not answer.accepted:
            # The message is the first of the details.
            details = [printable(detail) for detail in answer.details] or [printable(answer.message)]
            several = f"it has {count(len(details), 'problem')}:" if len(details) > 1 else details[0]
            complain(f"the scheduler rejected the build ({printable(answer.code)}): {several}")
            if len(details) > 1:
                sys.stderr.write("".join(f"  {detail}\n" for detail in details))
            return 1
        if answer.finished and (found := await stored_report(bus, build.id)) is not None:
            complain(f"{printable(build.id)} was submitted before and is finished; it does not run again")
            following.end(found[0], failed=found[1])
        view = open_view(progress, json=json)
        view.start()
        try:
            await show(bus, following, progress, view)
        finally:
            view.stop()
        view.summary(trio.current_time())
        return 0 if progress.error is None else 1
