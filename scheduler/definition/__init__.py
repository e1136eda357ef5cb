"""The definition of a build: its model, reading, checking and writing it, and resolving its references."""
