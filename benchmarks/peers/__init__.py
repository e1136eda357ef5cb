"""Measures others that run graphs of tasks beside this scheduler: ``python -m benchmarks --peers``."""
