"""Runs builds: dependency graphs of infrastructure components, over NATS."""

__version__ = "1.0.0"
