"""The data engine: from masks to trajectories worth learning from."""
