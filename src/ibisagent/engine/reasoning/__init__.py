"""What an expert thinks at each step: facts of the Agent view, teachers that write, a verifier that refuses leaks."""
