"""Requests, replies and slots."""
