from scheduler.journal.events import Finished, Started
from scheduler.stores import DocumentStore, Store
from scheduler.stores.memory import MemoryStore


async def test_keeps_nothing() -> None:
    """Appended events are forgotten, and there is nothing to resume."""
    store: Store = MemoryStore()

    await store.append("b", [Started("vpc::a", "b/vpc::a/1", b"{}"), Finished(None)])

    assert not isinstance(store, DocumentStore)
    assert (store.name, store.resumable) == ("memory", False)
