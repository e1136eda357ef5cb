"""Requests and replies: how one leaves and finds its way back, once, whatever way it comes."""
