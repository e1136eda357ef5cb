"""Metrics: plain numbers about the work of this process, and the names under which they are exported.

What is counted anew stands in `tally`, `commits` and `turns`; all else is read where it is, when somebody
asks (`scheduler.web.figures`). This wing knows no library for metrics.
"""
