"""Watching a training: its figures as lines, in trackers and as curves, and pages of the runs that it learns from."""
