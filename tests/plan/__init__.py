"""The state machine of a build."""
