"""The scheduler that commands ask in these tests."""

from support.shell import scheduler

__all__ = ["scheduler"]
