"""Whoever submits and follows builds."""
