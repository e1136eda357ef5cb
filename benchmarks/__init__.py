"""Measures the speed of the scheduler beside a bare client loop in the same run: ``python -m benchmarks``."""
