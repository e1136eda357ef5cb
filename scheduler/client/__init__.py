"""Whoever submits builds, follows them and asks about them, as seen from there."""
