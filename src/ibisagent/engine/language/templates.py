"""The library of instruction templates: the paper's 13 categories, starting (group A) and refining (group B).

Placeholders (:mod:`ibisagent.engine.language.instructions` fills them, with the right article and number):
``{the}`` "the left lung" · ``{name}`` "left lung" · ``{image}`` "CT scan" · ``{is}`` is/are · ``{it}`` it/them ·
``{does}`` does/do.
The last quarter of every category is kept out of training (split ``test``), so that what is measured is the
understanding of a sentence, not the memory of it.
"""

from __future__ import annotations

__all__ = ["REFINE_CATEGORIES", "START_CATEGORIES", "TEMPLATES"]

START: dict[str, tuple[str, ...]] = {
    "direct": (
        "Segment {the}.",
        "Segment {the} in this {image}.",
        "Outline {the}.",
        "Mark {the} in the {image}.",
        "Delineate {the}.",
        "Find {the} and segment {it}.",
        "Outline {the} in this {image}.",
        "Delineate {the} in the {image}.",
    ),
    "goal_oriented": (
        "I need a mask of {the}.",
        "The goal is a precise mask of {the}.",
        "We want to measure {the}; segment {it} first.",
        "To measure the size of {the}, I need {it} outlined.",
        "The final mask should cover {the} and nothing else.",
        "Produce a segmentation of {the} for this {image}.",
        "The goal is a segmentation of {the} in this {image}.",
        "I need a precise mask that covers {the} and nothing else.",
    ),
    "initialization_intent": (
        "Let's start segmenting {the}.",
        "Begin a new segmentation of {the}.",
        "There is no mask yet. Start with {the}.",
        "Start from this {image} and segment {the}.",
        "Place the first click for {the}.",
        "Let's begin: the target is {the}.",
        "There is no mask yet. Begin with {the} in this {image}.",
        "Let's start a new mask: the target is {the}.",
    ),
    "mixed_conversational": (
        "Here is a new {image}. I'd like to see {the} outlined.",
        "OK, next {image}. This time it is about {the}.",
        "I'm looking at this {image} and want {the} segmented.",
        "Right, so the target is {the}. Go ahead and segment {it}.",
        "I have this {image} here, and we need {the} marked.",
        "Thanks. Now let's look at {the} and get {it} segmented.",
        "OK, here is an image. The target is {the}, go ahead.",
        "I'm looking at a new {image}, and now I need {the} outlined.",
    ),
    "polite": (
        "Please segment {the}.",
        "Please outline {the} in this {image}.",
        "Could you please mark {the}?",
        "Would you kindly segment {the} in this {image}?",
        "Please find {the} and outline {it}, thank you.",
        "Would you please delineate {the}?",
        "Could you kindly outline {the} in the {image}?",
        "Please mark {the} for me, thank you.",
    ),
    "question": (
        "Where {is} {the}?",
        "Can you segment {the}?",
        "Which pixels belong to {the}?",
        "Which part of this {image} {is} {the}?",
        "Can you show me where {the} {is}?",
        "What {does} {the} look like in this {image}?",
        "Can you outline {the} in this {image}?",
        "Where {is} {the} in the {image}?",
    ),
    "concise_technical": (
        "{Name}.",
        "Segmentation: {name}.",
        "Target: {name}.",
        "{Name}, binary mask.",
        "Mask of {name}.",
        "{Name} segmentation.",
        "Target: {name}, binary mask.",
        "Segmentation mask: {name}.",
    ),
}

REFINE: dict[str, tuple[str, ...]] = {
    "whats_next": (
        "What is the next click to improve the mask of {the}?",
        "Here is the current mask of {the}. What next?",
        "What should be done next for {the}?",
        "Given this mask of {the}, what is the next step?",
        "Continue from this mask: the target is {the}.",
        "Where should the next click go for {the}?",
        "Here is the current mask. What is the next click for {the}?",
        "Continue with {the}. What should be done next?",
    ),
    "error_hint": (
        "The mask of {the} is not right yet; find the error and correct it.",
        "Parts of {the} are missing or there is too much in the mask. Correct it.",
        "The mask does not match {the}; correct it.",
        "There are errors in this mask of {the}.",
        "This mask misses or exceeds {the} in some places. Fix it.",
        "Something is wrong with this mask of {the}.",
        "There is an error in the mask of {the}. Find it and fix it.",
        "This mask does not match {the} in some places.",
    ),
    "concise": (
        "Refine {the}.",
        "Refine: {name}.",
        "Fix the mask of {the}.",
        "Better mask of {the}.",
        "Correct the mask: {name}.",
        "{Name}, refine.",
        "Fix the mask: {name}.",
        "{Name}, better mask.",
    ),
    "improve_correct": (
        "Improve this mask of {the}.",
        "Correct the current mask so that it covers {the}.",
        "Make the mask of {the} more precise.",
        "Improve the segmentation of {the} in this {image}.",
        "Correct the outline of {the}.",
        "Improve the mask until it matches {the}.",
        "Improve the current mask so that it matches {the}.",
        "Correct this segmentation of {the} in the {image}.",
    ),
    "check_verify": (
        "Check whether the mask covers {the}, and correct it if not.",
        "Is this mask of {the} right? If not, fix it.",
        "Verify the current mask of {the}.",
        "Check the outline of {the} in this {image}.",
        "Does this mask show {the}? Correct it if it does not.",
        "Verify that the mask matches {the} and nothing else.",
        "Check this mask of {the}. If it is not right, correct it.",
        "Verify the outline of {the} in this {image}.",
    ),
    "polite_conversational": (
        "Could you please improve the mask of {the}?",
        "Thanks, that is close. Please correct the mask of {the} a little more.",
        "Please have another look at {the} and refine the mask.",
        "Would you mind correcting this mask of {the}?",
        "Good start, but please make the mask of {the} more precise.",
        "Please check {the} once more and fix the mask, thank you.",
        "Thanks, good start. Could you please refine the mask of {the}?",
        "Would you mind another look at the mask of {the}?",
    ),
}

START_CATEGORIES = tuple(START)
REFINE_CATEGORIES = tuple(REFINE)

TEMPLATES: dict[str, tuple[str, ...]] = {
    **START,
    **REFINE,
}
"""Templates of every category; within one, the order is part of the library (its end is the test split)."""
