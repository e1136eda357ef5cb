"""Broker, connectors and builds to try things out."""
