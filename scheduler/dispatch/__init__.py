"""Requests and replies: a request leaves, and its reply is matched to it once, whatever way it comes."""
