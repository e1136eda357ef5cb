"""Runs one build: `walk` is its entry, and says what the other modules are for."""

from scheduler.walk.ports import Observer, Resending, Sender
from scheduler.walk.recording import store_failure
from scheduler.walk.rendering import render
from scheduler.walk.resumption import Resumption
from scheduler.walk.steering import Steering
from scheduler.walk.walk import Walk

__all__ = ["Observer", "Resending", "Resumption", "Sender", "Steering", "Walk", "render", "store_failure"]
