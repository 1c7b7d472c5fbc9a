"""ReasonSeg-style: the target is described by place, function or disease, and never named."""

from __future__ import annotations

from ibisagent.engine.language.implicit import draw_implicit
from ibisagent.evaluate.protocols.protocol import Protocol
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io import CaseRow

__all__ = ["ReasonSegProtocol"]


class ReasonSegProtocol(Protocol):
    """``--protocol reasonseg``."""

    name = "reasonseg"
    title = "ReasonSeg-style"
    about = (
        "Every case's instruction describes the target and does not name it, so that the agent must know what is meant "
        "before it can look for it. gIoU (mean IoU) and cIoU (pooled IoU)."
    )
    conventions = (
        "Descriptions are this package's, not ReasonSeg's sentences; where a target has several, those that training "
        "does not use, in frames that training does not use.",
        "Targets without a description that fits the picture's modality are left out, and counted.",
        "As in ReasonSeg, absent targets count: gIoU 1 if the final mask is empty, else 0; falsely marked pixels join "
        "the unions of cIoU.",
        "Errors are IoU 0, and their reference joins the unions.",
    )
    figure_names = ("giou_all", "ciou_all", "right_refusals", "false_refusals")
    sentences = "none"

    def tell(self, row: CaseRow, seed: int) -> CaseRow | str:
        """The row with a description, drawn by run and case; a mask that the row gives stays."""
        drawn = draw_implicit(row.target, row.modality, instruction_seed(seed, row.case_id), "test")
        if drawn is None:
            return f"no description of {row.target}"
        return row.model_copy(update={"instruction": drawn.text, "category": drawn.category})
