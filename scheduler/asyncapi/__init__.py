"""The AsyncAPI document: every subject, who uses it, and what a message on it has to be.

It is made of what the code itself uses. Subjects are the constants by which they are subscribed to, schemas
come from the structures that messages are read and written by, and who may publish and subscribe is what
the shipped permissions say. Begin reading with `document`; `channels` has the subjects and `messages` what
is said on them.
"""
