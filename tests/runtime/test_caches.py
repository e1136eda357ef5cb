"""Caches that are bounded by bytes."""

from hypothesis import given
from hypothesis import strategies as st

from scheduler.runtime.caches import ByteCache


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3_000), st.booleans()), max_size=200))
def test_a_cache_holds_no_more_than_it_may(steps: list[tuple[int, int, bool]]) -> None:
    """Whatever is put in and asked for: it is never over its bytes, and never has another's value."""
    cache: ByteCache[int, int] = ByteCache(10_000)
    for key, size, put in steps:
        if put:
            cache.keep(key, key, size)
        assert cache.get(key) in {None, key}
        assert cache.size <= 10_000


def test_what_is_asked_for_stays() -> None:
    """What is asked for between stays, while what comes once goes; what is too large never comes in."""
    cache: ByteCache[int, str] = ByteCache(10_000)
    for n in range(1_000):
        cache.keep(n, str(n), 300)
        assert cache.get(0) == "0"
    assert cache.get(1) is None
    cache.keep(-1, "large", 5_000)
    assert cache.get(-1) is None
    assert len(cache) <= 20
