"""How much is read from the socket at a time."""

import asyncio
from types import SimpleNamespace

from scheduler.bus.guards import _CALM, _LITTLE, _MUCH, _READ_BYTES, _Transport


def test_much_is_asked_for_while_much_comes_and_otherwise_little() -> None:
    """Memory for much costs more than reading a message does."""

    async def main() -> list[int]:
        transport = _Transport()  # type: ignore[no-untyped-call]
        reader = transport._io_reader = asyncio.StreamReader()
        transport._socket = SimpleNamespace(max_size=_LITTLE)
        sizes = []
        for size in (10, _LITTLE, *[10] * (_CALM - 1), _READ_BYTES, *[10] * _CALM, 10):
            reader.feed_data(b"x" * size)
            assert len(await transport.read(1)) == size
            sizes.append(transport._socket.max_size)
        return sizes

    found = asyncio.run(main())
    assert found == [_LITTLE, *[_MUCH] * (1 + _CALM - 1 + 1 + _CALM - 1), _LITTLE, _LITTLE]
