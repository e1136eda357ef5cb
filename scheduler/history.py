"""Folds the records of a build's log into what stands in it."""
