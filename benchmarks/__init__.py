"""How fast the scheduler is, beside the bare client loop of the same run: ``python -m benchmarks``."""
