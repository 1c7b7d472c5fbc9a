"""Play the arms of a lab, one after another: resumable arm by arm and case by case, every model loaded once."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent import __version__
from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.evaluate.arms.arm import AGENT, Arm
from ibisagent.evaluate.arms.lab_player import LabPlayer, Maker, Plan
from ibisagent.evaluate.arms.rows import arm_rows
from ibisagent.evaluate.case_list import CaseList
from ibisagent.evaluate.environment import describe_environment
from ibisagent.evaluate.leakage import leakage_warning, note_leakage
from ibisagent.evaluate.records import SUMMARY, read_facts, read_object, shown
from ibisagent.evaluate.rescore import run_summary
from ibisagent.evaluate.store import RunFolder, write_json
from ibisagent.evaluate.workers import Crew, Executor, crew

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Library
    from ibisagent.evaluate.arms.players import Players
    from ibisagent.evaluate.result import CaseResult

__all__ = ["ARMS", "LAB", "SCHEMA_VERSION", "LabSettings", "Workers", "play_lab", "read_lab_facts"]

LAB, ARMS = "lab.json", "arms"

SCHEMA_VERSION = 1
"""Version of the lab's folder. Added fields keep it; renamed, removed or reinterpreted ones raise it."""

OnArm = Callable[[Arm, int, str], None]
"""Called as an arm begins: the arm, how many cases it still has to play, why it is not played (else empty)."""


@dataclass(frozen=True)
class LabSettings:
    """What all arms share and what results depend on.

    Parameters
    ----------
    config
        Budgets, seed and switches of the agent.
    subset
        How many cases (:func:`~ibisagent.evaluate.arms.subset.subset`); None plays all.
    wordings
        Categories of each stage that a case is told in.
    library
        Templates of the instructions.
    facts
        Further settings, for the record: the split, the specs.
    """

    config: RolloutConfig
    subset: int | None = None
    wordings: int = 2
    library: Library = "core"
    facts: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Workers:
    """Who plays, which should change no result; see :func:`ibisagent.evaluate.workers.crew`."""

    number: int = 1
    executor: Executor = "processes"
    address: str | None = None
    batch: int | None = None
    threads: int | None = None
    device: str | None = None


def play_lab(
    cases: CaseList,
    arms: Sequence[Arm],
    make: Maker,
    out: Path,
    settings: LabSettings,
    *,
    open_list: Callable[[Path], CaseList],
    workers: Workers = Workers(),
    overwrite: bool = False,
    keep_images: bool = True,
    on_arm: OnArm | None = None,
    on_case: Callable[[CaseResult], None] | None = None,
) -> dict[str, Any]:
    """Play arms into a folder; what it holds already is not played again.

    Parameters
    ----------
    cases
        The list; it must be the same one, with the same settings, for a lab that goes on. Arms may be added.
    arms, make
        From :func:`~ibisagent.evaluate.arms.suite.arms_named`, and what makes their players.
    out
        The lab's folder: ``lab.json``, and ``arms/NAME/`` with a run each (:mod:`ibisagent.evaluate.store`).
    settings
        See :class:`LabSettings`.
    open_list
        Opens the case list of an arm that has one of its own.
    workers
        Who plays.
    overwrite
        Whether a lab of other settings is replaced, arm by arm.
    keep_images
        Whether the pixels are stored, once for all arms of a list.
    on_arm, on_case
        For progress.

    Returns
    -------
    dict
        What ``lab.json`` says: the settings; ``arms`` by name, each with ``num_rows``, ``left_out``, ``notes``,
        ``seconds``, ``skipped`` (why it could not be played, else None), and ``leakage``: a line where images of it
        were in the policy's training data.

    Raises
    ------
    InputError
        If the folder holds a lab with other settings or cannot be written, or the lab's own policy or segmenter
        cannot be made.
    """
    lab = _Lab(cases, make, out, settings, workers, overwrite, keep_images, on_arm, on_case)
    plans = [lab.plan(arm, cases if arm.cases is None else open_list(arm.cases)) for arm in arms]
    # Another policy or segmenter is loaded for its own arm only. The lab's own stay loaded, so there must be memory for
    # two policies (or segmenters), and need not be for more.
    lab.play([plan for plan in plans if not _is_apart(plan)])
    for plan in plans:
        if _is_apart(plan):
            lab.play([plan])
    return lab.facts


