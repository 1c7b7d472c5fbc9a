"""The table of all figures. What is said here of cases, errors and empty masks is what the code does and tests pin."""

from __future__ import annotations

from collections.abc import Iterator

from ibisagent.evaluate.figure import Figure

__all__ = ["CEILING_MARGIN", "FIGURES", "GOOD_IOU", "HEADLINE", "OVERLAP_LEVELS", "SECTIONS", "STEP_LEVELS"]

OVERLAP_LEVELS = (50, 60, 70, 80, 90)
"""IoU in percent that ``p_at_*`` asks for."""

STEP_LEVELS = (80, 85, 90)
"""IoU in percent that ``steps_to_*`` and ``reached_*`` wait for."""

GOOD_IOU = 0.80
"""From here on nobody calls a stop premature: the highest level of the published answer reward, and where its data's
experts stop."""

CEILING_MARGIN = 0.05
"""How far below the ceiling a run may stop and still not have stopped too early."""

SECTIONS = {
    "overlap": "Overlap with the reference",
    "surface": "Distance to the reference's contour",
    "refusals": "Absent targets and failures",
    "actions": "Actions",
    "refinement": "Refinement",
    "stopping": "Stopping",
    "cost": "Cost",
}
"""Titles of the tables, in their order."""


def _overlap() -> Iterator[Figure]:
    zero = "errors, false refusals and empty masks are 0"
    yield Figure("iou", "IoU", f"IoU of the final mask over present targets; {zero}.")
    yield Figure("dice", "Dice", f"Dice of the final mask over present targets; {zero}.")
    yield Figure("precision", "Precision", f"Right pixels over pixels of the final mask, present targets; {zero}.")
    yield Figure("recall", "Recall", f"Right pixels over pixels of the reference, present targets; {zero}.")
    for level in OVERLAP_LEVELS:
        yield Figure(
            f"p_at_{level}",
            f"P@{level / 100:.1f}",
            f"Present targets with IoU >= {level / 100:.2f} over present targets; errors are misses.",
        )
    yield Figure(
        "ciou",
        "Pooled IoU",
        "cIoU: intersections over unions, each summed over present targets, so that large ones weigh more; an error or "
        "a false refusal adds the reference to the unions. Rows that could not be read are left out: their sizes are "
        "not known.",
    )
    yield Figure(
        "ciou_all",
        "Pooled IoU, absent too",
        "As ciou, over absent targets too, whose falsely marked pixels join the unions.",
    )
    yield Figure(
        "giou_all",
        "Mean IoU, absent too",
        "gIoU: mean over all cases, where an absent target is 1 if the final mask is empty and else 0; errors are 0.",
    )
    yield Figure(
        "entity_f1",
        "Entity F1",
        "2 TP / (2 TP + FP + FN): a present target met with IoU >= 0.5 is a TP; missed with a mask it is a FP and a "
        "FN, without one (also after an error) a FN; a mask for an absent target is a FP.",
    )
    yield Figure(
        "area_error",
        "Area error",
        "|area - reference's area| / reference's area of the final mask, present targets; an empty mask or an error "
        "is 1, and it has no upper bound.",
        False,
    )
    yield Figure(
        "area_bias",
        "Area bias",
        "(area - reference's area) / reference's area, signed: below 0 is too small; an empty mask or an error is -1.",
        None,
    )


def _surface() -> Iterator[Figure]:
    where = "present targets with known spacing; contour elements weigh by length, as in DeepMind's surface-distance"
    yield Figure(
        "nsd_2mm",
        "NSD at 2 mm",
        f"Normalised surface Dice: share of both contours within 2 mm of the other, {where}. Errors, false refusals "
        "and empty masks are 0.",
    )
    yield Figure(
        "hd95_mm",
        "HD95",
        f"95th percentile of the distance between contours, the larger of both directions, {where}. An empty mask or "
        "an error counts as the image's diagonal (rows that could not be read are left out).",
        False,
        False,
        "mm",
    )
    yield Figure(
        "hd95_mm_nonempty",
        "HD95 of non-empty masks",
        "As hd95_mm, but only over the cases whose final mask has a pixel: a method that gives up on hard cases looks "
        "better by it.",
        False,
        False,
        "mm",
    )


def _refusals() -> Iterator[Figure]:
    yield Figure(
        "right_refusals",
        "Right refusals",
        "Absent targets that were called absent, over absent targets; an error is no refusal.",
    )
    yield Figure("false_refusals", "False refusals", "Present targets that were called absent.", False)
    yield Figure(
        "sensitivity",
        "Sensitivity",
        "Present targets whose final mask has a pixel, wherever it lies, over present targets; errors have none.",
    )
    yield Figure(
        "specificity",
        "Specificity",
        "Absent targets whose run ended with an empty final mask, whatever it said, over absent targets; an error does "
        "not count as empty.",
    )
    yield Figure(
        "absent_area",
        "Area marked of absent targets",
        "Share of the image that the final mask covers, mean over absent targets, runs without error.",
        False,
    )
    yield Figure("errors", "Errors", "Rows that could not be read and runs that failed, over all rows.", False)


