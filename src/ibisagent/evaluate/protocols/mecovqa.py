"""MeCOVQA-G+: questions that are answered with a mask."""

from __future__ import annotations

from ibisagent.engine.language.instructions import draw_instruction
from ibisagent.evaluate.protocols.protocol import Protocol
from ibisagent.evaluate.run import instruction_seed
from ibisagent.io import CaseRow

__all__ = ["MecoVqaProtocol"]


class MecoVqaProtocol(Protocol):
    """``--protocol mecovqa-g``."""

    name = "mecovqa-g"
    title = "MeCOVQA-G+"
    about = (
        "Every question of the grounding test is a case: the agent is asked it as it stands, and its final mask is "
        "held against the mask of the answer. IoU, Dice and entity F1, by modality too."
    )
    conventions = (
        "Every question is a case of its own, also where two ask for the same mask.",
        "Masks of one name on one image are united, as the source does: where the published file asks for single "
        "instances, the reference here is all of them.",
        "Entity F1: a mask with IoU >= 0.5 is a true positive, a poorer one is a false positive and a false negative.",
        "A list without questions of its own is asked in question templates that training does not use.",
        "Errors and false refusals are 0.",
    )
    figure_names = ("iou", "dice", "entity_f1")
    sentences = "all"
    with_absent = False

    def tell(self, row: CaseRow, seed: int) -> CaseRow:
        """The row with a question."""
        if row.instruction is not None and row.instruction.strip():
            return row
        drawn_from = instruction_seed(seed, row.case_id)
        drawn = draw_instruction(row.target, row.modality, drawn_from, category="question", split="test")
        return row.model_copy(update={"instruction": drawn.text, "category": drawn.category})
