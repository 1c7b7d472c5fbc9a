"""``episode.html``: one self-contained page that steps through a run.

The page carries its image, style and script in itself and asks the network for nothing; its content
policy forbids it to. Texts of models and users are escaped where they stand in the page, and the data
that the script reads is JSON in which no tag can open or close. Without scripts the text is still there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ibisagent.rendering.figure import OUTCOME_WORDS
from ibisagent.rendering.guides import edge_letters, image_facts, pixel_aspect
from ibisagent.rendering.png import png_bytes, write_atomic
from ibisagent.rle import encode_mask
from ibisagent.web.chart import build_chart
from ibisagent.web.frames import Frame, build_frames
from ibisagent.web.parts import asset, content_policy, data_uri, script_json, template

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.episode import Episode, Rle
    from ibisagent.types import Image

__all__ = ["PageNotes", "PageScores", "render_episode_page", "write_episode_page"]

_MAX_EMBEDDED_SIDE = 2048


class PageScores(Protocol):
    """What the page shows of an episode's scores; :class:`ibisagent.scoring.Scores` is one."""

    @property
    def iou(self) -> float | None:
        """IoU of the final mask."""
        ...

    @property
    def dice(self) -> float | None:
        """Dice of the final mask."""
        ...

    @property
    def iou_by_step(self) -> Sequence[float] | None:
        """IoU after k steps, from k = 0."""
        ...


@dataclass(frozen=True, eq=False)
class PageNotes:
    """What a page shows beside the record, for the eyes of who trains.

    Attributes
    ----------
    groups
        Of (name, value), each with its heading; they stand before the record.
    by_step
        (name, value) pairs to show with every step, and after the last one's with the result.
    reference
        ``bool`` (H, W) mask whose outline can be laid over the image.
    """

    groups: Sequence[tuple[str, Sequence[tuple[str, str]]]] = ()
    by_step: Sequence[Sequence[tuple[str, str]]] = ()
    reference: NDArray[np.bool_] | None = None


def render_episode_page(
    episode: Episode, image: Image, scores: PageScores | None = None, notes: PageNotes | None = None
) -> str:
    """Make the page.

    Parameters
    ----------
    episode
        The run; it may still go on.
    image
        The image it ran on. If its hash is not the recorded one, the page says so.
    scores
        Scores against a reference, shown with a curve; None shows the segmenter's own score only.
    notes
        Further facts, and the reference itself.

    Returns
    -------
    str
        HTML that can be encoded in UTF-8.

    Raises
    ------
    ValueError
        If the image is not of the episode's size.
    """
    if (image.width, image.height) != (episode.image.width, episode.image.height):
        raise ValueError(
            f"the image is {image.width} x {image.height}, the episode's {episode.image.width} x {episode.image.height}"
        )
    frames = build_frames(episode, image, scores.iou_by_step if scores is not None else None)
    if scores is not None and frames[-1].kind == "result":
        frames[-1].iou = scores.iou
    notes = notes or PageNotes()
    for frame, facts in zip(frames[1:], notes.by_step, strict=False):
        frame.facts += facts
    style, script = asset("theme.css", "episode.css"), asset("drawing.js", "episode.js")
    page = template("episode.html.jinja").render(
        policy=content_policy(style, script),
        style=style,
        script=script,
        data=script_json(_page_data(frames, image, notes.reference)),
        has_reference=notes.reference is not None,
        base_image=_data_uri(image),
        episode=episode,
        frames=frames,
        chart=build_chart(frames),
        final_iou=scores.iou if scores is not None else None,
        final_dice=scores.dice if scores is not None else None,
        outcome=str(episode.outcome) if episode.outcome is not None else "running",
        outcome_words=OUTCOME_WORDS.get(str(episode.outcome), "Running"),
        letters=edge_letters(image.geometry),
        facts=image_facts(image),
        same_image=image.sha256 == episode.image.sha256,
        metadata=[*notes.groups, *_metadata(episode, image)],
    )
    # A text from a command line may hold half of a surrogate pair, which UTF-8 cannot write.
    return page.encode("utf-8", "replace").decode("utf-8")


def write_episode_page(
    episode: Episode,
    image: Image,
    path: str | Path,
    scores: PageScores | None = None,
    notes: PageNotes | None = None,
) -> None:
    """Write the page to a file, whole or not at all; see :func:`render_episode_page`.

    Raises
    ------
    ValueError
        If the image is not of the episode's size.
    OSError
        If the file cannot be written.
    """
    write_atomic(render_episode_page(episode, image, scores, notes).encode("utf-8"), path)


