"""The deterministic simulation: the real service over a simulated world, on a mock clock and from a seed."""
