"""A connector as a process of its own: ``program.py URL RECORD ACTS``.

It writes a line to the file ACTS for each thing that it does in "the cloud", which is that file.
"""

import sys
from pathlib import Path
from typing import Any

import trio

from scheduler.connectors import Connectors, Context
from scheduler.connectors.sqlite import SQLiteStore
from scheduler.log import configure_logging

connectors = Connectors("aws", store=SQLiteStore(sys.argv[2]))
acts = Path(sys.argv[3])


def act(context: Context) -> None:
    """Create it in the cloud, which knows the client token and does nothing twice."""
    done = acts.read_text().splitlines() if acts.exists() else []
    if context.key not in done:
        with acts.open("a") as file:
            file.write(f"{context.key}\n")


@connectors.create("vpc")
async def create_vpc(request: dict[str, Any], context: Context) -> dict[str, Any]:
    """Create a VPC, in as many seconds as it says."""
    context.progress(0.1, "begun")
    if not context.repeated:
        await trio.sleep(request.get("before", 0.0))
    act(context)
    if not context.repeated:
        await trio.sleep(request.get("after", 0.0))
    return {"vpc_id": "vpc-1", "repeated": context.repeated}


configure_logging(style="json")
trio.run(connectors.run, sys.argv[1])
