"""A lab is played arm by arm, goes on where it stopped, and says what came of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ibisagent.config import RolloutConfig
from ibisagent.errors import InputError
from ibisagent.evaluate.arms import (
    Arm,
    LabSettings,
    Maker,
    Players,
    SpecMaker,
    Workers,
    arms_named,
    is_lab,
    lab_lines,
    lab_summary,
    play_lab,
    read_lab,
)
from ibisagent.evaluate.baselines import Positions, mean_positions
from ibisagent.evaluate.case_list import CaseList, open_case_list
from ibisagent.evaluate.leakage import LIST_NAME, list_images
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.segmenters.rules import RulesSegmenter

SETTINGS = LabSettings(RolloutConfig(max_steps=4))
NAMES = ["baselines", "ceiling", "robustness"]


class NoBoxes(RulesSegmenter):
    name = "no-boxes"
    capabilities = Capabilities(clicks=True, negative_clicks=False, boxes=False, prior_mask=False)


@dataclass
class StandIns(Maker):
    """Players that need no weights; other policies are not to be had, other segmenters take clicks alone."""

    looker: Any
    case_file: Path
    segmenter: Any = field(default_factory=RulesSegmenter)

    def __call__(self) -> Players:
        return Players(self.looker, self.segmenter, self._nothing, lambda spec: NoBoxes(), self._positions)

    def _nothing(self, spec: str) -> Any:
        raise InputError(f"there is no {spec} here")

    def _positions(self) -> Positions:
        return mean_positions(open_case_list(self.case_file))


@pytest.fixture
def players(looker: Any, case_file: Path) -> StandIns:
    return StandIns(looker, case_file)


@pytest.fixture
def play(cases: CaseList, players: StandIns, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(arms: list[Arm], out: str = "lab", settings: LabSettings = SETTINGS, **how: Any) -> dict[str, Any]:
        return play_lab(cases, arms, players, tmp_path / out, settings, open_list=open_case_list, **how)

    return run


def contents(lab: Path) -> dict[str, str]:
    """Everything in a lab but what a clock wrote."""
    found = {}
    for path in sorted(lab.rglob("*")):
        if path.suffix in (".json", ".jsonl", ".csv", ".png") and path.name not in ("lab.json", "run.json"):
            text = path.read_bytes().hex() if path.suffix == ".png" else path.read_text()
            found[str(path.relative_to(lab))] = text
    return found


def without_clock(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: without_clock(v) for k, v in value.items() if "seconds" not in k and k not in ("by_step", "policy")}
    return [without_clock(v) for v in value] if isinstance(value, list) else value


def test_a_lab_says_what_the_arms_are_worth(play: Callable[..., Any], tmp_path: Path, looker: Any) -> None:
    facts = play(arms_named([*NAMES, "ablations", "wording"]))
    assert is_lab(tmp_path / "lab") and not is_lab(tmp_path)
    lab = read_lab(tmp_path / "lab")
    assert lab.is_complete and lab.agent is not None and len(lab.agent.results) == 10
    summary = lab_summary(lab)
    json.dumps(summary, allow_nan=False)
    arms = summary["arms"]
    assert list(arms) == list(facts["arms"])
    iou = {name: about["figures"]["iou"]["value"] for name, about in arms.items() if "iou" in about["figures"]}
    (note,) = arms["no-look"]["notes"]
    assert note.startswith("a training position is known for ") and " of 10 cases " in note
    assert iou["oracle"] > 0.8 and iou["oracle"] >= iou["agent"] > iou["random-click"]
    # It clicks what is brightest: right for hearts and brains, wrong for livers.
    assert 0.5 < iou["agent"] < 0.7
    assert summary["ceiling"]["agent_over_oracle"]["cases"]["value"] == pytest.approx(iou["agent"] / iou["oracle"])
    share = (iou["agent"] - iou["no-look"]) / (iou["oracle"] - iou["no-look"])
    assert summary["ceiling"]["share_of_ceiling"]["cases"]["value"] == pytest.approx(share)
    assert summary["ceiling"]["premature_stops"]["value"] == pytest.approx(0.4)
    # It does not read: a false place changes nothing.
    gap = arms["wrong-place"]["difference"]["iou"]
    assert gap["difference"] == 0 and gap["n"] == 10 and arms["wrong-place"]["difference"]["against"] == "true-place"
    back = arms["wrong-place"]["recovery"]
    assert back["recovery"]["value"] == 1.0 and back["recovery"]["n"] == 6, "livers fail anyway: they do not count"
    assert "given_iou" not in back
    # A mask that does not hold the brightest pixel is discarded, any other is kept.
    mask = arms["mismatched-mask"]["recovery"]
    assert mask["discarded"]["value"] > 0.3 and mask["recovery"]["value"] > mask["recovery_of_stopping"]["value"]
    assert arms["good-mask"]["recovery"]["improved"]["value"] == 0
    assert arms["false-error"]["difference"]["against"] == "good-mask"
    assert arms["absent-foreign"]["figures"]["right_refusals"]["value"] == 0
    assert "difference" not in arms["absent-foreign"] and "recovery" not in arms["absent-foreign"]
    assert summary["absent"]["right_refusals"]["absent-foreign"]["n"] == 10
    assert summary["absent"]["sensitivity"]["value"] == 1 and summary["absent"]["false_refusals"]["value"] == 0
    assert arms["no-thought"]["skipped"] and "cannot be kept from thinking" in arms["no-thought"]["skipped"]
    assert arms["no-history"]["difference"]["iou"]["difference"] == 0
    start = summary["wording"]["start"]
    assert len(start["categories"]) == 7 and start["within_case_sd"]["value"] == 0 == start["largest_difference"]
    assert summary["wording"]["refine"]["against"] == "corrupted-light"
    assert all(
        about["figures"]["ceiling_share"]["n"] == 10 for name, about in arms.items() if name in ("agent", "no-look")
    )
    assert summary["clusters"]["unit"] == "image"
    lines = lab_lines(summary)
    assert any(line.startswith("oracle ") for line in lines)
    assert sum(line.startswith("share of the ceiling, the oracle's ") for line in lines) == 2
    result = lab.arms["oracle"].results[0]
    assert lab.arms["oracle"].image(result) is None and lab.image(result) is not None, "one copy of the pictures"
    assert lab.arms["corrupted-light"].results[0].condition["name"] == "corrupted-light"


def test_training_images_are_looked_for_in_the_arms_that_may_show_some(
    cases: CaseList, case_file: Path, tmp_path: Path, players: StandIns, looker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    list_images(replace(cases, rows=cases.rows[:2]), "two").save(tmp_path / "weights" / LIST_NAME)
    other = f"vlm:{tmp_path / 'weights'}"
    monkeypatch.setattr(StandIns, "_nothing", lambda self, spec: looker)
    settings = replace(SETTINGS, facts=(("policy", "scripted:nothing"),))
    arms = arms_named(["oracle"], others=[other])
    for _ in range(2):  # played, and gone on with
        facts = play_lab(cases, arms, players, tmp_path / "lab", settings, open_list=open_case_list)
        told = {name: about["leakage"] for name, about in facts["arms"].items()}
        assert told == {"agent": None, "oracle": None, "other-vlm-weights": told["other-vlm-weights"]}
        assert "of 5 images 1 were in the policy's training data" in told["other-vlm-weights"]
    lab = read_lab(tmp_path / "lab")
    assert lab.arms["agent"].facts["leakage"]["checked"] is False and "leakage" not in lab.arms["oracle"].facts
    assert lab.arms["other-vlm-weights"].facts["leakage"]["num_unseen"] == 0, "the pictures are the plain run's"
    assert any(line.startswith("warning: other-vlm-weights: of 5 images") for line in lab_lines(lab_summary(lab)))


def test_an_interrupted_lab_goes_on_to_the_same_results(play: Callable[..., Any], tmp_path: Path, looker: Any) -> None:
    arms = arms_named(["oracle", "random-clicks", "wrong-place", "corrupted-light", "absent-foreign"])
    play(arms, "whole")
    asked = looker.calls
    seen: list[Any] = []

    def until(number: int) -> Callable[[Any], None]:
        def on_case(result: Any) -> None:
            seen.append(result)
            if len(seen) == number:
                raise KeyboardInterrupt

        return on_case

    for number in (4, 33):
        seen.clear()
        with pytest.raises(KeyboardInterrupt):
            play(arms, "cut", on_case=until(number))
    assert not read_lab(tmp_path / "cut").is_complete
    lab_summary(read_lab(tmp_path / "cut"))
    play(arms, "cut")
    assert looker.calls - asked < asked + 30, "what was played is not played again"
    whole, cut = contents(tmp_path / "whole"), contents(tmp_path / "cut")
    assert list(whole) == list(cut)
    for name, text in whole.items():
        if name.endswith(".json"):
            assert without_clock(json.loads(cut[name])) == without_clock(json.loads(text)), name
        elif name.endswith((".jsonl", ".png")):
            assert cut[name] == text, name
    one, two = (without_clock(lab_summary(read_lab(tmp_path / name))) for name in ("whole", "cut"))
    assert one == two
    before = looker.calls
    play(arms, "cut")
    assert looker.calls == before, "a finished lab plays nothing"


def test_two_processes_play_what_one_does(cases: CaseList, case_file: Path, tmp_path: Path) -> None:
    arms = arms_named(["centre-click", "random-clicks", "box-oracle", "corrupted-light"])
    script = tmp_path / "script.txt"
    script.write_text(
        "<think>a</think><action>Positive Point (0.5000, 0.5000)</action>\n"
        "<think>b</think><action>Terminate</action><answer>Found.</answer>\n"
    )
    make = SpecMaker(f"scripted:{script}", "rules", "cpu", {}, str(case_file))
    for name, number in (("one", 1), ("two", 2)):
        play_lab(cases, arms, make, tmp_path / name, SETTINGS, open_list=open_case_list, workers=Workers(number))
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert list(one) == list(two)
    for name, text in one.items():
        if name.endswith((".jsonl", ".png")):
            assert two[name] == text, name


def test_arms_may_be_added_and_settings_may_not_change(play: Callable[..., Any], tmp_path: Path, looker: Any) -> None:
    play(arms_named([]))
    before = looker.calls
    facts = play(arms_named(["oracle"]))
    assert looker.calls == before and list(facts["arms"]) == ["agent", "oracle"]
    facts = play(arms_named(["centre-click"]))
    assert list(facts["arms"]) == ["agent", "oracle", "centre-click"]
    with pytest.raises(InputError, match="holds a lab with subset null, not 3"):
        play(arms_named([]), settings=replace(SETTINGS, subset=3))
    with pytest.raises(InputError, match="max_steps 4, not 5"):
        play(arms_named([]), settings=replace(SETTINGS, config=RolloutConfig(max_steps=5)))
    facts = play(arms_named([]), settings=replace(SETTINGS, subset=3), overwrite=True)
    assert facts["arms"]["agent"]["num_rows"] == 3
    (tmp_path / "lab" / "lab.json").write_text("{}")
    with pytest.raises(InputError, match="is no lab"):
        play(arms_named([]))


def test_an_arm_that_cannot_be_played_is_named_and_the_others_are_played(play: Callable[..., Any]) -> None:
    heard: list[tuple[str, str]] = []
    arms = arms_named(["box-oracle"], segmenters=["sam:x"], others=["vlm:y"])
    facts = play(arms, on_arm=lambda arm, number, skipped: heard.append((arm.name, skipped)))
    told = facts["arms"]
    assert (
        told["other-vlm-y"]["skipped"] == "there is no vlm:y here"
        and ("other-vlm-y", told["other-vlm-y"]["skipped"]) in heard
    )
    swapped = told["segmenter-sam-x"]
    assert swapped["skipped"] is None and swapped["segmenter_name"] == "no-boxes"
    assert swapped["notes"] == [
        "the segmenter takes no negative points", "the segmenter takes no boxes", "the segmenter takes no given masks"
    ]  # fmt: skip


def test_an_arm_that_was_finished_stays_though_its_weights_are_gone(
    play: Callable[..., Any], tmp_path: Path, looker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(self: StandIns, spec: str) -> Any:
        raise InputError("no weights")

    monkeypatch.setattr(StandIns, "_nothing", lambda self, spec: looker)
    arms = arms_named([], others=["vlm:y"])
    before = play(arms)["arms"]
    assert read_lab(tmp_path / "lab").is_complete
    monkeypatch.setattr(StandIns, "_nothing", gone)
    assert play(arms)["arms"] == before and before["other-vlm-y"]["skipped"] is None
    assert len(read_lab(tmp_path / "lab").arms["other-vlm-y"].results) == 10
    (tmp_path / "lab" / "arms" / "other-vlm-y" / "summary.json").unlink()  # as if it had been interrupted
    assert play(arms)["arms"]["other-vlm-y"]["skipped"] == "no weights"


def test_a_box_needs_a_segmenter_that_takes_one(cases: CaseList, looker: Any, tmp_path: Path) -> None:
    players = StandIns(looker, tmp_path, NoBoxes())
    facts = play_lab(cases, arms_named(["box-oracle"]), players, tmp_path, SETTINGS, open_list=open_case_list)
    assert facts["arms"]["box-oracle"]["skipped"] == "the segmenter 'no-boxes' takes no boxes"


def test_a_list_of_absent_targets_is_an_arm(play: Callable[..., Any], case_file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in case_file.read_text().splitlines()][:4]
    own = tmp_path / "not there.jsonl"
    own.write_text(
        "".join(json.dumps({**r, "image": str(case_file.parent / r["image"]), "mask": None}) + "\n" for r in rows)
    )
    facts = play(arms_named([], absent=[own]))
    assert facts["arms"]["absent-not-there"]["num_rows"] == 4
    summary = lab_summary(read_lab(tmp_path / "lab"))
    assert summary["absent"]["right_refusals"]["absent-not-there"]["n"] == 4


def test_arms_are_named_alone_in_groups_and_all_together() -> None:
    assert [a.name for a in arms_named([])] == ["agent"]
    assert [a.name for a in arms_named(["no-look", "oracle"])] == ["agent", "oracle", "no-look"]
    assert [a.name for a in arms_named(["wrong-place"])] == ["agent", "wrong-place", "true-place"]
    everything = arms_named(["all"])
    assert len([a for a in everything if a.kind == "wording"]) == 13
    assert {a.kind for a in everything} == {"agent", "ceiling", "baseline", "robustness", "wording", "ablation"}
    assert {a.name for a in arms_named(["ablations"])} == {"agent", "no-thought", "no-history", "no-overlay"}
    with pytest.raises(InputError, match="no arm 'nolook'; there are all, baselines"):
        arms_named(["nolook"])
    with pytest.raises(InputError, match="--arms segmenters: give --segmenters"):
        arms_named(["segmenters"])
    with pytest.raises(InputError, match="two arms are called 'segmenter-rules'"):
        arms_named(["all"], segmenters=["rules", "rules"])
    with pytest.raises(InputError, match="there is no segmenter 'sum'"):
        arms_named([], segmenters=["sum:x"])
    with pytest.raises(InputError, match="there is no policy 'gpt'"):
        arms_named([], others=["gpt:x"])
