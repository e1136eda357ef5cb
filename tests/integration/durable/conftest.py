"""Fixtures: a scene of one's own, and other versions of the scheduler."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.durable.scene import Scene
from integration.versions import SHARES, WHOLE, install, make_newer

SceneFactory = Callable[..., Scene]


@pytest.fixture
def start_scene(tmp_path: Path) -> Iterator[SceneFactory]:
    """A scene with options for its connectors and more, see `Scene`: ``start_scene({"latency": 0.1})``."""
    with ExitStack() as stack:

        def start(options: dict[str, Any] | None = None, **more: Any) -> Scene:
            return Scene(stack, tmp_path, options, **more)

        yield start


@pytest.fixture(scope="session")
def shares(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first version that shares builds: the folder to import it from."""
    return install(SHARES, tmp_path_factory.mktemp("shares"))


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first version that was whole, which keeps no lease: the folder to import it from."""
    return install(WHOLE, tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version that is newer than this one, with another event in its logs: the folder to import it from."""
    return make_newer(tmp_path_factory.mktemp("newer"))
