"""Fixtures for the tests of requests and replies."""

from collections.abc import AsyncIterator

import pytest
from support.bench import Bench, open_bench


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with open_bench() as bench:
        yield bench
