"""Shared by all that is deployed."""

import pytest

from scheduler.deploy.files import GRAFANA_PASSWORD, PAGE_TOKEN
from scheduler.deploy.keys import Keys, make_keys


@pytest.fixture(scope="session")
def keys() -> Keys:
    """Keys that were drawn now."""
    return make_keys(lambda _: None, words=[PAGE_TOKEN, GRAFANA_PASSWORD])
