"""Finds builds that stay in the memory of processes, without the garbage collector."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from weakref import ref

from attrs import define, field

from scheduler.walk import Walk
from simulation.processes import Process
from simulation.who import WHO


@define(eq=False)
class Memory:
    """The walks of all builds, for as long as something refers to them."""

    _walks: list[tuple[Process, str, "ref[Walk]"]] = field(factory=list)

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note what is made, and collect nothing."""
        init = Walk.__init__

        def noted(walk: Walk, *args: Any, **options: Any) -> None:
            init(walk, *args, **options)
            process = WHO.get()
            assert process is not None, "a process has it"
            self._walks.append((process, walk.id, ref(walk)))

        collects = gc.isenabled()
        gc.disable()
        try:
            with mock.patch.object(Walk, "__init__", noted):
                yield
        finally:
            if collects:
                gc.enable()

    def kept(self, is_over: Callable[[str], bool]) -> list[tuple[str, str]]:
        """Find finished builds that are still in the memory of a running process, with process and id."""
        return [
            (process.name, build)
            for process, build, walk in self._walks
            if walk() is not None and process.alive and is_over(build)
        ]
