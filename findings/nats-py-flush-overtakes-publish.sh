#!/usr/bin/env bash
# nats-py: flush() asks the server for its PONG before what was published is on its way.
#
# Version:     nats-py 2.16.0; the other end is a listener of some lines that notes what it is sent
# Expectation: flush() is the barrier of a client: it sends a PING behind everything that was published, and
#              when the PONG is there, so is the rest. That is what it is called for before a measurement, a
#              hand-over, an exit.
# Behaviour:   publish() puts its message into a buffer that another task writes out; flush() writes its PING
#              directly to the socket. So the PONG is about what was written before: the message leaves while
#              flush() waits, or later, and nothing has confirmed it when flush() returns.
# Met by:      a publisher that calls flush() to know that the server has what it sent.
# Seen on:     2026-11-30
# Output seen: called:   publish("log"), flush()
#              received: PING, PUB log
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q nats-py==2.16.0
cat > "$folder/find.py" <<'PYTHON'
import asyncio
import sys

import nats


async def main() -> int:
    received = []

    async def note(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Speak as much of a server's protocol as a client needs to connect."""
        writer.write(b'INFO {"server_id":"s","version":"2.15.1","max_payload":1048576,"proto":1}\r\n')
        while line := await reader.readline():
            received.append(line.decode().strip())
            if line == b"PING\r\n":
                writer.write(b"PONG\r\n")
        writer.close()

    async with await asyncio.start_server(note, "127.0.0.1", 0) as server:
        client = await nats.connect("nats://127.0.0.1:%d" % server.sockets[0].getsockname()[1])
        received.clear()
        await client.publish("log", b"record")
        await client.flush()
        for _ in range(200):
            if "record" in received:
                break
            await asyncio.sleep(0.01)
        await client.close()
    order = [" ".join(line.split()[:2]) for line in received if line.startswith(("PUB", "PING"))]
    print('called:   publish("log"), flush()')
    print("received:", ", ".join(order))
    return 0 if order == ["PING", "PUB log"] else 1


sys.exit(asyncio.run(main()))
PYTHON
"$folder/venv/bin/python" "$folder/find.py"
