"""Live views: one look at a build, or at all of them, for however many viewers.

`table` folds the events of a build into the states of its components, `mailbox` keeps what a viewer has not
read, within bounds; both are synchronous. `following` keeps a table up to date, `hub` and `overview` encode
what changed, once, and hand it out.
"""
