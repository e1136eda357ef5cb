"""The run of one build."""
