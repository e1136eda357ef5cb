"""Runs one build: `walk` the whole of it, `attempts` a component's part; `ports` is what it speaks to."""

from scheduler.build.attempts import store_failure
from scheduler.build.ports import Journey, Observer, Resending, Sender
from scheduler.build.rendering import render
from scheduler.build.walk import Walk

__all__ = ["Journey", "Observer", "Resending", "Sender", "Walk", "render", "store_failure"]