def _is_apart(plan: Plan) -> bool:
    return plan.arm.kind in ("policy", "segmenter")


class _Lab:
    """A lab's folder while it is played."""

    def __init__(
        self,
        cases: CaseList,
        make: Maker,
        out: Path,
        settings: LabSettings,
        workers: Workers,
        overwrite: bool,
        keep_images: bool,
        on_arm: OnArm | None,
        on_case: Callable[[CaseResult], None] | None,
    ) -> None:
        self.make, self.out, self.settings, self.workers = make, out, settings, workers
        self.overwrite, self.keep_images, self.on_arm, self.on_case = overwrite, keep_images, on_arm, on_case
        self.facts = _begin(out, cases, settings, overwrite)
        self.loaded: list[Players] = []  # what this process has loaded, from phase to phase
        self.environment = {
            **describe_environment(workers.device),
            "executor": workers.executor,
            "workers": workers.number,
        }

    def plan(self, arm: Arm, cases: CaseList) -> Plan:
        """The rows and settings of an arm."""
        s = self.settings
        rows = arm_rows(arm, cases, s.subset, self.out / ARMS / arm.name, s.config.seed, s.library, s.wordings)
        return Plan(arm, rows, RolloutConfig.model_validate({**s.config.model_dump(), **arm.rollout}))

    def play(self, plans: Sequence[Plan]) -> None:
        """Play plans that share their models."""
        w = self.workers
        player = LabPlayer(
            tuple(plans), self.make, self.settings.library, w.batch, w.threads, w.device, loaded=self.loaded
        )
        with crew(player, w.executor, w.number, w.address) as hands:
            self._save()
            for index, plan in enumerate(plans):
                told = hands.facts["arms"][plan.arm.name]
                about = self._about(plan)
                why = told.get("skipped") or _nothing_to_play(plan)
                if why and self._was_played(plan):
                    self._tell(plan.arm, 0, "")
                elif why:
                    about["skipped"] = why
                    self._tell(plan.arm, 0, why)
                else:
                    about["notes"] = [*told["notes"]]
                    about |= {"policy_name": told["policy"], "segmenter_name": told["segmenter"]}
                    self._play_arm(plan, player.positions_of(index), told, hands, about)
                self._save()
        for plan in plans:
            for players in self.loaded:
                players.forget(plan.arm)

    def _about(self, plan: Plan) -> dict[str, Any]:
        """What ``lab.json`` says of an arm, put there at once so that an interrupted one is in the record."""
        arms = self.facts["arms"]
        about: dict[str, Any] = {
            "notes": [],
            "seconds": 0.0,
            **(arms.get(plan.arm.name) or {}),
            **plan.arm.to_json(),
            "num_rows": len(plan.rows.rows),
            "left_out": plan.rows.left_out,
            "skipped": None,
        }
        arms[plan.arm.name] = about
        return about

    def _was_played(self, plan: Plan) -> bool:
        """Whether an arm whose players are not to be had (any more) was finished by an earlier session."""
        folder = self.out / ARMS / plan.arm.name
        known = None if self.overwrite else read_facts(folder)
        return known is not None and known.get("rows_sha256") == plan.rows.sha256 and (folder / SUMMARY).is_file()

    def _play_arm(self, plan: Plan, positions: range, told: dict[str, Any], hands: Crew, about: dict[str, Any]) -> None:
        facts = self._run_facts(plan, told)
        # Pixels are the same in every arm on the same list: one copy is enough.
        first = plan.arm.name == AGENT or plan.arm.cases is not None
        keep = first and self.keep_images
        environment = {**self.environment, **hands.circumstances}
        folder = self.out / ARMS / plan.arm.name
        with RunFolder.open(folder, facts, environment=environment, keep_images=keep, overwrite=self.overwrite) as run:
            waiting = [position for position in positions if position - positions.start not in run.done]
            self._save()
            self._tell(plan.arm, len(waiting), "")
            started = time.perf_counter()
            for ended in hands.play(waiting) if waiting else ():
                run.append(ended.position - positions.start, ended.result, ended.picture)
                if self.on_case is not None:
                    self.on_case(ended.result)
            if waiting:
                about["seconds"] += time.perf_counter() - started
            if waiting or not (folder / SUMMARY).is_file():
                policy = self._policy_with_new_images(plan.arm)
                if policy is not None:
                    note_leakage(run, policy, None if first else self.out / ARMS / AGENT)
                run.finish(run_summary(run.results(), plan.config.max_steps))
            found = run.facts.get("leakage")
            about["leakage"] = None if found is None else leakage_warning(found)

    def _policy_with_new_images(self, arm: Arm) -> str | None:
        """Spec of the policy whose training images an arm may show; None where another arm says it of both."""
        if arm.kind == "policy":
            return arm.policy
        return dict(self.settings.facts).get("policy") if arm.name == AGENT or arm.cases is not None else None

    def _run_facts(self, plan: Plan, told: dict[str, Any]) -> dict[str, Any]:
        return {
            "arm": plan.arm.name,
            "condition": plan.arm.condition,
            "cases": plan.rows.cases.name,
            "cases_sha256": plan.rows.cases.sha256,
            "rows_sha256": plan.rows.sha256,
            "num_rows": len(plan.rows.rows),
            **{name: value for name, value in told.items() if name != "notes"},
            "device": self.workers.device,
            "library": self.settings.library,
            **plan.config.model_dump(mode="json"),
        }

    def _tell(self, arm: Arm, number: int, skipped: str) -> None:
        if self.on_arm is not None:
            self.on_arm(arm, number, skipped)

    def _save(self) -> None:
        try:
            self.out.mkdir(parents=True, exist_ok=True)
            write_json(self.facts, self.out / LAB)
        except OSError as error:
            raise InputError(f"--out {self.out}: {error.strerror or error}") from None


