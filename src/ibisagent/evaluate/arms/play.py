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
from ibisagent.evaluate.arms.players import SEES_TARGETS, CannotPlay, Players
from ibisagent.evaluate.arms.rows import ArmRows, arm_rows
from ibisagent.evaluate.case_list import CaseList
from ibisagent.evaluate.run import Targets, evaluate
from ibisagent.evaluate.store import RunFolder, write_json
from ibisagent.evaluate.summary import summarise

if TYPE_CHECKING:
    from ibisagent.engine.language.instructions import Library
    from ibisagent.evaluate.result import CaseResult
    from ibisagent.policies.protocol import Policy
    from ibisagent.segmenters.protocol import Segmenter

__all__ = ["ARMS", "LAB", "SCHEMA_VERSION", "LabSettings", "play_lab"]

LAB, ARMS = "lab.json", "arms"

SCHEMA_VERSION = 1
"""Version of the lab's folder. Added fields keep it; renamed, removed or reinterpreted ones raise it."""

OnArm = Callable[[Arm, int, str], None]
"""Called as an arm begins: the arm, how many cases it still has to play, why it is not played (else empty)."""


@dataclass(frozen=True)
class LabSettings:
    """What all arms share.

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
    device
        For the record.
    batch
        Cases played at the same time; None is :func:`~ibisagent.evaluate.run.usual_batch` of each policy.
    facts
        Further settings that the results depend on, for the record.
    """

    config: RolloutConfig
    subset: int | None = None
    wordings: int = 2
    library: Library = "core"
    device: str = "cpu"
    batch: int | None = None
    facts: tuple[tuple[str, Any], ...] = ()


def play_lab(
    cases: CaseList,
    arms: Sequence[Arm],
    players: Players,
    out: Path,
    settings: LabSettings,
    *,
    open_list: Callable[[Path], CaseList],
    overwrite: bool = False,
    on_arm: OnArm | None = None,
    on_case: Callable[[CaseResult], None] | None = None,
) -> dict[str, Any]:
    """Play arms into a folder; what it holds already is not played again.

    Parameters
    ----------
    cases
        The list; it must be the same one, with the same settings, for a lab that goes on. Arms may be added.
    arms, players
        From :func:`~ibisagent.evaluate.arms.suite.arms_named`, and who plays them.
    out
        The lab's folder: ``lab.json``, and ``arms/NAME/`` with a run each (:mod:`ibisagent.evaluate.store`).
    settings
        See :class:`LabSettings`.
    open_list
        Opens the case list of an arm that has one of its own.
    overwrite
        Whether a lab of other settings is replaced, arm by arm.
    on_arm, on_case
        For progress.

    Returns
    -------
    dict
        What ``lab.json`` says: the settings; ``arms`` by name, each with ``num_rows``, ``left_out``, ``notes``,
        ``seconds``, and ``skipped`` (why it could not be played, else None).

    Raises
    ------
    InputError
        If the folder holds a lab with other settings, or cannot be written.
    """
    facts = _begin(out, cases, settings, players, overwrite)
    for arm in arms:
        folder = out / ARMS / arm.name
        list_of_arm = cases if arm.cases is None else open_list(arm.cases)
        rows = arm_rows(
            arm, list_of_arm, settings.subset, folder, settings.config.seed, settings.library, settings.wordings
        )
        about: dict[str, Any] = {**arm.to_json(), "num_rows": len(rows.rows), "left_out": rows.left_out}
        about |= {"notes": [], "skipped": None, "seconds": (facts["arms"].get(arm.name) or {}).get("seconds") or 0.0}
        facts["arms"][arm.name] = about
        try:
            if not rows.rows:
                raise CannotPlay("; ".join(f"{reason} ({n} cases)" for reason, n in rows.left_out.items()) or "no case")
            about["seconds"] += _play_arm(arm, rows, players, folder, settings, facts, overwrite, on_arm, on_case)
        except CannotPlay as reason:
            about["skipped"] = str(reason)
            if on_arm is not None:
                on_arm(arm, 0, str(reason))
        write_json(facts, out / LAB)
        players.forget(arm)
    return facts


