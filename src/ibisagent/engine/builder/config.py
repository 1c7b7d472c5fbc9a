"""Settings of a build, and the presets that name some of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from ibisagent.actions import DIALECTS
from ibisagent.engine.expert import EXPERTS, ExpertConfig
from ibisagent.engine.language.template_writer import check_template
from ibisagent.engine.reasoning.teacher import make_teacher
from ibisagent.engine.scenarios import Filters, Scenario
from ibisagent.errors import InputError
from ibisagent.hashing import text_hash
from ibisagent.io.settings import read_yaml
from ibisagent.registry import SEGMENTERS, parse_spec

__all__ = ["PRESETS", "SynthesisConfig", "load_config"]

_SFT: dict[Scenario, float] = {
    "plain": 1.0,
    "self_correction": 0.3,
    "mismatched_mask": 0.1,
    "corrupted_mask": 0.2,
    "right_stop": 0.1,
    "absent": 0.2,
    "deceptive": 0.15,
}
_PROMPTS: dict[Scenario, float] = {
    "plain": 1.0,
    "mismatched_mask": 0.1,
    "corrupted_mask": 0.2,
    "right_stop": 0.1,
    "absent": 0.25,
    "deceptive": 0.1,
}


_SAYS_WHAT = ("attempts", "fallback", "max_pixels", "reply_tokens", "temperature")
"""Options of a chat teacher that its words depend on; addresses, budgets, prices and patience are not among them."""


class SynthesisConfig(BaseModel):
    """Everything that decides what a corpus holds; where it runs is no part of it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sources: tuple[str, ...] = Field(min_length=1)
    """Data sets, as ``KIND:PATH?option=value`` (:mod:`ibisagent.engine.sources.registry`)."""
    seed: int = Field(default=0, ge=0)
    """Seed of every draw."""
    splits: tuple[str, ...] | None = None
    """Only samples of these splits; None takes all."""
    sft_splits: tuple[str, ...] = ("train",)
    """Splits that trajectories are made of."""
    rl_splits: tuple[str, ...] = ("train",)
    """Splits that prompts for reinforcement learning are made of."""
    test_splits: tuple[str, ...] = ("val", "test")
    """Splits that test cases are made of, with held-out instruction templates."""
    segmenter: str = "litemedsam"
    """Who draws the masks."""
    expert: ExpertConfig = EXPERTS["ibis"]
    """How the simulated expert acts."""
    filters: Filters = Filters(uncertain_share=0.25, show_plateau=2)
    """Which walks are kept."""
    proportions: dict[Scenario, float] = Field(default_factory=lambda: dict(_SFT))
    """Chance that a target gets a trajectory of each scenario."""
    prompts: dict[Scenario, float] = Field(default_factory=lambda: dict(_PROMPTS))
    """Likewise for prompts and test cases."""
    teacher: str = "template"
    """Who writes the thoughts: template, terse or chat:MODEL."""
    teacher_options: dict[str, str | int | float] = Field(default_factory=dict)
    """Options of a chat teacher (``docs/teachers.md``); its answers are kept in ``OUT/teacher-cache`` by default."""
    attempts: int = Field(default=4, ge=1)
    """Texts that may be written for one thought before its trajectory is dropped."""
    dialect: Literal["plain", "json", "ibis-paper"] = "plain"
    """Grammar of the replies."""
    system_prompt: str | None = None
    """System prompt; None takes the dialect's own."""
    implicit_share: float = Field(default=0.15, ge=0.0, le=1.0)
    """Share of starting instructions that describe the target without naming it, where the ontology can."""
    templates: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """More instruction templates by category, for what is trained on; a chat model can write some
    (:func:`ibisagent.engine.language.template_writer.write_templates`)."""
    own_share: float = Field(default=0.3, ge=0.0, le=1.0)
    """Share of starting instructions that are the data set's own sentences, where it has some."""
    min_pixels: int = Field(default=30, ge=1)
    """Targets with fewer pixels are left out, with the reason."""
    max_share: float = Field(default=0.95, gt=0.0, le=1.0)
    """Targets that fill more of the image are left out, with the reason."""
    max_targets: int | None = Field(default=None, ge=1)
    """Most targets of one image, drawn by seed; None takes all."""
    shard_images: int = Field(default=16, ge=1)
    """Images of a shard."""
    on_fault: Literal["skip", "fail"] = "skip"
    """What an item that cannot be used does: ``skip`` leaves it out and reports it, ``fail`` ends the build at once."""
    allow_groups: tuple[str, ...] = ()
    """Groups that may be in several splits: ``SOURCE/GROUP``, or ``SOURCE`` for all of a data set's."""
    audit: Literal["fail", "report"] = "fail"
    """What a leak between splits does: end the build with an error, or only stand in the report."""

    @field_validator("expert", mode="before")
    @classmethod
    def _named_expert(cls, value: Any) -> Any:
        if isinstance(value, str):
            if value not in EXPERTS:
                raise ValueError(f"there is no expert '{value}'; there are {', '.join(EXPERTS)}")
            return EXPERTS[value]
        return value

    @field_validator("templates")
    @classmethod
    def _usable(cls, value: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
        for category, templates in value.items():
            for template in templates:
                problem = check_template(template, category)
                if problem is not None:
                    raise ValueError(f"'{template}' ({category}): {problem}")
        return value

    @field_validator("proportions", "prompts")
    @classmethod
    def _chances(cls, value: dict[Scenario, float]) -> dict[Scenario, float]:
        for name, chance in value.items():
            if not 0.0 <= chance <= 1.0:
                raise ValueError(f"the chance of '{name}' must lie in [0, 1], not {chance}")
        return value

    @property
    def expert_name(self) -> str:
        """Name of the expert's preset, or ``custom``."""
        return next((name for name, preset in EXPERTS.items() if preset == self.expert), "custom")

    @property
    def content(self) -> dict[str, Any]:
        """The settings that decide what is in a corpus, without those that only say when to stop or whom to ask."""
        fields = self.model_dump(mode="json")
        for name in ("audit", "allow_groups", "on_fault"):
            del fields[name]
        options = fields["teacher_options"]
        fields["teacher_options"] = {name: options[name] for name in sorted(options) if name in _SAYS_WHAT}
        return fields

    @property
    def sha256(self) -> str:
        """Hash of :attr:`content`; equal settings, equal corpus."""
        return text_hash(json.dumps(self.content, sort_keys=True))

    def check(self) -> None:
        """Refuse settings that contradict each other or name what there is not.

        Raises
        ------
        InputError
            If the dialect cannot say what a scenario needs, or there is no such segmenter or teacher.
        """
        both = {*self.sft_splits, *self.rl_splits} & {*self.test_splits}
        if both:
            raise InputError(f"the split '{min(both)}' cannot be both trained on and tested on")
        segmenter = parse_spec(self.segmenter)[0]
        if segmenter not in SEGMENTERS:
            raise InputError(f"there is no segmenter '{segmenter}'; there are {', '.join(SEGMENTERS)}")
        make_teacher(self.teacher, **self.teacher_options)
        kinds = DIALECTS[self.dialect].kinds
        needs = {"self_correction": "undo", "mismatched_mask": "discard", "corrupted_mask": "discard"}
        for name, kind in needs.items():
            if kind not in kinds and self.proportions.get(name, 0) > 0:  # type: ignore[call-overload]
                raise InputError(
                    f"the dialect '{self.dialect}' has no {kind}, which the scenario '{name}' needs; "
                    f"set its proportion to 0"
                )
        if self.expert.box_first and "box" not in kinds:
            raise InputError(f"the dialect '{self.dialect}' has no box, which this expert begins with")


PRESETS: dict[str, dict[str, Any]] = {
    "ibis": {},
    "paper": {"expert": "paper", "filters": {"max_fall": None, "uncertain_share": 0.0}},
    "component": {"expert": "component", "filters": {"max_fall": None, "uncertain_share": 0.0}},
    "jittered": {"expert": "jittered"},
    "human": {"expert": "human"},
    "box_first": {"expert": "box_first"},
    "plateau": {"expert": "plateau"},
}
"""Settings by name. ``paper`` clicks and filters as the paper does; ``ibis`` is the default."""


def load_config(
    sources: tuple[str, ...], preset: str = "ibis", path: str | Path | None = None, **settings: Any
) -> SynthesisConfig:
    """Settings from a preset, a YAML file and single values, the later ones winning.

    Parameters
    ----------
    sources
        Data sets of the command line; they come before those of the file.
    preset
        One of :data:`PRESETS`.
    path
        YAML file with fields of :class:`SynthesisConfig`.
    settings
        Single fields; None is "not given".

    Raises
    ------
    InputError
        If the file cannot be read, or a field or its value is not known.
    """
    if preset not in PRESETS:
        raise InputError(f"there is no preset '{preset}'; there are {', '.join(PRESETS)}")
    fields: dict[str, Any] = {**PRESETS[preset]}
    filters = {**SynthesisConfig.model_fields["filters"].default.model_dump(), **fields.pop("filters", {})}
    where = "settings"
    if path is not None:
        where = str(path)
        fields.update(read_yaml(path, "seed: 1"))
    fields["sources"] = (*sources, *fields.get("sources", ()))
    for given in (fields.pop("filters", None), settings.pop("filters", None)):
        filters.update(given or {})  # likewise
    fields["filters"] = filters
    options = {**fields.get("teacher_options", {}), **(settings.pop("teacher_options", None) or {})}
    fields.update({name: value for name, value in settings.items() if value is not None})
    if options:
        fields["teacher_options"] = options
    if not fields["sources"]:
        raise InputError("no data set is given; write one, for example mini:data/mini/cases.jsonl, or --num-phantoms")
    for name, default in (("proportions", _SFT), ("prompts", _PROMPTS)):
        given = fields.get(name)
        if isinstance(given, dict):
            fields[name] = {**default, **given}  # what a file does not name keeps its share
    try:
        config = SynthesisConfig.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{where}: {place}: {first['msg']}") from None
    config.check()
    return config
