"""Texts under long keys are judged at intake, whatever else is in their component."""

from typing import Any

import msgspec
import pytest

from scheduler.definition.choices import Templates
from scheduler.definition.validation import read_build
from scheduler.errors import InvalidBuild


def build(value: Any) -> bytes:
    own = {"_component_id": "web", "_component": "vpc", "_provider": "aws", "_action": "create"}
    long = {"k" * 600: {"j" * 600: "{{ literal }}"}}
    existing = {"_component_id": "old", "_component": "vpc", "x": 7}
    document = {"id": "b1", "components": [existing], "changes": [{**own, "x": value, **long}], "edges": []}
    return msgspec.json.encode(document)


@pytest.mark.parametrize(
    "value", ["text", '$(components.#[_component_id="old"].x)', '$(components.#[_component_id="gone"].x)']
)
def test_braces_under_keys_that_are_too_long_are_refused_where_they_are_no_reference(value: str) -> None:
    with pytest.raises(InvalidBuild, match="1024 characters"):
        read_build(build(value), templates=Templates.ERNEST)