def _begin(
    out: Path, cases: CaseList, settings: LabSettings, players: Players, overwrite: bool
) -> dict[str, Any]:  # fmt: skip
    said = {
        "ibisagent_version": __version__,
        "cases": cases.name,
        "cases_sha256": cases.sha256,
        "subset": settings.subset,
        "wordings": settings.wordings,
        "library": settings.library,
        **_config_facts(settings.config),
        **dict(settings.facts),
    }
    path = out / LAB
    known = None if overwrite else _known(path)
    if known is None:
        facts: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **json.loads(json.dumps(said)), "arms": {}}
    else:
        for name, value in json.loads(json.dumps(said)).items():
            if known.get(name) != value:
                raise InputError(f"{out} holds a lab with {name} {_shown(known.get(name))}, not {_shown(value)}; "
                                 "--overwrite replaces it, or choose another --out")  # fmt: skip
        facts = known
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_json(facts, path)
    except OSError as error:
        raise InputError(f"--out {out}: {error.strerror or error}") from None
    return facts


def _known(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or not isinstance(facts.get("arms"), dict):
        raise InputError(f"{path} is damaged: it is no lab; --overwrite replaces it, or choose another --out")
    if facts.get("schema_version") != SCHEMA_VERSION:
        shown = str(facts.get("schema_version"))[:20]
        raise InputError(f"{path} has schema version {shown}, this ibisagent reads {SCHEMA_VERSION}")
    return facts


def _config_facts(config: RolloutConfig) -> dict[str, Any]:
    return config.model_dump(mode="json")


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _play_arm(
    arm: Arm,
    rows: ArmRows,
    players: Players,
    folder: Path,
    settings: LabSettings,
    lab: dict[str, Any],
    overwrite: bool,
    on_arm: OnArm | None,
    on_case: Callable[[CaseResult], None] | None,
) -> float:
    """Play what is still to be played; the seconds that it took."""
    config = RolloutConfig.model_validate({**settings.config.model_dump(), **arm.rollout})
    about = lab["arms"][arm.name]
    targets: Targets = {}
    policy, segmenter, about["notes"] = players.of(arm, config, targets)
    about |= {"policy_name": policy.name, "segmenter_name": segmenter.name}
    write_json(lab, folder.parents[1] / LAB)  # so that an arm that is interrupted is in the record
    facts = _run_facts(arm, rows, policy, segmenter, config, settings)
    # Pixels are the same in every arm on the same list: one copy is enough.
    keep = arm.name == AGENT or arm.cases is not None
    with RunFolder.open(folder, facts, keep_images=keep, overwrite=overwrite) as run:
        waiting = [i for i in range(len(rows.rows)) if i not in run.done]
        if on_arm is not None:
            on_arm(arm, len(waiting), "")
        started = time.perf_counter()
        if waiting:
            sees = targets if arm.policy in SEES_TARGETS else None
            evaluate(
                rows.rows,
                rows.cases.root,
                policy,
                segmenter,
                config,
                targets=sees,
                on_case=on_case,
                max_live=settings.batch,
                library=settings.library,
                load=rows.load,
                record=run,
            )
        seconds = time.perf_counter() - started
        if waiting or not (folder / "summary.json").is_file():
            run.finish(summarise(run.results(), max_steps=config.max_steps))
    return seconds


def _run_facts(
    arm: Arm, rows: ArmRows, policy: Policy, segmenter: Segmenter, config: RolloutConfig, settings: LabSettings
) -> dict[str, Any]:
    return {
        "arm": arm.name,
        "condition": arm.condition,
        "cases": rows.cases.name,
        "cases_sha256": rows.cases.sha256,
        "rows_sha256": rows.sha256,
        "num_rows": len(rows.rows),
        "policy": policy.name,
        "policy_weights_sha256": policy.weights_sha256,
        "dialect": policy.dialect.name,
        "segmenter": segmenter.name,
        "segmenter_weights_sha256": segmenter.weights_sha256,
        "device": settings.device,
        "library": settings.library,
        **_config_facts(config),
    }
