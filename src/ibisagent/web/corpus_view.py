"""Trajectories of a corpus as the review page draws them: small pictures, masks on their grid, one frame a step.

A frame is what the agent saw when it acted: the mask *before* the action, with the action's own clicks. The mask that
an action led to is the next frame's.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.actions import Action
from ibisagent.actions.syntax import JsonSyntax, PlainSyntax
from ibisagent.engine.corpus.schema import NO_MASK
from ibisagent.errors import ActionError, InputError
from ibisagent.geometry import Geometry
from ibisagent.rendering.guides import pixel_aspect
from ibisagent.rle import Rle, decode_mask, encode_mask
from ibisagent.web.parts import data_uri

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["MAX_SIDE", "CorpusView", "build_view", "read_action"]

MAX_SIDE = 384
"""Long side of the pictures in the page, in pixels; larger images are made smaller."""

_WEBP_QUALITY = 88  # looks like the original at this size; 200 pictures stay below 10 MB


@dataclass
class CorpusView:
    """Trajectories ready for the page.

    Parameters
    ----------
    name
        Of the corpus, for the reader.
    total
        How many trajectories fit the filters; `rows` may be a sample of them.
    images, rows
        As the page's script takes them.
    identity
        Tells this build of the corpus from others, so that a browser does not mix up their decisions.
    """

    name: str
    total: int = 0
    images: list[dict[str, Any]] = field(default_factory=list)
    rows: list[dict[str, Any]] = field(default_factory=list)
    identity: str = ""

    @property
    def ids(self) -> frozenset[str]:
        """Trajectories in the page."""
        return frozenset(row["id"] for row in self.rows)


def build_view(
    corpus: Corpus,
    name: str,
    *,
    split: str | None = None,
    scenario: str | None = None,
    target: str | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> CorpusView:
    """Choose trajectories and make their pictures.

    Parameters
    ----------
    corpus
        To read from.
    name
        What the page calls it.
    split, scenario, target
        Only trajectories that have exactly these.
    sample
        At most so many, drawn evenly with `seed` and shown in the corpus's order; None shows all.

    Raises
    ------
    InputError
        If nothing fits, or a row, an image or a mask is damaged.
    """
    keep = [(key, value) for key, value in (("scenario", scenario), ("target", target)) if value is not None]
    places = [
        number
        for number, row in enumerate(corpus.rows("sft", split, columns=["trajectory_id", "scenario", "target"]))
        if all(row[key] == value for key, value in keep)
    ]
    total = len(places)
    if sample is not None and sample < total:
        drawn = np.random.default_rng(seed).choice(total, sample, replace=False)
        places = [places[number] for number in sorted(drawn.tolist())]
    chosen = _rows_at(corpus, split, places)
    if not chosen:
        wanted = [f"{key} {value!r}" for key, value in (("split", split), *keep) if value is not None]
        raise InputError(f"{name}: no trajectories" + (f" with {', '.join(wanted)}" if wanted else ""))
    pictures = _Pictures(corpus)
    builds = sorted({str((row.get("provenance") or {}).get("config_sha256")) for row in chosen})
    identity = hashlib.sha256("\n".join([name, *builds]).encode("utf-8", "replace")).hexdigest()[:16]
    rows = [_trajectory(row, pictures) for row in chosen]
    return CorpusView(name, total, pictures.images, rows, identity)


def read_action(text: str | None) -> Action | None:
    """The action that a step's text says, in any of the forms that a corpus may hold; None if it says none."""
    from pydantic import TypeAdapter, ValidationError

    body = (text or "").strip().removeprefix("<action>").split("</action>")[0].strip()
    ends = body.strip('"') == "Terminate"
    for parse in (PlainSyntax.parse, JsonSyntax.parse):
        try:
            return parse(body, ends)
        except ActionError:
            continue
    try:
        adapter: TypeAdapter[Action] = TypeAdapter(Action)
        return adapter.validate_json(body)
    except ValidationError:
        return None


def _rows_at(corpus: Corpus, split: str | None, places: list[int]) -> list[dict[str, Any]]:
    """Rows by their number, without the messages, which are most of a row and of no use here."""
    from ibisagent.engine.corpus.schema import schema

    columns = [name for name in schema("sft").names if name not in ("messages", "loss_spans")]
    wanted, last = set(places), max(places, default=-1)
    rows = islice(corpus.rows("sft", split, columns=columns), last + 1)
    return [row for number, row in enumerate(rows) if number in wanted]


class _Pictures:
    """The page's images, each once."""

    def __init__(self, corpus: Corpus) -> None:
        self.images: list[dict[str, Any]] = []
        self._corpus = corpus
        self._numbers: dict[str, int] = {}
        self._sizes: list[tuple[int, int]] = []

    def add(self, image_id: str) -> int:
        if image_id not in self._numbers:
            pixels = self._corpus.image(image_id)
            spacing = self._corpus.image_row(image_id)["spacing_mm"]
            self._numbers[image_id] = len(self.images)
            self._sizes.append((pixels.shape[0], pixels.shape[1]))
            self.images.append(_picture(pixels, (spacing[0], spacing[1]) if spacing else None))
        return self._numbers[image_id]

    def mask_on(self, number: int) -> Callable[[Mapping[str, Any]], str]:
        """Turns a row's mask into runs on the grid of picture `number`."""
        size, image = self._sizes[number], self.images[number]
        width, height = image["width"], image["height"]

        def counts(rle: Mapping[str, Any]) -> str:
            mask = Rle(size=(rle["size"][0], rle["size"][1]), counts=rle["counts"])
            if mask.size != size:
                raise InputError(f"a mask is {mask.size[1]} x {mask.size[0]}, its image {size[1]} x {size[0]}")
            bits = decode_mask(mask)  # which also finds a damaged one before a browser does
            return mask.counts if size == (height, width) else encode_mask(_shrink(bits, width, height)).counts

        return counts


