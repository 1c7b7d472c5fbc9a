"""The error model: who is at fault decides what happens next.

- :class:`InputError`   what the user gave cannot be used; the CLI prints one line and exits with 2.
- :class:`ActionError`  what the model wrote is not an action; it becomes an observation for the model.
- :class:`ToolError`    the segmenter failed; the episode ends with the outcome ``error`` (exit 5).
- :class:`PolicyError`  the model or its server failed; likewise ``error`` (exit 5).

None of them ever turns into a silent empty mask.
"""

from __future__ import annotations

__all__ = ["ActionError", "IbisError", "InputError", "MissingExtraError", "PolicyError", "ToolError"]


class IbisError(Exception):
    """Base class of every error that ibisagent raises on purpose."""


class InputError(IbisError):
    """A file, option or value that the user gave cannot be used.

    The message is one line: what is wrong, where, and what to do.
    """


class MissingExtraError(InputError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an optional dependency: pip install 'ibisagent[{extra}]'")
        self.feature = feature
        self.extra = extra


class ActionError(IbisError):
    """A model's reply breaks the action grammar.

    Parameters
    ----------
    code
        Stable machine-readable reason, for example ``"coordinate_range"``.
    reason
        One sentence for the model and for the reader of the episode.
    """

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ToolError(IbisError):
    """A segmenter failed or returned something that is not a mask."""


class PolicyError(IbisError):
    """A policy failed: a model raised, a server did not answer, a script ran out."""
