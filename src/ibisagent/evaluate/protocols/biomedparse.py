"""BiomedParse's test: one sentence a mask, overlap figures over all of them and by modality."""

from __future__ import annotations

from ibisagent.evaluate.protocols.protocol import Protocol

__all__ = ["BiomedParseProtocol"]


class BiomedParseProtocol(Protocol):
    """``--protocol biomedparse``."""

    name = "biomedparse"
    title = "BiomedParse"
    about = (
        "Every mask of the test folders is asked for by one sentence, and the final mask is held against it: mean IoU, "
        "pooled IoU (cIoU), share of masks at IoU 0.5 to 0.9, mean Dice; all of it by modality too."
    )
    conventions = (
        "Targets that a data set says are absent are left out, as in the published test.",
        "A mask with several sentences is asked for by its first; the published loader draws one of them.",
        "Masks are compared on the grid of their file; the published test first scales both to 1024 x 1024 pixels.",
        "P@t counts IoU >= t. cIoU is the sum of intersections over the sum of unions.",
        "Errors and false refusals are IoU 0, and their reference joins the unions.",
    )
    figure_names = ("iou", "ciou", "p_at_50", "p_at_60", "p_at_70", "p_at_80", "p_at_90", "dice")
    with_absent = False
    only_reads = True
