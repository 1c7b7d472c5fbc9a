"""The agent on a volume: it picks key slices, works there, and the mask goes on from slice to slice."""
