"""In which order components were requested."""

from typing import Any

from integration.harness import Connectors

JSON = dict[str, Any]


def check_order(document: JSON, connectors: Connectors) -> list[str]:
    """No request came twice, and none before the replies of what it depends on; returns the ids in order."""
    records = [record for record in connectors.records if record.get("build") == document["id"]]
    requested: dict[str, int] = {}
    replied: dict[str, int] = {}
    for position, record in enumerate(records):
        if record["event"] == "request":
            assert record["id"] not in requested, f"{record['id']} was requested twice"
            requested[record["id"]] = position
        elif record["event"] == "reply":
            replied.setdefault(record["id"], position)
    changes = {change["_component_id"] for change in document["changes"]}
    for edge in document["edges"]:
        source, destination = edge["source"], edge["destination"]
        if destination in requested and source in changes:
            assert source in replied, f"{destination} came before {source}"
            assert replied[source] < requested[destination], f"{destination} came before {source}"
    return list(requested)
