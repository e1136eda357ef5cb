"""The connectors in Python of docs/connectors.md do what the page says."""

import json
import re
import sys
from pathlib import Path

import pytest
from nats.errors import NoRespondersError

from integration.conftest import World
from integration.harness import Client, Process, Scheduler, eventually
from scheduler.commands.connect import load

PAGE = (Path(__file__).parents[2] / "scheduler" / "docs" / "connectors.md").read_text()
CLOUD = """
class cloud:
    made = {}

    @classmethod
    async def create_vpc(cls, subnet, token=""):
        return cls.made.setdefault(subnet, f"vpc-{len(cls.made)}")


"""


def block(section: str) -> str:
    """The first code of a section in Python."""
    text = PAGE.split(f"\n## {section}\n")[1]
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found[1]


@pytest.mark.integration
def test_the_connector_without_the_kit_keeps_the_contract(world: World, tmp_path: Path) -> None:
    """With nats-py alone, in the lines that are shown."""
    code = block("In Python without the kit").replace("nats://127.0.0.1:4222", world.server.url)
    (tmp_path / "plain.py").write_text(CLOUD + code)
    (tmp_path / "vpc.json").write_text('{"subnet": "10.0.0.0/16"}')
    with Process(sys.executable, "plain.py", cwd=tmp_path) as connector:
        client = world.client()
        eventually(lambda: connector.running and _hears(client), "a connector")
        command = world.started(
            Scheduler(
                *("check-connector", "vpc.create.aws", "--body", "vpc.json", "--hostile", "--yes", "--json"),
                env={"NATS_URL": world.server.url},
                cwd=tmp_path,
            )
        )
        assert command.wait() == 0, command.output
        results = {one["check"]: one["result"] for one in json.loads(command.output)["checks"]}
        assert {results.pop("heartbeats"), results.pop("cancel")} == {"skipped"}
        assert set(results.values()) == {"pass"}, command.output
        assert connector.errors == ""


def _hears(client: Client) -> bool:
    """Whether somebody answers requests."""
    try:
        client.request("vpc.create.aws", {"subnet": "0.0.0.0/0"})
    except NoRespondersError:
        return False
    return True


def test_the_connector_of_the_kit_creates_a_vpc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is shown, run by the test harness that the page names."""
    (tmp_path / "documented.py").write_text(CLOUD + block("The kit"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "documented", raising=False)
    connectors = load("documented", "connectors")
    assert connectors is not None
    reply = connectors.test("vpc.create.aws", {"name": "main"})
    assert (reply["_state"], reply["vpc_aws_id"], reply["cidr"]) == ("completed", "vpc-0", "10.0.0.0/16")
    refused = connectors.test("vpc.create.aws", {"name": "main", "cidr": 5})
    assert refused["error"].endswith("cidr: expected a text, got a number")
