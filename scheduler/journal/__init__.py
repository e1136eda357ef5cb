"""The journal of a build: its events, the format of its log, and the history that a log adds up to."""
