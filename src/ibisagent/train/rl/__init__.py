"""Multi-turn reinforcement learning: the model acts in the environment and is trained on its own tokens only.

Layout: prompts (what is asked) -> contexts (a conversation as tokens, in and out) -> sampler (who writes the next
reply) -> play (groups of siblings, side by side) -> advantages -> batch -> trainer (trl's GRPO on top).
"""
