"""Data sets as people have them, read into samples: one adapter a format."""