def _nothing_to_play(plan: Plan) -> str:
    if plan.rows.rows:
        return ""
    return "; ".join(f"{reason} ({number} cases)" for reason, number in plan.rows.left_out.items()) or "it has no case"


# -- the record ------------------------------------------------------------------------------------


def _begin(out: Path, cases: CaseList, settings: LabSettings, overwrite: bool) -> dict[str, Any]:
    said = json.loads(
        json.dumps(
            {
                "ibisagent_version": __version__,
                "cases": cases.name,
                "cases_sha256": cases.sha256,
                "subset": settings.subset,
                "wordings": settings.wordings,
                "library": settings.library,
                **settings.config.model_dump(mode="json"),
                **dict(settings.facts),
            }
        )
    )
    known = None if overwrite else read_lab_facts(out)
    if known is None:
        return {"schema_version": SCHEMA_VERSION, **said, "arms": {}}
    for name, value in said.items():
        if known.get(name) != value:
            raise InputError(f"{out} holds a lab with {name} {shown(known.get(name))}, not {shown(value)}; "
                             "--overwrite replaces it, or choose another --out")  # fmt: skip
    return known


def read_lab_facts(out: Path) -> dict[str, Any] | None:
    """What a folder's ``lab.json`` says; None where there is none.

    Raises
    ------
    InputError
        If it cannot be read, is damaged, or is of another schema.
    """
    path = out / LAB
    facts = read_object(path)
    if facts is None:
        return None
    if not isinstance(facts.get("arms"), dict):
        raise InputError(f"{path} is damaged: it is no lab; evaluate --overwrite replaces it, or choose another --out")
    if facts.get("schema_version") != SCHEMA_VERSION:
        version = str(facts.get("schema_version"))[:20]
        raise InputError(f"{path} has schema version {version}, this ibisagent reads {SCHEMA_VERSION}")
    return facts
