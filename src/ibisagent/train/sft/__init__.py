"""``ibisagent train sft``: supervised fine-tuning of any chat model with images on recorded trajectories."""
