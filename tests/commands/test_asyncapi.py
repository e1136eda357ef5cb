"""``scheduler asyncapi`` as it is called."""

import json

import pytest
import yaml

from scheduler import cli
from scheduler.asyncapi.document import asyncapi


def printed(capsys: pytest.CaptureFixture[str], *tokens: str) -> str:
    """What the command prints."""
    assert cli.main(["asyncapi", *tokens]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_json_and_yaml_are_the_same_document(capsys: pytest.CaptureFixture[str]) -> None:
    """Both have all of it, in the same order."""
    as_json = json.loads(printed(capsys, "--json"))
    as_yaml = yaml.safe_load(printed(capsys))
    assert as_json == as_yaml == json.loads(json.dumps(asyncapi()))
    assert [*as_yaml] == [
        "asyncapi",
        "info",
        "defaultContentType",
        "servers",
        "channels",
        "operations",
        "components",
    ]


def test_yaml_says_each_thing_where_it_belongs(capsys: pytest.CaptureFixture[str]) -> None:
    """No anchors and aliases, which many readers of YAML do not take."""
    out = printed(capsys)
    assert not [event for event in yaml.parse(out) if isinstance(event, yaml.AliasEvent)]
    assert out.startswith("asyncapi: 3.0.0\n")


def test_it_is_the_same_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a copy of it that is kept changes only when the wire does."""
    assert printed(capsys) == printed(capsys)
