"""NoC: how many simulated clicks a segmenter needs to reach an IoU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ibisagent.evaluate.figure_table import STEP_LEVELS
from ibisagent.evaluate.figures import FIGURES, CaseFigures, Figure, case_figures
from ibisagent.evaluate.protocols.protocol import Protocol
from ibisagent.metrics import NOC_CAP

if TYPE_CHECKING:
    from ibisagent.config import RolloutConfig
    from ibisagent.evaluate.result import CaseResult

__all__ = ["NocProtocol"]


class NocProtocol(Protocol):
    """``--protocol noc?clicks=20``."""

    name = "noc"
    title = "NoC@80/85/90"
    about = (
        "The segmenter alone is clicked until IoU 0.90 or 20 clicks, whichever comes first: each click is the deepest "
        "pixel of the missed region or of the excess region, whichever lies deeper. NoC@k is the mean number of clicks "
        "until IoU k."
    )
    conventions = (
        "Clicks begin on an empty mask, with no box; no pixel is clicked twice.",
        "Depth is measured in pixels, and the image's edge is a border; a tie of the two regions is a negative click.",
        "A target that is not reached, a false refusal and an error count as all clicks; reached_k says how many were "
        "reached.",
        "Absent targets are left out, and given masks are not used.",
    )
    option_names = ("clicks",)
    sentences = "none"
    with_absent = False
    from_nothing = True

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        super().__init__(values)
        self.num_clicks = self.options.integer("clicks", NOC_CAP, least=1)

    @property
    def figures(self) -> dict[str, Figure]:
        """NoC, which are the steps of a run that only clicks, and the shares that were reached."""
        found = [
            Figure(
                f"noc_{level}",
                f"NoC@{level}",
                f"Clicks until IoU >= {level / 100:.2f}; {self.num_clicks} where that is never reached.",
                False,
                False,
                "clicks",
            )
            for level in STEP_LEVELS
        ]
        found += [FIGURES[f"reached_{level}"] for level in STEP_LEVELS]
        return {figure.name: figure for figure in found}

    @property
    def bounds(self) -> dict[str, tuple[float, float]]:
        """At least a click, at most all."""
        return {f"noc_{level}": (1.0, float(self.num_clicks)) for level in STEP_LEVELS}

    def config(self, config: RolloutConfig) -> RolloutConfig:
        """As many steps as clicks; a click that is repeated is the rule's own doing."""
        return config.model_copy(
            update={"max_steps": self.num_clicks, "max_repeated_actions": max(2, self.num_clicks + 1)}
        )

    @property
    def policy(self) -> str:
        """The clicks."""
        return f"clicks:deepest-error?clicks={self.num_clicks}&stop=0.9"

    def case_figures(self, result: CaseResult) -> CaseFigures:
        """Present targets' figures."""
        if result.absent:
            return {}
        found = case_figures(result, max_steps=self.num_clicks)
        clicks = {f"noc_{level}": f"steps_to_{level}" for level in STEP_LEVELS}
        return {name: found[of] for name in self.figures if (of := clicks.get(name, name)) in found}