def _actions() -> Iterator[Figure]:
    yield Figure("action_validity", "Action validity", "Legal replies over all replies, present targets.")
    yield Figure(
        "repeated_actions",
        "Repeated actions",
        "Steps that say what an earlier step of the run said (the same pixels and signs; a text that is no action: the "
        "same text) over all steps, present targets. Undo and discard never count as repeats.",
        False,
    )
    yield Figure(
        "wasted_actions",
        "Wasted actions",
        "Carried out actions that changed no pixel, over all that were carried out (Terminate is none), present "
        "targets.",
        False,
    )
    yield Figure(
        "click_correctness",
        "Click correctness",
        "Positive clicks on a missed pixel and negative clicks on an excess pixel of the mask before them, over all "
        "clicks of legal actions, present targets.",
    )
    yield Figure("positive_click_correctness", "Positive clicks right", "As click_correctness, positive clicks.")
    yield Figure("negative_click_correctness", "Negative clicks right", "As click_correctness, negative clicks.")


def _refinement() -> Iterator[Figure]:
    yield Figure(
        "refinement_success",
        "Refinement success",
        "Steps after the first mask that raised the IoU, over all such steps; present targets. A rejected reply is a "
        "step that raised nothing.",
    )
    yield Figure(
        "refinement_harm",
        "Refinement harm",
        "Steps after the first mask that lowered the IoU, over the same steps as refinement_success.",
        False,
    )
    yield Figure(
        "gain_over_first",
        "Gain over the first mask",
        "Final IoU minus that of the first mask (the given one, if any), present targets, runs with a mask and without "
        "error.",
        True,
        False,
    )
    yield Figure(
        "iou_auc",
        "IoU over steps",
        "Area under IoU against steps 0 to the budget by trapezoids, divided by the budget; a run that ended carries "
        "its last value on, which is 0 after an error or a false refusal. Budgets must be equal to be compared.",
    )
    for level in STEP_LEVELS:
        yield Figure(
            f"steps_to_{level}",
            f"Steps to {level}",
            f"Steps until IoU >= {level / 100:.2f} is first reached; a run that never does, an error and a "
            "false refusal count as the whole budget, so that budgets must be equal to be compared. Present targets.",
            False,
            False,
            "steps",
        )
    for level in STEP_LEVELS:
        yield Figure(
            f"reached_{level}",
            f"Reached {level}",
            f"Present targets whose run reached IoU >= {level / 100:.2f} at some step: those of steps_to_{level} that "
            "are not filled up with the budget.",
        )


def _stopping() -> Iterator[Figure]:
    runs = "present targets, runs without error"
    yield Figure("steps", "Steps", f"Actions before the stop, {runs}.", None, False, "steps")
    yield Figure(
        "regret",
        "Regret",
        f"Best IoU of all masks of the run minus that of the final one, {runs}; a false refusal regrets its best mask.",
        False,
        False,
    )
    yield Figure(
        "steps_after_best",
        "Steps after the best mask",
        f"Steps after the first of the masks with the run's best IoU, {runs}, where that is not 0.",
        False,
        False,
        "steps",
    )
    yield Figure(
        "late_stops", "Late stops", "Runs with a step after their best mask, over those of steps_after_best.", False
    )
    yield Figure(
        "premature_stops",
        "Premature stops",
        "Runs that stopped by themselves (found or uncertain) with steps left and IoU < "
        f"{GOOD_IOU:.2f} although their last step had raised it, or without any step; over all present targets whose "
        "run stopped by itself.",
        False,
    )
    yield Figure(
        "premature_vs_ceiling",
        "Stops below the ceiling",
        f"Runs that stopped by themselves with steps left and more than {CEILING_MARGIN:.2f} IoU below what oracle "
        "clicks reach on the same case with the same segmenter; over all that stopped by themselves and have such a "
        "ceiling.",
        False,
    )
    yield Figure(
        "ceiling_share",
        "Share of the ceiling",
        "Sum of the final IoU over the sum of the best IoU of the oracle's runs, present targets that have such a "
        "ceiling; errors are 0. Above 1 where the agent does better than the oracle.",
    )
    yield Figure("out_of_steps", "Out of steps", "Runs that a budget ended, over all runs; present targets.", False)


def _cost() -> Iterator[Figure]:
    yield Figure(
        "seconds",
        "Seconds",
        "Policy and segmenter per run, present or absent target; a batch's time is shared out among its runs, and the "
        "image's encoding is not in it.",
        False,
        False,
        "s",
    )
    yield Figure("tokens", "Tokens", "Tokens written per run, where the policy counts them.", False, False, "tokens")
    yield Figure(
        "prompt_tokens",
        "Prompt tokens",
        "Tokens read per run, summed over its replies, where the policy counts them.",
        False,
        False,
        "tokens",
    )


def _table() -> Iterator[Figure]:
    from dataclasses import replace

    made = (_overlap, _surface, _refusals, _actions, _refinement, _stopping, _cost)
    for section, figures in zip(SECTIONS, made, strict=True):
        yield from (replace(figure, section=section) for figure in figures())


FIGURES: dict[str, Figure] = {figure.name: figure for figure in _table()}
"""Every figure, in the order of the tables."""

HEADLINE = (
    *("iou", "dice", "nsd_2mm", "hd95_mm", "p_at_50", "right_refusals", "false_refusals", "errors", "action_validity"),
    *("refinement_success", "refinement_harm", "steps", "regret"),
)
"""The figures that are worth a breakdown by target, modality or group, and a row in a short table."""
