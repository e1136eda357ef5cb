"""Runs one build: `walk` the whole of it, `attempts` a component's part; `ports` is what it speaks to."""

from scheduler.walk.attempts import store_failure
from scheduler.walk.ports import Observer, Resending, Resumption, Sender
from scheduler.walk.rendering import render
from scheduler.walk.walk import Walk

__all__ = ["Observer", "Resending", "Resumption", "Sender", "Walk", "render", "store_failure"]
