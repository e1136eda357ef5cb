"""Notifications: JSON that is posted to URLs when a build fails, waits for a person, or has ended.

`notice` is what is said, `signing` proves who says it, `retries` and `outbox` decide when it is sent: all of
these are synchronous. `notifier` sends, on Trio, by the port `poster`, which `http` implements with httpx2.
"""

from scheduler.notifying.notice import Kind, Notice
from scheduler.notifying.notifier import Notifier

__all__ = ["Kind", "Notice", "Notifier"]