def _page_data(frames: list[Frame], image: Image, reference: NDArray[np.bool_] | None) -> dict[str, Any]:
    """What the script draws: sizes, the pixel's place in the world, masks once each, prompts by frame."""
    masks: list[str] = []

    def number(mask: Rle | None) -> int | None:
        """A mask's number in the page's list of masks, each of which stands there once."""
        if mask is None:
            return None
        if mask.counts not in masks:
            masks.append(mask.counts)
        return masks.index(mask.counts)

    stops = []
    for frame in frames:
        box = frame.prompts.box
        stops.append(
            {
                "label": frame.label,
                "heading": frame.heading,
                "mask": number(frame.mask),
                "given": frame.mask_is_given,
                "clicks": [list(click) for click in frame.prompts.clicks],
                "box": [box.x0, box.y0, box.x1, box.y1] if box is not None else None,
            }
        )
    outlined = number(encode_mask(reference)) if reference is not None else None
    geometry, world = image.geometry, None
    if geometry.affine is not None:
        affine = np.asarray(geometry.affine) @ np.vstack([np.asarray(geometry.index_from_pixel), [0.0, 0.0, 1.0]])
        world = [[round(float(v), 6) for v in row] for row in affine[:3]]
    return {
        "width": image.width,
        "height": image.height,
        "aspect": pixel_aspect(geometry),
        "mmPerPixel": geometry.spacing_mm[1] if geometry.spacing_mm is not None else None,
        "world": world,
        "masks": masks,
        "reference": outlined,
        "frames": stops,
    }


def _metadata(episode: Episode, image: Image) -> list[tuple[str, list[tuple[str, str]]]]:
    """Groups of (name, value) for the panel of the record; what is not known is left out."""
    record, budget = episode.image, episode.budget
    window = record.window
    groups: list[tuple[str, list[tuple[str, object]]]] = [
        (
            "Case",
            [
                ("case", episode.case_id),
                ("target", episode.target),
                ("group", episode.group),
                ("outcome", episode.outcome),
                ("ended by", (episode.end_reason or "").replace("_", " ")),
                ("final mask", episode.best_mask_rule),
                ("unused reply", episode.unused_reply),
            ],
        ),
        (
            "Image",
            [
                ("source", record.source),
                ("modality", record.modality),
                ("size", f"{record.width} × {record.height} px"),
                ("plane", image.geometry.plane),
                ("slice", image.geometry.slice_index),
                ("spacing", _spacing(image)),
                ("window", str(window) if window is not None else None),
                ("sha256", record.sha256),
            ],
        ),
        (
            "Policy",
            [
                ("name", episode.policy.name),
                ("dialect", episode.policy.dialect),
                ("actions", ", ".join(episode.policy.action_kinds or ())),
                ("weights sha256", episode.policy.weights_sha256),
                ("system prompt sha256", episode.policy.system_prompt_sha256),
            ],
        ),
        (
            "Segmenter",
            [("name", episode.segmenter.name), ("weights sha256", episode.segmenter.weights_sha256)],
        ),
        (
            "Run",
            [
                ("seed", episode.seed),
                ("steps", f"{episode.num_steps} of at most {episode.max_steps}"),
                ("repeated actions", _limit(budget.max_repeated_actions)),
                ("seconds", _limit(budget.max_seconds)),
                ("history", "shown" if episode.history else "hidden"),
                ("time", f"{episode.seconds_total:.2f} s"),
                ("ibisagent", episode.ibisagent_version),
                ("schema", episode.schema_version),
            ],
        ),
    ]
    return [(name, [(k, str(v)) for k, v in rows if v is not None and v != ""]) for name, rows in groups]


def _limit(value: float | None) -> str | None:
    return None if value is None else f"at most {value:g}"


def _spacing(image: Image) -> str | None:
    spacing = image.geometry.spacing_mm
    return None if spacing is None else f"{spacing[0]:.4g} × {spacing[1]:.4g} mm (row × column)"


def _data_uri(image: Image) -> str:
    pixels = image.pixels
    longest = max(image.width, image.height)
    if longest > _MAX_EMBEDDED_SIDE:  # a page of a hundred megabytes opens nowhere
        import PIL.Image

        scale = _MAX_EMBEDDED_SIDE / longest
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        pixels = np.asarray(PIL.Image.fromarray(pixels).resize(size, PIL.Image.Resampling.LANCZOS))
    return data_uri(png_bytes(pixels), "image/png")
