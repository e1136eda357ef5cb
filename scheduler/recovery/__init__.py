"""Recovers after a restart: resumes the builds that an earlier process left, and quarantines unsafe ones."""
