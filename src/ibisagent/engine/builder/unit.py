"""The unit of work: one image with all that is made of it. A pure function of the sample and the settings."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent import __version__
from ibisagent.actions import DIALECTS
from ibisagent.engine.builder.asking import Asker, absent_names, pick_name
from ibisagent.engine.expert import Expert
from ibisagent.engine.record import Reasoner, record_walk
from ibisagent.engine.rows import image_row, prompt_row, question_rows, sft_row
from ibisagent.engine.scenarios import Dropped, Scenario, Stage, false_place, make_walk, starting_mask
from ibisagent.engine.sources.sample import Fault
from ibisagent.engine.splits import split_of
from ibisagent.engine.walk import Subject
from ibisagent.environment import SegmentationEnv
from ibisagent.errors import InputError
from ibisagent.messages import default_system_prompt
from ibisagent.segmenters.memo import MemoSegmenter
from ibisagent.types import Case

if TYPE_CHECKING:
    from ibisagent.engine.builder.config import SynthesisConfig
    from ibisagent.engine.language.hints import Hint
    from ibisagent.engine.sources.sample import LabelledImage, Sample

__all__ = ["Tools", "Unit", "make_unit", "rng_for", "teacher_options"]


def rng_for(*parts: object) -> np.random.Generator:
    """A generator that depends on some values alone, on any machine."""
    digest = hashlib.sha256("\x1f".join(str(part) for part in parts).encode("utf-8", "surrogatepass")).digest()
    return np.random.default_rng(int.from_bytes(digest[:16], "big"))


def teacher_options(config: SynthesisConfig, folder: str | Path | None) -> dict[str, Any]:
    """Options of the settings' teacher; a chat teacher's answers are kept in ``FOLDER/teacher-cache`` by default."""
    options: dict[str, Any] = dict(config.teacher_options)
    if config.teacher.startswith("chat:") and folder is not None:
        options.setdefault("cache_dir", str(Path(folder) / "teacher-cache"))
    return options


class Tools:
    """What a process makes once and uses for every sample.

    Parameters
    ----------
    config
        Settings of the build.
    names_by_modality
        Structures that the data sets name, by modality: what may be called absent.
    folder
        Of the corpus: a chat teacher keeps its answers there, unless the settings say where.
    device
        Where the segmenter computes.

    Raises
    ------
    InputError
        If the segmenter or the teacher cannot be made.
    """

    def __init__(
        self,
        config: SynthesisConfig,
        names_by_modality: Mapping[str, tuple[str, ...]],
        folder: str | Path | None = None,
        device: str = "cpu",
    ) -> None:
        from ibisagent.engine.reasoning.teacher import make_teacher
        from ibisagent.registry import make_segmenter

        self.config, self.names_by_modality, self.device = config, names_by_modality, device
        self.segmenter = MemoSegmenter(make_segmenter(config.segmenter, device))
        self.expert = Expert(config.expert)
        teacher = make_teacher(config.teacher, **teacher_options(config, folder))
        self.reasoner = Reasoner(teacher, config.attempts)
        self.env = SegmentationEnv(self.segmenter, dialect=DIALECTS[config.dialect])
        self.system_prompt = config.system_prompt or default_system_prompt(self.env.dialect)
        self.provenance = {
            "ibisagent_version": __version__,
            "segmenter": config.segmenter,
            "segmenter_sha256": self.segmenter.weights_sha256,
            "teacher": teacher.name,
            "config_sha256": config.sha256,
            "seed": config.seed,
        }


@dataclass
class Unit:
    """What one sample gave.

    Parameters
    ----------
    sample
        ``source/key``.
    rows
        Rows by table.
    faults
        Items that could not be used, as dicts of :class:`~ibisagent.engine.sources.sample.Fault`.
    drops
        Trajectories that were not kept: sample, target, scenario, reason, value.
    reasoning
        Counts of the thoughts asked, written and rejected.
    record
        source, key, group, split, sha256 and perceptual hash, for the audit; None if the image could not be read.
    """

    sample: str
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    faults: list[dict[str, str]] = field(default_factory=list)
    drops: list[dict[str, Any]] = field(default_factory=list)
    reasoning: dict[str, int] = field(default_factory=dict)
    record: dict[str, Any] | None = None


def make_unit(sample: Sample, tools: Tools) -> Unit:
    """Read a sample and make its rows.

    Raises
    ------
    ToolError, TeacherError
        If the segmenter or the teacher fails: that is no fault of the sample, and ends the build.
    """
    unit = Unit(f"{sample.source}/{sample.key}")
    try:
        labelled = sample.reader()
    except InputError as error:
        unit.faults.append(dataclasses.asdict(Fault(sample.source, sample.key, "unreadable", str(error))))
        return unit
    unit.faults += [dataclasses.asdict(fault) for fault in labelled.faults]
    _Maker(sample, labelled, tools, unit).run()
    unit.reasoning = tools.reasoner.take_counts()
    return unit


class _Maker:
    """Makes the rows of one image."""

    def __init__(self, sample: Sample, labelled: LabelledImage, tools: Tools, unit: Unit) -> None:
        image = labelled.image
        if image.modality is None and sample.modality is not None:
            image = dataclasses.replace(image, modality=sample.modality)
        self.sample, self.image, self.tools, self.unit = sample, image, tools, unit
        self.labelled, self.config, self.split = labelled, tools.config, split_of(sample)
        held_out = self.split in self.config.test_splits
        self.asker = Asker(sample, image.modality, self.config, "test" if held_out else "train")

    def run(self) -> None:
        """Fill the unit: its record, and the rows of all tables that its split serves."""
        from ibisagent.engine.sources.audit import fingerprint

        sample, image, rows = self.sample, self.image, self.unit.rows
        self.unit.record = {
            "source": sample.source,
            "key": sample.key,
            "group": sample.group,
            "split": self.split,
            "sha256": image.sha256,
            "fingerprint": fingerprint(image.pixels),
        }
        rows["images"] = [image_row(sample, self.split, image)]
        if sample.questions:
            rows["vqa"] = question_rows(sample, self.split, image, self.tools.provenance)
        targets = self._targets()
        for name in targets:
            others = tuple(m for other, m in self.labelled.masks.items() if other != name)
            self._target(Subject(image, name, self.labelled.masks[name], others))
        self._absent(max(1, len(targets)))

    def _targets(self) -> list[str]:
        config, masks = self.config, self.labelled.masks
        kept = []
        for name, mask in masks.items():
            pixels = int(mask.sum())
            if pixels < config.min_pixels:
                self._drop(name, "all", "too_small", pixels)
            elif pixels > config.max_share * mask.size:
                self._drop(name, "all", "too_large", round(pixels / mask.size, 4))
            else:
                kept.append(name)
        if config.max_targets is not None and len(kept) > config.max_targets:
            rng = rng_for(config.seed, self.unit.sample, "targets")
            chosen = {kept[int(i)] for i in rng.permutation(len(kept))[: config.max_targets]}
            for name in kept:
                if name not in chosen:
                    self._drop(name, "all", "max_targets", None)
            kept = [name for name in kept if name in chosen]
        return kept

    def _target(self, subject: Subject) -> None:
        config = self.config
        if self.split in config.sft_splits:
            for scenario in self._chosen("sft", subject.name, config.proportions):
                self._trajectory(subject, scenario)
        for table in self._prompt_tables():
            for scenario in self._chosen(table, subject.name, config.prompts):
                self._prompt(table, subject, scenario)

    def _absent(self, count: int) -> None:
        """Names that are not in the image, as many as chance gives for its number of targets."""
        config = self.config
        wanted = {"sft": config.proportions.get("absent", 0.0)} if self.split in config.sft_splits else {}
        wanted.update({table: config.prompts.get("absent", 0.0) for table in self._prompt_tables()})
        for table, chance in wanted.items():
            rng = rng_for(config.seed, self.unit.sample, "absent", table)
            number = int((rng.random(count) < chance).sum())
            if not number:
                continue
            present = tuple(self.labelled.masks)
            said = (*self.sample.absent, *self.labelled.absent)
            names = absent_names(
                said, self.image.modality, self.sample.view, present, self.tools.names_by_modality
            )
            for _ in range(number):
                # What the data set itself says to be absent is the harder case, and taken half of the time.
                pool = names.known if names.known and (rng.random() < 0.5 or not names.foreign) else names.foreign
                if not pool:
                    self._drop("", "absent", "no_absent_name", None)
                    continue
                name = pick_name(pool, rng)
                pool.remove(name)
                subject = Subject(self.image, name, None, tuple(self.labelled.masks.values()))
                if table == "sft":
                    self._trajectory(subject, "absent")
                else:
                    self._prompt(table, subject, "absent")

    def _prompt_tables(self) -> list[str]:
        tables = (("rl", self.config.rl_splits), ("test", self.config.test_splits))
        return [table for table, splits in tables if self.split in splits]

    def _chosen(self, table: str, name: str, chances: Mapping[Scenario, float]) -> list[Scenario]:
        rng = rng_for(self.config.seed, self.unit.sample, name, table, "scenarios")
        draws = rng.random(len(chances))
        pairs = zip(sorted(chances), draws, strict=True)
        return [scenario for scenario, draw in pairs if scenario != "absent" and draw < chances[scenario]]

    def _trajectory(self, subject: Subject, scenario: Scenario) -> None:
        seed = (self.config.seed, self.unit.sample, subject.name)
        rng = rng_for(*seed, scenario)
        stage = Stage(subject, self.tools.expert, self.tools.segmenter, lambda: rng_for(*seed, "expert"))
        try:
            walk = make_walk(scenario, stage, self.config.filters, rng)
            instruction = self.asker.ask(
                subject.name, rng, walk.initial_mask is not None, scenario == "right_stop", walk.hint, walk.place
            )
            case = Case(
                self.image, instruction.text, walk.initial_mask, target=subject.name, group=self.sample.group
            )
            episode = record_walk(
                walk, subject, case, self.tools.segmenter, self.tools.reasoner, rng,
                DIALECTS[self.config.dialect], self.config.system_prompt,
            )  # fmt: skip
        except Dropped as drop:
            self._drop(subject.name, scenario, drop.reason, drop.value)
            return
        row = sft_row(
            self.sample, self.split, subject, scenario, instruction, case, walk, episode,
            self.tools.system_prompt, self.config.expert_name, self.tools.provenance,
        )  # fmt: skip
        self.unit.rows.setdefault("sft", []).append(row)

    def _prompt(self, table: str, subject: Subject, scenario: Scenario) -> None:
        rng = rng_for(self.config.seed, self.unit.sample, subject.name, scenario, table)
        hint: Hint | None = None
        place = None
        try:
            if scenario == "deceptive":
                assert subject.target is not None
                hint, place = "wrong_place", false_place(subject.target, rng)
                if place is None:
                    raise Dropped("target_everywhere")
            given = starting_mask(scenario, subject, rng)
        except Dropped as drop:
            self._drop(subject.name, f"{table}: {scenario}", drop.reason, drop.value)
            return
        instruction = self.asker.ask(subject.name, rng, given is not None, scenario == "right_stop", hint, place)
        case = Case(self.image, instruction.text, given, target=subject.name, group=self.sample.group)
        env = self.tools.env
        row = prompt_row(
            self.sample, self.split, subject, scenario, instruction, case, env.reset(case).episode,
            self.tools.system_prompt, self.tools.provenance,
        )  # fmt: skip
        self.unit.rows.setdefault(table, []).append(row)

    def _drop(self, target: str, scenario: str, reason: str, value: float | None) -> None:
        self.unit.drops.append(
            {"sample": self.unit.sample, "target": target, "scenario": scenario, "reason": reason, "value": value}
        )
