"""Reads builds: small ones on the spot, large ones in a thread, those in the object store fetched first."""

from functools import partial
from typing import Final

import trio

from scheduler.config import Settings
from scheduler.definition.codec import read_id
from scheduler.definition.strictjson import decode, split_object
from scheduler.definition.template import INLINE_WORK, Laborious, OnUnresolved, Templates
from scheduler.definition.validation import Prepared, read_build
from scheduler.errors import BusError, Hung, InvalidBuild, InvalidJSON, JetStreamUnavailable, Problem
from scheduler.jetstream.objects import Objects
from scheduler.jetstream.streams import UPLOADS
from scheduler.journal.events import Accepted
from scheduler.runtime.executor import THREADS, Executor, ThreadExecutor
from scheduler.runtime.interruptible import interruptible

_SMALL: Final = 32 * 1024
"""Largest build that is read on the spot, in bytes."""
_LARGE: Final = 1024 * 1024
"""Size from which on reading a build may take a second, in bytes."""
_SHORT_WORK: Final = 4 * 1024 * 1024
"""Units of work (`template.work`) for the references of a build that is read as a short job: 0.1 s."""
_READING: Final = "builds that come in"
"""Owner of the threads' work of reading: before a build is read its id is not known."""
_LONGEST_NAME: Final = 512
_BUILD_MEMBERS: Final = frozenset({"action", "components", "changes", "edges"})
_FETCH_DEADLINE: Final = 120.0


class BuildReader:
    """Reader of builds: makes a `Prepared` of bytes.

    Args:
        settings: bounds, and rules for references.
        objects: object store for definitions that are too large for a message; None where there is none.
        executor: reads large builds.
    """

    def __init__(self, settings: Settings, objects: Objects | None, executor: Executor | None = None) -> None:
        self._settings = settings
        self._allowed_hosts = settings.allowed_hosts
        self._objects = objects
        self._executor = executor or ThreadExecutor()
        # Only as many definitions are held in memory as are read at a time.
        self._fetches = trio.CapacityLimiter(THREADS)
        # One build is read on the spot before other tasks have a turn.
        self._spot = trio.Lock()

    def is_small(self, data: bytes) -> bool:
        """Return whether a submitted build is read on the spot: neither fetched, nor read in a thread."""
        return len(data) <= _SMALL and object_name(data) is None

    async def read_submitted(self, data: bytes, action: str | None = None) -> Prepared:
        """Read a build that comes in, or the one in the object store that a message names.

        Args:
            data: its JSON, or a message that names its object.
            action: subject on which it comes in; None where it comes in on none.

        Raises:
            InvalidBuild: with every problem that was found; ``store`` where it could not be fetched.
        """
        name = object_name(data)
        if name is None:
            return await self._read(data, action=action)
        async with self._fetches:
            prepared = await self._read(await self._fetch(name), action=action)
        build = read_id(data)
        if build is not None and build != prepared.build.id:
            text = f"the build in {name!r} is {prepared.build.id!r}, not {build!r}"
            raise InvalidBuild("invalid", [Problem("id", text)])
        return prepared

    async def read_back(self, data: bytes, action: str | None = None) -> Prepared:
        """Read a build that was accepted before: it contains what connectors returned."""
        return await self._read(data, resumed=True, action=action)

    async def read_accepted(self, data: bytes, accepted: Accepted) -> Prepared:
        """Read a build as it was accepted, whatever the settings are now."""
        templates, unresolved = Templates(accepted.templates), OnUnresolved(accepted.unresolved)
        return await self._read(data, resumed=True, templates=templates, unresolved=unresolved)

    async def _fetch(self, name: str) -> bytes:
        if not name.startswith(UPLOADS):
            # Objects under other names belong to other builds.
            raise InvalidBuild("invalid", [Problem("object", f"{name!r} does not begin with {UPLOADS!r}")])
        if self._objects is None:
            text = "definitions in an object store take the JetStream store, and this scheduler has another"
            raise InvalidBuild("invalid", [Problem("object", text)])
        most = self._settings.limits.max_definition_bytes
        try:
            with trio.fail_after(_FETCH_DEADLINE):
                data = await self._objects.get(name, most=most)
        except (JetStreamUnavailable, trio.TooSlowError) as error:
            text = f"{name!r} cannot be fetched now: {error}"
            raise InvalidBuild("store", [Problem("object", text)]) from None
        except BusError as error:
            text = f"{name!r} cannot be taken: {error}; max_definition_bytes is {most}"
            raise InvalidBuild("invalid", [Problem("object", text)]) from None
        if data is None:
            raise InvalidBuild("invalid", [Problem("object", f"there is no object {name!r}")])
        return data

    async def _read(
        self,
        data: bytes,
        *,
        resumed: bool = False,
        templates: Templates | None = None,
        unresolved: OnUnresolved | None = None,
        action: str | None = None,
    ) -> Prepared:
        settings = self._settings

        def read(allowance: int | None = None) -> Prepared:
            return read_build(
                data,
                limits=settings.limits,
                templates=templates or settings.templates,
                unresolved=unresolved or settings.unresolved,
                resumed=resumed,
                action=action,
                inline=allowance is not None,
                allowance=allowance or 0,
                notify=self._allowed_hosts,
            )

        try:
            if len(data) <= _SMALL:
                async with self._spot:
                    with interruptible("a build that is being read"):
                        return read(INLINE_WORK)
            if len(data) <= _LARGE:
                return await self._executor.run(_READING, partial(read, _SHORT_WORK))
        except Laborious:
            pass
        except Hung as hung:
            raise InvalidBuild("invalid", [Problem("", f"it cannot be read: {hung}")]) from None
        # In the thread for long work: short work and other builds have the other one.
        return await self._executor.run(_READING, read, long=True)


def object_name(data: bytes) -> str | None:
    """Return the name of the object that a submitted message refers to; None where it is a build itself."""
    if len(data) > 4 * _LONGEST_NAME or b'"object"' not in data:
        return None
    try:
        members = split_object(data)
        name = decode(members["object"]) if "object" in members else None
    except InvalidJSON:
        return None
    if not isinstance(name, str) or not name or len(name) > _LONGEST_NAME:
        return None
    return None if _BUILD_MEMBERS & members.keys() else name
