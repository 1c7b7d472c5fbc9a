"""What happened before an instruction is given, as far as its sentence may speak of it."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["History"]

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


@dataclass(frozen=True)
class History:
    """The mask on screen and how it came about.

    Parameters
    ----------
    clicks
        Clicks made so far in this run.
    given
        Whether the run began with a mask that the user gave.
    """

    clicks: int = 0
    given: bool = True

    def __post_init__(self) -> None:
        if self.clicks < 0 or (self.clicks == 0 and not self.given):
            raise ValueError("a mask on screen was given or clicked")

    @property
    def mask(self) -> str:
        """A noun phrase without an article: ``"mask after two clicks"``."""
        return f"mask after {_clicks(self.clicks)}" if self.clicks else "given mask"

    @property
    def done(self) -> str:
        """A sentence without its full stop: ``"Two clicks have been made so far"``."""
        if not self.clicks:
            return "A mask was loaded and nothing has been clicked yet"
        have = "has" if self.clicks == 1 else "have"
        if self.given:
            return f"A mask was loaded, and {_clicks(self.clicks)} {have} been made since"
        text = _clicks(self.clicks)
        return f"{text[0].upper()}{text[1:]} {have} been made so far"


def _clicks(count: int) -> str:
    number = _NUMBERS[count] if count < len(_NUMBERS) else str(count)
    return f"{number} click" if count == 1 else f"{number} clicks"
