"""Runs builds: dependency graphs of infrastructure components, over NATS."""
