"""A CT is shown for what is asked for, or as the policy wants it, in runs on whole volumes and on single slices."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from ibisagent.batch.slices import read_slice
from ibisagent.config import RolloutConfig
from ibisagent.io.studies import open_volume
from ibisagent.policies.scripted import ScriptedPolicy
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.volume.config import VolumeConfig
from ibisagent.volume.segment import segment_volume

CLICK = "<think>t</think><action>Positive Point (0.5000, 0.5000)</action>"
FOUND = "<think>t</think><action>Terminate</action><answer>Found: it</answer>"
THREE = "lung+soft-tissue+bone"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    values = np.full((16, 16, 3), -1000, np.int16)
    values[4:12, 4:12] = 300
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


@pytest.mark.parametrize(
    "windows, option, name",
    [
        (None, None, "lung (target)"),
        (THREE, None, "lung + soft tissue + bone"),
        (THREE, "brain", "brain"),
    ],
)
def test_whole_volumes(study: Path, windows: str | None, option: str | None, name: str) -> None:
    policy = ScriptedPolicy([CLICK, FOUND] * 6)
    policy.windows = windows  # type: ignore[attr-defined]
    config = VolumeConfig(scan_slices=1, max_revisits=0, rollout=RolloutConfig(max_steps=2))
    result = segment_volume(
        study, "the left lung", policy=policy, segmenter=RulesSegmenter(), window=option, modality="CT", config=config
    )
    assert result.window.name == name == result.record.study.window.name
    assert len(result.window.channels) == len(result.record.study.window.channels) == (3 if "+" in name else 0)
    played = [visit.episode for visit in result.record.visits if visit.episode is not None]
    assert played and all(episode.image.window == result.record.study.window for episode in played)


def test_single_slices(study: Path) -> None:
    volume = open_volume(study, modality="CT")
    for source in (None, volume):
        image = read_slice(study, source, "axial:1", None, "CT", "the left lung")
        assert image.window is not None and image.window.name == "lung (target)"
        image = read_slice(study, source, "axial:1", None, "CT", "the left lung", preferred_window=THREE)
        assert image.window is not None and len(image.window.channels) == 3 and not image.is_gray
