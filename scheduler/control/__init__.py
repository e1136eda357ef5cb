"""Answers operators: the service side of ``scheduler.build.VERB``."""
