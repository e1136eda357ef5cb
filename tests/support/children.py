"""Processes that a process has started, as the kernel tells."""

from pathlib import Path


def children_of(pid: int, word: str) -> list[int]:
    """Return the ids of the children of a process whose command line has a word, ended ones left out.

    Args:
        pid: id of the process.
        word: an argument, as it was given.
    """
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += map(int, tasks.read_text().split())
        except OSError:
            # The thread has ended.
            continue
    return [one for one in found if word.encode() in _words(one)]


def _words(pid: int) -> list[bytes]:
    try:
        # Of one that has ended and was not awaited yet it is empty.
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []
