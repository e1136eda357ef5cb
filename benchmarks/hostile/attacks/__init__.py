"""The attacks, by what they misuse; importing them enters them into `arena.ATTACKS`."""

from benchmarks.hostile.arena import ATTACKS
from benchmarks.hostile.attacks import crowds, questions, replies, restarts, submissions, templates

__all__ = ["ATTACKS", "crowds", "questions", "replies", "restarts", "submissions", "templates"]
