"""The environment: takes replies, moves the segmenter, keeps the record. It never sees a target.

A reply that is no legal action is an observation for the policy (a step with ``invalid`` set); a
segmenter that fails ends the run with the outcome ``error``. Neither is ever a silent empty mask.

Budgets. ``max_steps`` counts every reply but a Terminate that was carried out. After the last step
the policy is asked once more, so that it may still stop; anything but a valid Terminate is not
carried out then, and the run is out of steps. Identical actions in a row and the wall clock end a
run likewise, without that last question.

The final mask: the current one after Terminate found or uncertain (all zero if there is none, and
said so), all zero after absent. When a budget ends the run: the last mask; but an earlier one that was
not undone or discarded where the segmenter itself scored it more than :data:`SCORE_MARGIN` above the last
(of several the one with the highest score), which means that a late action ruined it; all zero, and said
so, if there is none.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ibisagent import __version__
from ibisagent.actions import DIALECTS, Action, BoxAction, ClickAction, Dialect, TerminateAction, Turn, UndoAction
from ibisagent.config import RolloutConfig
from ibisagent.episode import (
    Budget,
    Episode,
    ImageRecord,
    Invalid,
    Outcome,
    PolicyRecord,
    Seconds,
    SegmenterRecord,
    Step,
    WindowRecord,
)
from ibisagent.errors import ActionError, InputError, ToolError
from ibisagent.hashing import text_hash
from ibisagent.messages import default_system_prompt, messages_for_record, new_messages
from ibisagent.policies.protocol import Policy, Reply, View
from ibisagent.rle import encode_mask
from ibisagent.segmenters.cache import EmbeddingCache
from ibisagent.segmenters.protocol import Segmenter
from ibisagent.segmenters.session import Session, supported_kinds
from ibisagent.types import Case, Image, Prediction, Prompt

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SCORE_MARGIN", "SegmentationEnv"]

SCORE_MARGIN = 0.2
"""How much better an earlier mask's own score must be to be preferred. A segmenter's score is a rough guide: on mini's
train split (expert clicks, litemedsam) always taking the highest one loses 0.06 IoU against the last mask, and no
margin below 0.2 stops losing."""

EndReason = Literal["terminate", "max_steps", "repeated_actions", "max_seconds", "max_tokens", "error", "stopped"]


class SegmentationEnv:
    """One run at a time: :meth:`reset` with a case, then :meth:`step` until :attr:`done`.

    Parameters
    ----------
    segmenter
        The segmenter to steer.
    config
        Budgets and switches.
    dialect
        The grammar of the replies. Actions that the segmenter cannot serve are taken out of it.
    policy
        Who will write the replies, for the record; None for a person or a test.
    cache
        Embeddings shared with other environments; None encodes at every reset.

    Raises
    ------
    InputError
        If the segmenter serves neither clicks nor boxes of the dialect, or the run is to go without thoughts and the
        policy cannot (see :class:`~ibisagent.policies.protocol.Policy`).
    """

    def __init__(
        self,
        segmenter: Segmenter,
        config: RolloutConfig | None = None,
        *,
        dialect: Dialect = DIALECTS["plain"],
        policy: Policy | None = None,
        cache: EmbeddingCache | None = None,
    ) -> None:
        self.segmenter = segmenter
        self.config = config if config is not None else RolloutConfig()
        kinds = dialect.kinds & supported_kinds(segmenter.capabilities)
        if not kinds & {"click", "box"}:
            name = policy.name if policy is not None else dialect.name
            raise InputError(f"the policy '{name}' and the segmenter '{segmenter.name}' share neither clicks nor boxes")
        if policy is not None and not self.config.thoughts and not getattr(policy, "can_skip_thoughts", False):
            raise InputError(f"the policy '{policy.name}' cannot be kept from thinking: nobody can begin its replies")
        self.dialect = dialect.restrict(kinds)
        prompt = getattr(policy, "system_prompt", None)
        self.system_prompt: str = prompt if isinstance(prompt, str) else default_system_prompt(self.dialect)
        self._policy = policy
        self._cache = cache

    # -- state -------------------------------------------------------------------------------

    @property
    def done(self) -> bool:
        """Whether the run has ended."""
        return self.episode.outcome is not None

    @property
    def last_call(self) -> bool:
        """Whether all steps are taken and only a Terminate is still carried out."""
        return not self.done and self.episode.num_steps >= self.config.max_steps

    @property
    def view(self) -> View:
        """What the policy may look at now."""
        return View(self.case, self.episode, self._mask)

    @property
    def _mask(self) -> NDArray[np.bool_] | None:
        return self._session.mask if self._session is not None else self.case.initial_mask

    # -- the loop ----------------------------------------------------------------------------

    def reset(self, case: Case) -> View:
        """Begin a run. If the image cannot be encoded, the run is :attr:`done` at once, with an error."""
        self._start = time.perf_counter()
        self.case = case
        self.episode = self._new_episode(case)
        self._session: Session | None = None
        # For every entry of the session's stack: the steps whose predictions still stand there.
        self._standing: list[tuple[int, ...]] = [()]
        self._repeats = 0
        self._last_key: object = None
        try:
            embedding = self._cache.get(case.image) if self._cache is not None else None
            self._session = Session(self.segmenter, case.image, case.initial_mask, embedding)
        except ToolError as error:
            self.fail(error)
        return self.view

    def step(self, reply: Reply | Turn | str, policy_seconds: float = 0.0) -> View:
        """Take one reply and carry it out.

        Parameters
        ----------
        reply
            A policy's reply, its raw text, or a turn (written in the dialect first).
        policy_seconds
            What it took to write, for the record.

        Returns
        -------
        View
            The state after it; look at :attr:`done`.

        Raises
        ------
        RuntimeError
            If the run has ended.
        ActionError
            If a :class:`Turn` is given that the dialect cannot say.
        """
        if self.done or self._session is None:
            raise RuntimeError("the run has ended; call reset")
        if isinstance(reply, Turn):
            reply = self.dialect.format(reply)
        if isinstance(reply, str):
            reply = Reply(reply)
        text = _utf8(reply.text)
        messages = reply.messages or messages_for_record(
            new_messages(
                self.view,
                self.system_prompt,
                self.config.history,
                thoughts=self.config.thoughts,
                overlay=self.config.overlay,
            )
        )
        last_call = self.last_call
        step = Step(
            index=len(self.episode.steps),
            messages=messages,
            raw_text=text,
            seconds=Seconds(policy=policy_seconds),
            num_prompt_tokens=reply.num_prompt_tokens,
            num_tokens=reply.num_tokens,
        )
        before, started = self._mask, time.perf_counter()
        try:
            turn = self.dialect.parse(reply.text)
            step.thought, step.action = turn.thought, turn.action
            if last_call and not isinstance(turn.action, TerminateAction):
                raise ActionError("out_of_steps", "all steps are taken, only Terminate is possible")
            self._locate(step, turn.action)
            self._carry_out(step, turn.action)
        except ActionError as error:
            if last_call:
                self.episode.unused_reply = text
                self._end_early("max_steps")
                return self.view
            step.invalid = Invalid(code=error.code, reason=error.reason)
        except ToolError as error:
            step.seconds.segmenter = time.perf_counter() - started
            self.episode.steps.append(step)
            self.fail(error)
            return self.view
        step.seconds.segmenter = time.perf_counter() - started
        after = self._mask
        step.mask = encode_mask(after) if after is not None else None
        if step.invalid is None and not isinstance(step.action, TerminateAction):
            step.changed_pixels = _num_changed(before, after)
        self.episode.steps.append(step)
        if step.invalid is None and isinstance(step.action, TerminateAction):
            self._terminate(step.action)
        else:
            self._check_budgets(step)
        return self.view

    def fail(self, error: Exception) -> None:
        """End the run because the segmenter or the policy failed.

        A policy that fails when it is only asked whether it wants to stop has used up its steps: that is
        the outcome then, and the failure is noted.
        """
        if self.last_call and not isinstance(error, ToolError):
            self.episode.unused_reply = _utf8(f"(none: {error})")
            self._end_early("max_steps")
            return
        self.episode.error = _utf8(f"{type(error).__name__}: {error}")
        self.episode.best_mask_rule = "no mask: the run failed"
        self._finish(Outcome.ERROR, "error")

    def foresee(self, text: str) -> tuple[Any, Prompt] | None:
        """What :meth:`step` would ask the segmenter for a reply: embedding and prompt; None if nothing.

        With it the replies of many runs can be put to a segmenter at once, before each run steps.
        """
        if self.done or self._session is None or self.last_call:
            return None
        width, height = self.case.image.width, self.case.image.height
        try:
            action = self.dialect.parse(text).action
            if isinstance(action, ClickAction):
                return self._session.foresee([click.to_pixel(width, height) for click in action.clicks])
            if isinstance(action, BoxAction):
                return self._session.foresee(box=action.to_pixels(width, height))
        except ActionError:
            pass
        return None

    def exhaust(self) -> None:
        """End the run because the model's context is full; the best mask is kept."""
        if not self.done:
            self._end_early("max_tokens")

    def stop(self) -> None:
        """End the run because a person wants it; the best mask is kept."""
        if not self.done:
            self._end_early("stopped")

    # -- carrying out ------------------------------------------------------------------------

    def _locate(self, step: Step, action: Action) -> None:
        width, height = self.case.image.width, self.case.image.height
        if isinstance(action, ClickAction):
            pixels = [click.to_pixel(width, height) for click in action.clicks]
            step.pixels_xy = [(p.x, p.y) for p in pixels]
        elif isinstance(action, BoxAction):
            box = action.to_pixels(width, height)
            step.pixels_xy = [(box.x0, box.y0), (box.x1, box.y1)]
        world = [self.case.image.geometry.world_mm(x, y) for x, y in step.pixels_xy]
        step.world_mm = [point for point in world if point is not None] or None

    def _carry_out(self, step: Step, action: Action) -> None:
        session = self._session
        assert session is not None
        width, height = self.case.image.width, self.case.image.height
        if isinstance(action, ClickAction):
            self._predicted(step, session.add_clicks([click.to_pixel(width, height) for click in action.clicks]))
        elif isinstance(action, BoxAction):
            self._predicted(step, session.set_box(action.to_pixels(width, height)))
        elif isinstance(action, UndoAction):
            session.undo()
            self._standing.pop()
        elif isinstance(action, TerminateAction):
            mask = session.mask
            if action.verdict == "found" and (mask is None or not mask.any()):
                what = "there is no mask" if mask is None else "the mask is empty"
                raise ActionError("nothing_found", f"{what}, so the target cannot be found; segment it or say Absent")
        else:
            session.discard()
            self._standing.append(())

    def _predicted(self, step: Step, prediction: Prediction) -> None:
        step.segmenter_score = float(prediction.score) if prediction.score is not None else None
        self._standing.append((*self._standing[-1], step.index))

    # -- ending ------------------------------------------------------------------------------

    def _check_budgets(self, step: Step) -> None:
        if step.invalid is None and isinstance(step.action, UndoAction):
            key: object = None  # every undo takes back something else
        else:
            key = step.action if step.action is not None else step.raw_text
        self._repeats = self._repeats + 1 if key is not None and key == self._last_key else 1
        self._last_key = key
        limit = self.config.max_seconds
        if self._repeats >= self.config.max_repeated_actions:
            self._end_early("repeated_actions")
        elif limit is not None and time.perf_counter() - self._start >= limit:
            self._end_early("max_seconds")

    def _terminate(self, action: TerminateAction) -> None:
        self.episode.answer = action.answer
        if action.verdict == "absent":
            self._keep(None, "all zero: the target was said to be absent")
            self._finish(Outcome.ABSENT, "terminate")
            return
        self._keep(self._mask, "the mask at Terminate" if self._mask is not None else "all zero: there was no mask")
        self._finish(Outcome.DONE if action.verdict == "found" else Outcome.UNCERTAIN, "terminate")

    def _end_early(self, reason: EndReason) -> None:
        """Keep the best mask, as the module's docstring states it, and end."""
        steps = self.episode.steps
        scores = {i: score for i in self._standing[-1] if (score := steps[i].segmenter_score) is not None}
        best = max(scores, key=lambda i: (scores[i], i)) if scores else None
        last = scores.get(self._standing[-1][-1]) if scores else None
        if best is not None and last is not None and scores[best] - last > SCORE_MARGIN:
            self.episode.final_mask, self.episode.final_step = steps[best].mask, best
            self.episode.best_mask_rule = f"an earlier mask, scored more than {SCORE_MARGIN} above the last one"
        else:
            mask = self._mask
            self._keep(mask, "the last mask" if mask is not None else "all zero: there was no mask")
        self._finish(Outcome.STOPPED if reason == "stopped" else Outcome.OUT_OF_STEPS, reason)

    def _keep(self, mask: NDArray[np.bool_] | None, rule: str) -> None:
        """Make the current mask, or zeros for None, the final one."""
        self.episode.best_mask_rule = rule
        if mask is None:
            mask = np.zeros((self.case.image.height, self.case.image.width), bool)
        elif self._standing[-1]:
            self.episode.final_step = self._standing[-1][-1]
        self.episode.final_mask = encode_mask(mask)

    def _finish(self, outcome: Outcome, reason: EndReason) -> None:
        self.episode.outcome = outcome
        self.episode.end_reason = reason
        self.episode.seconds_total = time.perf_counter() - self._start

    # -- the record --------------------------------------------------------------------------

    def _new_episode(self, case: Case) -> Episode:
        policy, config = self._policy, self.config
        return Episode(
            ibisagent_version=__version__,
            case_id=case.case_id,
            target=case.target,
            group=case.group,
            instruction=case.instruction,
            image=_image_record(case.image),
            initial_mask=encode_mask(case.initial_mask) if case.initial_mask is not None else None,
            policy=PolicyRecord(
                name=policy.name if policy is not None else "",
                weights_sha256=policy.weights_sha256 if policy is not None else None,
                dialect=self.dialect.name,
                action_kinds=sorted(self.dialect.kinds),
                system_prompt_sha256=text_hash(self.system_prompt),
            ),
            segmenter=SegmenterRecord(name=self.segmenter.name, weights_sha256=self.segmenter.weights_sha256),
            seed=config.seed,
            max_steps=config.max_steps,
            budget=Budget(max_repeated_actions=config.max_repeated_actions, max_seconds=config.max_seconds),
            history=config.history,
            thoughts=config.thoughts,
            overlay=config.overlay,
        )


def _utf8(text: str) -> str:
    """`text` as a record can hold it: models, servers and file names may bring half of a surrogate pair."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _image_record(image: Image) -> ImageRecord:
    window = image.window
    return ImageRecord(
        sha256=image.sha256,
        source=_utf8(image.source.replace("\\", "/").rstrip("/").rpartition("/")[2]),
        width=image.width,
        height=image.height,
        modality=image.modality,
        window=WindowRecord.of(window) if window is not None else None,
        geometry=image.geometry.to_json(),
    )


def _num_changed(before: NDArray[np.bool_] | None, after: NDArray[np.bool_] | None) -> int:
    if before is None or after is None:
        only = after if before is None else before
        return int(np.count_nonzero(only)) if only is not None else 0
    return int(np.count_nonzero(before != after))
