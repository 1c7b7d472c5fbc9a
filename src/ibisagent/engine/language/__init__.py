"""What is said to the agent: names of structures, and instructions drawn from a library of templates."""
