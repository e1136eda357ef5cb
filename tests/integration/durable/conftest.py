"""Fixtures: a scene of one's own."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from integration.durable.scene import Scene

SceneFactory = Callable[..., Scene]


@pytest.fixture
def start_scene(tmp_path: Path) -> Iterator[SceneFactory]:
    """A scene with options for its connectors and more, see `Scene`: ``start_scene({"latency": 0.1})``."""
    with ExitStack() as stack:

        def start(options: dict[str, Any] | None = None, **more: Any) -> Scene:
            return Scene(stack, tmp_path, options, **more)

        yield start
