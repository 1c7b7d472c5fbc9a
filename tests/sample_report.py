"""A report with made-up numbers and real pictures, hostile texts among them."""

from __future__ import annotations

from pathlib import Path

from ibisagent.evaluate.records import scored
from ibisagent.evaluate.report.model import (
    Card,
    Curve,
    Facts,
    Forest,
    ForestRow,
    Gallery,
    Headline,
    Picture,
    Point,
    Report,
    Scale,
    Section,
    Series,
    Table,
    Value,
)
from ibisagent.evaluate.report.pictures import case_picture
from ibisagent.evaluate.result import CaseResult
from ibisagent.evaluate.store import RunFolder
from ibisagent.evaluate.summary import summarise
from ibisagent.rle import decode_mask, encode_mask
from sample_episodes import (
    HOSTILE,
    absent_episode,
    chest_image,
    click_episode,
    failed_episode,
    hostile_episode,
    mini_image,
    mini_mask,
    refine_episode,
    shifted,
)

IOU, STEPS = Scale("IoU"), Scale("Steps", percent=False, higher_is_better=None, unit="steps")
POINTS = Scale("Difference in IoU", signed=True)
CAUTION = "Only 4 patients: intervals draw images, so they say nothing of new patients."
FEW = "Only 4 images: the interval is narrower than it should be."


def value(number: float, spread: float = 0.05, n: int = 92, clusters: int = 27, warning: str = "") -> Value:
    return Value(number, (number - spread, number + spread), n, clusters, "image", warning)


def pictures() -> dict[str, Picture]:
    chest, lung = chest_image(), mini_mask("lung1_axial_024__left-lung")
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    run = click_episode(chest, lung, "Segment the left lung.", "left lung")
    other, broken = refine_episode(nuclei, nucleus), hostile_episode(nuclei, nucleus)
    return {
        "00001-lung": case_picture("00001-lung", run, chest, shifted(lung, 30), lung, "CT, left lung"),
        "00002-nucleus": case_picture("00002-nucleus", other, nuclei, shifted(nucleus, 4), nucleus, HOSTILE),
        "00003-missed": case_picture("00003-missed", broken, nuclei, None, nucleus, "a nucleus that was missed"),
    }


def card(key: str, target: str, iou: float, best: float, *, instruction: str = "", link: bool = True) -> Card:
    return Card(
        case_id=key,
        target=target,
        detail="CT · axial · lung1",
        instruction=instruction or f"Please outline the {target} for me.",
        outcome="done",
        iou=iou,
        best_iou=best,
        regret=best - iou,
        steps=4,
        link=f"episodes/{key}.html" if link else "",
        picture=key,
    )


