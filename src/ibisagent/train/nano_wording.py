"""Nano's short thoughts and answers: the sentences of the terse teacher, under the names that its recipe uses."""

from __future__ import annotations

from ibisagent.engine.reasoning.terse import answer_text, thought_text, where_text

__all__ = ["answer_text", "thought_text", "where_text"]
