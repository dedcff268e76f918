"""Doing the work: claim a job from the table, run it in a child process of its own, write its end."""
