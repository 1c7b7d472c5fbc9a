"""Episodes on the mini images, made by the real environment with a segmenter that answers from masks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import PIL.Image

from ibisagent.actions import Click, ClickAction, TerminateAction, Turn
from ibisagent.actions.model import BoxAction, DiscardAction, UndoAction
from ibisagent.clicks import next_click
from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.episode import Episode
from ibisagent.errors import ToolError
from ibisagent.geometry import Geometry
from ibisagent.segmenters.fake import FakeSegmenter
from ibisagent.types import Case, Image, PixelBox, Prediction, Window

MINI = Path(__file__).resolve().parents[1] / "data" / "mini"

HOSTILE = '</script><script>document.title="pwned"</script><img src=x onerror=alert(1)> "quoted" & \u2028 <!-- ü 肺'


def mini_image(name: str, *, spacing: float | None = None, modality: str | None = None) -> Image:
    pixels = np.asarray(PIL.Image.open(MINI / "images" / f"{name}.png").convert("RGB"))
    spacing_mm = None if spacing is None else (spacing, spacing)
    return Image(pixels, Geometry.plane_2d(spacing_mm), modality=modality, source=f"{name}.png")


def chest_image() -> Image:
    """Axial chest CT with the geometry it has in its volume: the patient's left on the image's right."""
    plain = mini_image("lung1_axial_024")
    s = 0.5703125
    affine = ((-s, 0, 0, 146.0), (0, -s, 0, 160.0), (0, 0, 3.0, -600.0), (0, 0, 0, 1))
    geometry = Geometry(
        spacing_mm=(s, s),
        index_from_pixel=((1, 0, 0), (0, 1, 0), (0, 0, 24)),
        affine=affine,
        volume_shape=(512, 512, 48),
        plane="axial",
        slice_index=24,
    )
    return Image(plain.pixels, geometry, "CT", Window(-1000, 400, "lung"), "lung1.nii.gz")


def mini_mask(name: str) -> np.ndarray:
    return np.asarray(PIL.Image.open(MINI / "masks" / f"{name}.png").convert("L")) > 127


def shifted(mask: np.ndarray, columns: int) -> np.ndarray:
    out = np.zeros_like(mask)
    if columns >= 0:
        out[:, columns:] = mask[:, : mask.shape[1] - columns]
    else:
        out[:, :columns] = mask[:, -columns:]
    return out


def refined(target: np.ndarray, count: int) -> list[Prediction]:
    """Masks that come closer to a target: eroded and shifted, less each time."""
    import cv2

    out = []
    for k in range(count):
        left = count - 1 - k
        size = 1 + 2 * round(left * max(1.0, np.sqrt(target.sum()) / 26))
        mask = cv2.erode(target.astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))) > 0
        mask = shifted(mask, left * 3)
        out.append(Prediction(mask=mask, score=round(0.93 - 0.13 * left, 3)))
    return out


def click_episode(image: Image, target: np.ndarray, instruction: str, name: str, clicks: int = 4) -> Episode:
    """A run that finds the target by expert clicks, with one reply that is no action."""
    env = SegmentationEnv(FakeSegmenter(refined(target, clicks)), RolloutConfig(max_steps=8))
    env.reset(Case(image=image, instruction=instruction, case_id=f"case__{name}", target=name, group="sample"))
    for k in range(clicks):
        mask = env.view.mask
        click = next_click(mask, target)
        assert click is not None
        thought = (
            f"I look for the {name}. It lies where I click; the mask will show whether the tool agrees."
            if k == 0
            else f"The mask {'misses a part of' if click.positive else 'leaves'} the {name}. I correct that place."
        )
        action = ClickAction(clicks=(Click.at_pixel(click, image.width, image.height),))
        env.step(Turn(thought=thought, action=action), policy_seconds=0.81 + 0.1 * k)
        if k == 1:
            env.step("<think>I click on it again.</think><action>Positive Point (1.2000, 0.5)</action>", 0.5)
    env.step(Turn(thought="The contour fits.", action=TerminateAction(verdict="found", answer=f"the {name}")), 0.4)
    return env.episode


def hostile_episode(image: Image, target: np.ndarray) -> Episode:
    """Every text that a stranger controls tries to break out of the page."""
    env = SegmentationEnv(FakeSegmenter(refined(target, 2)), RolloutConfig())
    env.reset(Case(image=image, instruction=HOSTILE, case_id=HOSTILE, target=HOSTILE, group=HOSTILE))
    click = next_click(None, target)
    assert click is not None
    env.step(Turn(thought=HOSTILE, action=ClickAction(clicks=(Click.at_pixel(click, image.width, image.height),))))
    env.step(HOSTILE)
    env.step(Turn(thought=HOSTILE, action=TerminateAction(verdict="uncertain", answer=HOSTILE)))
    return env.episode


def absent_episode(image: Image) -> Episode:
    env = SegmentationEnv(FakeSegmenter([]), RolloutConfig())
    env.reset(Case(image=image, instruction="Outline the left kidney.", case_id="absent", target="left kidney"))
    turn = Turn(
        thought="This is a chest at the level of the heart; there is no kidney here.",
        action=TerminateAction(verdict="absent", answer="there is no kidney in this slice"),
    )
    env.step(turn, policy_seconds=0.6)
    return env.episode


def failed_episode(image: Image, target: np.ndarray) -> Episode:
    first = refined(target, 3)[0]
    env = SegmentationEnv(FakeSegmenter([first, ToolError("out of memory while decoding")]), RolloutConfig())
    env.reset(Case(image=image, instruction="Segment the brain tumor.", case_id="failed", target="brain tumor"))
    for _ in range(2):
        click = next_click(env.view.mask, target)
        assert click is not None
        env.step(
            Turn(
                thought="A bright rim.", action=ClickAction(clicks=(Click.at_pixel(click, image.width, image.height),))
            )
        )
    return env.episode


def refine_episode(image: Image, target: np.ndarray) -> Episode:
    """A given mask, a box, a negative click, an undo, a discard; then the steps run out."""
    import cv2

    bad = shifted(cv2.dilate(target.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, -9)
    env = SegmentationEnv(FakeSegmenter(refined(target, 4)), RolloutConfig(max_steps=5))
    case = Case(image=image, instruction="Refine the given mask of the nucleus.", initial_mask=bad, case_id="refine")
    env.reset(case)
    rows, cols = np.nonzero(target)
    box = PixelBox(int(cols.min()), int(rows.min()), int(cols.max()), int(rows.max()))
    wrong = next_click(bad, target)
    assert wrong is not None
    click = ClickAction(clicks=(Click.at_pixel(wrong, image.width, image.height),))
    env.step(Turn(thought="The given mask lies too far left.", action=click))
    env.step(Turn(thought="That made it worse.", action=UndoAction()))
    env.step(Turn(thought="Better to start afresh.", action=DiscardAction()))
    env.step(Turn(thought="A box around it.", action=BoxAction.at_pixels(box, image.width, image.height)))
    click = next_click(env.view.mask, target)
    assert click is not None
    action = ClickAction(clicks=(Click.at_pixel(click, image.width, image.height),))
    env.step(Turn(thought="A piece is missing.", action=action))
    if not env.done:
        env.step("I am not sure.")
    return env.episode
