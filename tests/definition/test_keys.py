"""Keys of a component that are not a connector's to choose."""

import pytest

from scheduler.definition.keys import from_connector
from scheduler.definition.model import SETTINGS


@pytest.mark.parametrize("wrong", [*SETTINGS, "_State", "SERVICE", "_component_Id"])
def test_what_a_connector_returns_has_no_settings_and_no_mistakable_keys(wrong: str) -> None:
    """However often its other keys, and this one, were seen before."""
    plain = {"name": "a", "tags": {wrong: 1}, "_state": "completed"}
    for _ in range(3):
        assert from_connector(plain) is plain or from_connector(plain) == plain
        assert from_connector({wrong: 1, **plain}) == plain
        assert from_connector({**plain, "x" * 1_000: 2, wrong: 1}) == {**plain, "x" * 1_000: 2}


def test_any_number_of_keys_is_taken() -> None:
    """Builds choose them: what is remembered of them is bounded."""
    for begin in range(0, 30_000, 10_000):
        many = {f"k{number}": number for number in range(begin, begin + 10_000)}
        assert from_connector(many) == many
        assert from_connector({**many, "_timeout": 1}) == many