def make_report() -> Report:
    """Every kind of block, an undefined value, an unwarranted one, and texts that try to break out."""
    cards = (
        card("00001-lung", "left lung", 0.31, 0.82),
        card("00002-nucleus", "uppermost nucleus", 0.62, 0.75, instruction=HOSTILE),
        card("00003-missed", HOSTILE, 0.0, 0.0, link=False),
    )
    unseen = Card("gone", "liver", "", "Liver.", "error", 0.0, None, None, None, note="the image is missing")
    targets = tuple(
        ForestRow(
            name,
            value(number, 0.2 if few else 0.04, 4 if few else 15, 4 if few else 15, FEW if few else ""),
            group=group,
        )
        for group, name, number, few in (
            ("icbm152", "brain", 0.962, False),
            ("icbm152", "white matter", 0.713, False),
            ("lung1", "left lung", 0.941, True),
            ("lung1", HOSTILE, 0.42, True),
        )
    )
    steps = (0.0, 0.52, 0.63, 0.66, 0.69, 0.70, 0.71, 0.715, 0.719)
    arms = (
        ForestRow("nano", value(0.719), "the agent", strong=True),
        ForestRow("no look", value(0.412), "one click at the mean place", group="Baselines"),
        ForestRow("random", Value(None), "never ran", group="Baselines"),
        ForestRow("oracle clicks", value(0.871, 0.02), group="Ceiling"),
    )
    differences = (
        ForestRow("no look", value(-0.307), group="Baselines", strong=True, note="p < 0.001"),
        ForestRow("oracle clicks", value(0.152, 0.16), group="Ceiling", note="p = 0.061"),
    )
    table = Table(
        "figures",
        "All figures",
        "With what they count.",
        ("Figure", "Value", "Of", "What is counted"),
        (
            ("IoU", (value(0.719), IOU), "92 cases, 27 images", "Final mask & reference, 100% of them."),
            ("Steps", (value(4.3, 0.4), STEPS), "92 cases", HOSTILE),
            ("Right refusals", (Value(0.5, None, 2, 1, "image", FEW), IOU), "2 cases", "_emphasis_ $x^2$ \\input{x}"),
            ("Nothing", None, 0, "–"),
        ),
        ((0, "Overlap"), (2, "Refusals")),
    )
    curve = Curve(
        "iou-by-step",
        "IoU after each action",
        "Mean over present targets.",
        "Actions",
        IOU,
        (
            Series("nano", tuple(Point(float(k), value(v, 0.04)) for k, v in enumerate(steps))),
            Series("ended", tuple(Point(float(k), Value(min(1.0, k / 7))) for k in range(9)), "second"),
        ),
        (0.0, 8.0),
        x_whole=True,
    )
    reliability = Curve(
        "reliability",
        "Estimated and true IoU",
        "",
        "Mean estimate",
        Scale("Mean IoU"),
        (Series("bins", tuple(Point(x / 10, value(x / 12, 0.08, n), size=n) for x, n in ((5, 3), (7, 18), (9, 71)))),),
        (0.0, 1.0),
        x_percent=True,
        diagonal=True,
        joined=False,
        facts=(("ECE", "14.0%"),),
    )
    facts = Facts("record", "Record", (("Settings", (("policy", "nano"), ("weights sha256", "ab" * 32))),))
    return Report(
        title="nano with litemedsam",
        subject=f"cases.jsonl, split val: 92 cases of {HOSTILE}",
        headlines=(
            Headline("iou", IOU, "IoU of the final mask.", value(0.719, warning=FEW), "+30.7 over no look"),
            Headline("steps", STEPS, "Actions before the stop.", value(4.3, 0.4)),
            Headline("right_refusals", Scale("Right refusals"), "Absent.", Value(1.0, None, 2, 1, "image", FEW)),
        ),
        findings=("The agent beats no look by 30.7 points.", HOSTILE),
        cautions=(CAUTION,),
        sections=(
            Section(
                "arms",
                "Against baselines",
                (
                    Forest("arms", "IoU", "All on the same cases.", IOU, arms),
                    Forest("differences", "Differences", "", POINTS, differences, 0.0, "agent better on the left", "p"),
                ),
                cautions=(CAUTION,),
            ),
            Section("targets", "Targets", (Forest("iou-by-target", "IoU by target", "", IOU, targets),)),
            Section("steps", "Steps", (curve, reliability)),
            Section(
                "failures",
                "Failures",
                (
                    Gallery("gallery-regret", "Sorted by regret", "Largest loss first.", cards[:2]),
                    Gallery("gallery-lowest", "Sorted by IoU", "Least overlap first.", (unseen, *cards[::-1])),
                ),
            ),
            Section("all-figures", "Figures", (table,), "All of them.", (CAUTION,)),
            Section("appendix", "Record", (facts,)),
        ),
        pictures=pictures(),
    )


def write_run(folder: Path) -> Path:
    """A small run in its folder: a late stop, two misses, an absent target that was marked, an error, a lost row."""
    chest, lung = chest_image(), mini_mask("lung1_axial_024__left-lung")
    nuclei, nucleus = mini_image("dsb2018_000_000"), mini_mask("dsb2018_000_000__uppermost-nucleus")
    episode = click_episode(chest, lung, "Segment the left lung.", "left lung")
    kept = [step.mask for step in episode.steps if step.mask is not None]
    cases = [
        ("lung", "left lung", episode, decode_mask(kept[0]), chest),  # its first mask was the best one
        ("lung-good", "left lung", episode, lung, chest),
        ("nucleus", "uppermost nucleus", refine_episode(nuclei, nucleus), nucleus, nuclei),
        ("hostile", HOSTILE, hostile_episode(nuclei, nucleus), shifted(nucleus, -40), nuclei),
        ("nothing", "left kidney", episode, None, chest),
        ("refused", "left kidney", absent_episode(chest), None, chest),
        ("failed", "brain tumor", failed_episode(nuclei, nucleus), nucleus, nuclei),
    ]
    facts = {
        "policy": "sample",
        "segmenter": "fake",
        "max_steps": 8,
        "num_rows": len(cases) + 1,
        "cases": "cases.jsonl",
    }
    with RunFolder.open(folder, facts, environment={"python": "3", "git": {"commit": "c0ffee", "dirty": True}}) as run:
        for position, (name, target, played, mask, image) in enumerate(cases):
            result = CaseResult(
                case_id=name,
                group="sample",
                target=target,
                modality="CT" if image is chest else "Fluorescence microscopy",
                absent=mask is None,
                instruction=played.instruction,
                episode=played,
                error=played.error or "",
                line=position + 1,
                patient="sample",
                image=f"{name}.png",
                target_mask=None if mask is None else encode_mask(mask),
            )
            run.append(position, scored(result), image.pixels)
        lost = CaseResult("lost", "sample", "liver", absent=False, error="the image lost.png is missing", line=8)
        run.append(len(cases), lost)
        run.finish(summarise(run.results(), max_steps=8))
    return folder
