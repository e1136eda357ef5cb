"""Measures this version beside another one, in turn: ``python -m benchmarks --against REV``."""
