"""From a row of ``sft`` back to the episode that it was written from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import DIALECTS, BoxAction, ClickAction, Dialect, DiscardAction, TerminateAction, UndoAction
from ibisagent.episode import (
    Episode,
    ImageRecord,
    Invalid,
    Outcome,
    PolicyRecord,
    SegmenterRecord,
    Step,
    encode_mask,
)
from ibisagent.errors import ActionError, InputError
from ibisagent.hashing import text_hash
from ibisagent.messages import messages_for_record

if TYPE_CHECKING:
    from ibisagent.engine.corpus.reader import Corpus
    from ibisagent.types import Image

__all__ = ["dialect_of", "dialects_of", "episode_of_row"]

_ENDED = {Outcome.DONE: "terminate", Outcome.ABSENT: "terminate", Outcome.UNCERTAIN: "terminate"}


def dialects_of(replies: Sequence[str]) -> tuple[str, ...]:
    """Names of the dialects that can read the most of these replies; ``plain`` is the first where it is one of them."""
    readable = {name: sum(_parses(dialect, reply) for reply in replies) for name, dialect in DIALECTS.items()}
    return tuple(name for name, count in readable.items() if count == max(readable.values()))


def dialect_of(replies: Sequence[str]) -> Dialect:
    """The dialect that can read the most of these replies; ``plain`` where several can."""
    return DIALECTS[dialects_of(replies)[0]]


def episode_of_row(corpus: Corpus, row: Mapping[str, Any]) -> Episode:
    """See :meth:`ibisagent.engine.corpus.reader.Corpus.episode`."""
    case, messages = corpus.case(row), corpus.messages(row)
    recorded = messages_for_record(messages)
    places = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    if len(places) != len(row["steps"]):
        raise InputError(
            f"{case.case_id}: {len(places)} replies and {len(row['steps'])} steps do not belong together; "
            "build the corpus again"
        )
    replies = ["".join(part.get("text", "") for part in messages[place]["content"]) for place in places]
    dialect = dialect_of(replies)
    steps, after = [], 0
    standing: list[tuple[int, ...]] = [()]  # as the environment keeps it: steps whose predictions still stand
    for index, (facts, place, reply) in enumerate(zip(row["steps"], places, replies, strict=True)):
        step = Step(index=index, messages=recorded[after:place], raw_text=reply)
        after = place + 1
        _read_reply(step, dialect, case.image)
        step.mask = corpus.rle(row, facts["mask"])
        step.changed_pixels, step.segmenter_score = facts["changed_pixels"], facts["segmenter_score"]
        steps.append(step)
        _follow(standing, step)
    outcome = None if row["outcome"] is None else Outcome(row["outcome"])
    final, final_step = None, None
    if outcome is not None:
        if outcome is not Outcome.ABSENT:
            final = steps[-1].mask if steps else corpus.rle(row, row["initial_mask"])
            final_step = standing[-1][-1] if standing[-1] and final is not None else None
        if final is None:
            final = encode_mask(np.zeros((case.image.height, case.image.width), bool))
    system = messages[0]["content"][0]["text"] if messages and messages[0]["role"] == "system" else ""
    facts = row["provenance"]
    return Episode(
        ibisagent_version=facts["ibisagent_version"],
        case_id=case.case_id,
        target=case.target,
        group=case.group,
        instruction=case.instruction,
        image=ImageRecord(
            sha256=case.image.sha256,
            source=row["sample"].replace("\\", "/").rpartition("/")[2],
            width=case.image.width,
            height=case.image.height,
            modality=case.image.modality,
            geometry=case.image.geometry.to_json(),
        ),
        initial_mask=corpus.rle(row, row["initial_mask"]),
        policy=PolicyRecord(
            name=f"expert:{row['expert']}" if row["expert"] else "expert",
            dialect=dialect.name,
            system_prompt_sha256=text_hash(system),
        ),
        segmenter=SegmenterRecord(name=facts["segmenter"] or "", weights_sha256=facts["segmenter_sha256"]),
        seed=facts["seed"] or 0,
        max_steps=max(1, row["num_steps"]),
        steps=steps,
        outcome=outcome,
        end_reason=_ENDED.get(outcome) if outcome is not None else None,  # type: ignore[arg-type]
        answer=row["answer"] or "",
        final_mask=final,
        final_step=final_step,
        best_mask_rule="the mask of the trajectory's end" if outcome is not None else "",
    )


def _parses(dialect: Dialect, reply: str) -> bool:
    try:
        dialect.parse(reply)
    except ActionError:
        return False
    return True


def _read_reply(step: Step, dialect: Dialect, image: Image) -> None:
    try:
        turn = dialect.parse(step.raw_text)
    except ActionError as error:  # a reply that was no action is an observation in the run, and stays one here
        step.invalid = Invalid(code=error.code, reason=str(error))
        return
    step.thought, step.action = turn.thought, turn.action
    if isinstance(turn.action, ClickAction):
        clicks = [click.to_pixel(image.width, image.height) for click in turn.action.clicks]
        step.pixels_xy = [(click.x, click.y) for click in clicks]
    elif isinstance(turn.action, BoxAction):
        box = turn.action.to_pixels(image.width, image.height)
        step.pixels_xy = [(box.x0, box.y0), (box.x1, box.y1)]


def _follow(standing: list[tuple[int, ...]], step: Step) -> None:
    action = step.action
    if step.invalid is not None or action is None or isinstance(action, TerminateAction):
        return
    if isinstance(action, UndoAction):
        if len(standing) > 1:
            standing.pop()
    elif isinstance(action, DiscardAction):
        standing.append(())
    else:
        standing.append((*standing[-1], step.index))