def _picture(pixels: NDArray[np.uint8], spacing: tuple[float, float] | None) -> dict[str, Any]:
    import PIL.Image

    picture = PIL.Image.fromarray(pixels)
    height, width = pixels.shape[:2]
    scale = min(1.0, MAX_SIDE / max(width, height))
    if scale < 1:
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        picture = picture.resize(size, PIL.Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=_WEBP_QUALITY, method=4)
    # Two roundings may give a small picture another shape than the image: what stands here is the image's.
    aspect = pixel_aspect(Geometry.plane_2d(spacing)) * (height / width) / (picture.height / picture.width)
    return {
        "width": picture.width,
        "height": picture.height,
        "aspect": round(aspect, 6),
        "facts": [f"{width} × {height} px"] + ([_spacing(spacing)] if spacing is not None else []),
        "src": data_uri(buffer.getvalue(), "image/webp"),
    }


def _spacing(spacing: tuple[float, float]) -> str:
    row, column = spacing
    return f"{column:.3g} mm/px" if abs(row - column) < 1e-3 * column else f"{column:.3g} × {row:.3g} mm/px"


def _shrink(mask: NDArray[np.bool_], width: int, height: int) -> NDArray[np.bool_]:
    """A mask on a coarser grid: pixels that it covers by half, or touches at all where nothing else would be left."""
    import PIL.Image

    picture = PIL.Image.fromarray(mask.astype(np.uint8) * 255)
    small = np.asarray(picture.resize((width, height), PIL.Image.Resampling.BOX))
    halves = small >= 128
    return halves if halves.any() else small > 0


def _trajectory(row: Mapping[str, Any], pictures: _Pictures) -> dict[str, Any]:
    name = row["trajectory_id"]
    try:
        image = pictures.add(row["image_id"])
        counts = pictures.mask_on(image)
        masks = [counts(mask) for mask in row["masks"]]
        reference = counts(row["target_mask"]) if row["target_mask"] is not None else None
    except (InputError, KeyError, ValueError) as error:
        raise InputError(f"trajectory {name}: {error}") from error
    if reference is None:
        number = NO_MASK
    elif reference in masks:
        number = masks.index(reference)
    else:
        number = len(masks)
        masks.append(reference)
    provenance = row.get("provenance") or {}
    return {
        "id": name,
        "image": image,
        "masks": masks,
        "reference": number,
        "given": row["initial_mask"],
        "frames": _frames(row),
        **{key: row.get(key) for key in ("instruction", "target", "scenario", "modality", "view", "split", "outcome")},
        "answer": row.get("answer") or "",
        "iou": _rounded(row.get("final_iou")),
        "dice": _rounded(row.get("final_dice")),
        "steps": row.get("num_steps"),
        "facts": [
            [key, str(value)]
            for key, value in (
                ("instruction", row.get("instruction_category")),
                ("expert", row.get("expert")),
                ("teacher", provenance.get("teacher")),
                ("segmenter", provenance.get("segmenter")),
                ("source", row.get("source")),
                ("sample", row.get("sample")),
                ("group", row.get("group")),
                ("licence", row.get("licence")),
            )
            if value not in (None, "")
        ],
    }


def _frames(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    frames: list[dict[str, Any]] = []
    before, kind = row["initial_mask"], "start"
    for step in row["steps"]:
        action = read_action(step["action"])
        kind = action.kind if action is not None else "unknown"
        marks, box = [], None
        if action is not None and action.kind == "click":
            marks = [[click.x, click.y, int(click.positive)] for click in action.clicks]
        elif action is not None and action.kind == "box":
            box = [action.x0, action.y0, action.x1, action.y1]
        frames.append(
            {
                "kind": kind,
                "intent": step.get("intent") or "",
                "mask": before,
                "marks": marks,
                "box": box,
                "action": _say(action) if action is not None else step["action"] or "",
                "thought": step.get("thought") or "",
                "learn": bool(step["learn"]),
                "changed": step.get("changed_pixels"),
                "score": _rounded(step.get("segmenter_score")),
                "iou": _rounded(step.get("iou")),
            }
        )
        before = step["mask"]
    if kind != "terminate":  # otherwise the last frame shows the final mask already
        frames.append(
            {"kind": "result", "intent": "", "mask": before, "marks": [], "box": None, "action": "", "thought": ""}
            | {"learn": True, "changed": None, "score": None, "iou": _rounded(row.get("final_iou"))}
        )
    return frames


def _say(action: Action) -> str:
    try:
        return PlainSyntax.format(action)
    except ActionError:  # several clicks at once: plain text has no words for them
        return JsonSyntax.format(action)


def _rounded(value: float | None) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), 4)
