from scheduler.journal.events import Finished, Started
from scheduler.stores import Store
from scheduler.stores.memory import MemoryStore


async def test_keeps_nothing() -> None:
    """What was appended cannot be loaded, and nothing is left unfinished."""
    store: Store = MemoryStore()

    await store.append("b", [Started("vpc::a", "b/vpc::a/1", b"{}"), Finished(None)])

    assert await store.load("b") is None
    assert [build async for build in store.unfinished()] == []
    assert (store.name, store.resumable) == ("memory", False)
