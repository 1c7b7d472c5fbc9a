"""Other trainers' formats: trl, LLaMA-Factory, verl, and the mini format that ``ibisagent evaluate`` reads."""

from ibisagent.engine.corpus.converters.convert import FORMATS, Conversion, convert

__all__ = ["FORMATS", "Conversion", "convert"]
