"""Secrets of a build: what counts as secret, and texts without it."""
