"""Word of orphans, builds that no process may work on: `scheduler.recovery.restart` looks for them then."""

import trio


class Orphans:
    """Signal from any part of the service that there may be orphans."""

    def __init__(self) -> None:
        self._noted = trio.Event()

    def note(self) -> None:
        """Say that there may be some. Synchronous."""
        self._noted.set()

    async def noted(self) -> None:
        """Wait for a word since the last time that this returned, or was cancelled."""
        try:
            await self._noted.wait()
        finally:
            self._noted = trio.Event()
