"""Settings of the gym: what is shown, how large the model is, how long each part trains."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from ibisagent.hashing import text_hash
from ibisagent.train.config import Settings

__all__ = ["GymConfig"]

_DATA = (
    "kinds", "cases", "segmenter", "image_tokens_side", "train_images", "test_images", "min_pixels", "data_seed",
    "max_steps",
)  # fmt: skip
_BASE = (
    *_DATA, "vocabulary", "hidden_size", "num_layers", "vision_widths", "key_size", "base_steps",
    "base_learning_rate", "batch",
)  # fmt: skip
_SFT = (*_BASE, "sft_steps", "sft_learning_rate")
_RL = (
    *_SFT, "rl_updates", "rl_learning_rate", "rl_temperature", "rl_beta", "rl_prompts", "group_size", "max_new_tokens",
    "rl_places", "rl_place_weight",
)  # fmt: skip
_DECIDES = {"corpora": _DATA, "base": _BASE, "sft": _SFT, "reflection": _SFT, "rl": _RL}
"""Settings that decide what a part makes."""
_ADDED = ("cases", "segmenter", "rl_places", "rl_place_weight")
"""Settings that came later: at their defaults they are no part of what names a finished cell."""


class GymConfig(Settings):
    """Everything that decides what a cell measures, and where it works."""

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "gym": {},
        "toy": {
            "kinds": ("dermoscopy", "xray"),
            "image_tokens_side": 2,
            "train_images": 6,
            "test_images": 8,
            "min_pixels": 15,
            "num_present": 6,
            "num_absent": 2,
            "num_given": 1,
            "vocabulary": 420,
            "hidden_size": 32,
            "num_layers": 1,
            "vision_widths": (8, 8, 16, 16, 16),
            "key_size": 16,
            "base_steps": 2,
            "sft_steps": 2,
            "rl_updates": 1,
            "batch": 4,
            "rl_prompts": 2,
            "group_size": 2,
            "max_steps": 2,
        },
        "mini": {
            "work": Path("runs/gym-mini"),
            "results": Path("docs/results/ablation-mini"),
            "cases": Path("data/mini/cases.jsonl"),
            "segmenter": "litemedsam",
            "min_pixels": 30,
            "num_present": 92,
            "num_absent": 66,
            "num_given": 36,
            # A click of litemedsam costs far more than one of the rules: half of the cases, and fewer updates.
            "rl_prompts": 6,
            "rl_updates": 24,
        },
        "places": {
            "results": Path("docs/results/ablation-places"),
            "rl_places": 8,
            "rl_updates": 80,  # with 32 nothing shows; chosen on other phantoms than the exam's (docs/course.md)
        },
    }

    work: Path = Path("runs/gym")
    """Folder of what cells share (corpus, base, SFT) and of their runs."""
    results: Path = Path("docs/results/ablation")
    """Folder of the cells' JSON files."""

    kinds: tuple[str, ...] = ("xray", "dermoscopy", "histology")
    """Kinds of phantoms."""
    cases: Path | None = None
    """A case list to learn from instead of phantoms: its split train is the corpus, its split val the exam."""
    segmenter: str = "rules"
    """The tool. ``rules`` is region growing: it follows visible borders, knows nothing, and answers at once."""
    image_tokens_side: int = Field(default=4, ge=1)
    """Tokens a side of an image; it has 32 times as many pixels a side, and 8 times as many cells for clicks."""
    train_images: int = Field(default=600, ge=1)
    """Phantoms of the corpus."""
    test_images: int = Field(default=300, ge=1)
    """Phantoms of the held-out prompts."""
    min_pixels: int = Field(default=60, ge=1)
    """Targets with fewer pixels are left out."""
    num_present: int = Field(default=240, ge=1)
    """Held-out prompts whose target is there, without a given mask."""
    num_absent: int = Field(default=200, ge=0)
    """Held-out prompts whose target is not there."""
    num_given: int = Field(default=60, ge=0)
    """Held-out prompts with a wrong or damaged given mask."""
    data_seed: int = Field(default=0, ge=0)
    """Seed of corpus and prompts; the same for all cells."""

    vocabulary: int = Field(default=700, ge=300)
    """Entries of the plain vocabulary, phrases left out."""
    hidden_size: int = Field(default=96, ge=8)
    """Width of the language model."""
    num_layers: int = Field(default=3, ge=1)
    """Its layers."""
    vision_widths: tuple[int, ...] = (16, 32, 48, 64, 96)
    """Widths of the vision tower."""
    key_size: int = Field(default=48, ge=4)
    """Channels of the map that clicks are drawn from."""

    base_steps: int = Field(default=250, ge=0)
    """Steps of the base: random clicks."""
    base_learning_rate: float = Field(default=2e-3, gt=0)
    """Of the base."""
    sft_steps: int = Field(default=300, ge=1)
    """Steps of SFT."""
    sft_learning_rate: float = Field(default=1.5e-3, gt=0)
    """Of SFT."""
    batch: int = Field(default=16, ge=1)
    """Conversations of a step, of base and SFT."""
    rl_updates: int = Field(default=32, ge=1)
    """Updates of RL."""
    rl_learning_rate: float = Field(default=5e-5, gt=0)
    """Of RL; at 1.5e-4 and above, updates of this size undo what SFT has learnt faster than they add to it."""
    rl_temperature: float = Field(default=0.5, gt=0)
    """Of RL's sampling; the exam is greedy."""
    rl_beta: float = Field(default=0.05, ge=0)
    """Weight of RL's KL term. Without it refusals vanish: a group that refuses as one has no advantage to keep it."""
    rl_places: int = Field(default=0, ge=0)
    """Further places that are tried for every click of RL."""
    rl_place_weight: float = Field(default=1.0, ge=0)
    """What they count beside the rest of the loss."""
    rl_prompts: int = Field(default=12, ge=1)
    """Cases of an update."""
    group_size: int = Field(default=8, ge=2)
    """Siblings of a case."""
    max_steps: int = Field(default=8, ge=1)
    """Most actions of a run, of the expert's too."""
    max_new_tokens: int = Field(default=32, ge=8)
    """Most tokens of a reply."""

    @property
    def image_size(self) -> int:
        """Pixels a side."""
        return 32 * self.image_tokens_side

    @property
    def grid(self) -> int:
        """Cells a side."""
        return 8 * self.image_tokens_side

    @property
    def content(self) -> dict[str, Any]:
        """The settings that decide what a cell measures."""
        fields = self.model_dump(mode="json", include=set(GymConfig.model_fields))
        left_out = {"work", "results"} | {n for n in _ADDED if fields[n] == GymConfig.model_fields[n].default}
        return {name: value for name, value in fields.items() if name not in left_out}

    @property
    def sha256(self) -> str:
        """Hash of :attr:`content`."""
        return text_hash(json.dumps(self.content, sort_keys=True))

    @property
    def corpora(self) -> Path:
        """Where the corpora lie."""
        return self.work / f"corpora-{self._key('corpora')}"

    def run_folder(self, name: str, part: str, seed: int) -> Path:
        """Where a row's training of a seed lies: trainings of other settings share nothing.

        Parameters
        ----------
        name
            Of the row.
        part
            ``base``, ``sft``, ``reflection`` or ``rl``: which settings decide.
        seed
            Of the training.
        """
        return self.work / f"{name}-seed{seed}-{self._key(part)}"

    def _key(self, part: str) -> str:
        content = self.content
        return text_hash(
            json.dumps({name: content[name] for name in _DECIDES[part] if name in content}, sort_keys=True)
        )[:10]
