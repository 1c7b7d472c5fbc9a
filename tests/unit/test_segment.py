from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import ibisagent
from ibisagent.api import as_image, as_mask, resolve_policy
from ibisagent.config import RolloutConfig
from ibisagent.episode import Outcome
from ibisagent.errors import InputError
from ibisagent.metrics import iou
from ibisagent.policies.scripted import ScriptedPolicy
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.types import Image

CLICK = "<think>t</think><action>Positive Point (0.6328, 0.4271)</action>"
FOUND = "<think>t</think><action>Terminate</action><answer>Found: it</answer>"


def test_three_lines(disc_image: Image, tmp_path: Path, disc_target: NDArray[np.bool_]) -> None:
    script = tmp_path / "s.json"
    script.write_text(json.dumps([CLICK, FOUND]))
    result = ibisagent.segment(
        disc_image.pixels, "Segment the disc.", policy=f"scripted:{script}", segmenter="rules", device="cpu"
    )
    assert result.outcome is Outcome.DONE and result.answer == "it" and result.episode.num_steps == 1
    assert result.mask is not None and iou(result.mask, disc_target) > 0.8
    assert result.image.sha256 == disc_image.sha256 == result.episode.image.sha256


def test_from_files(disc_image: Image, disc_target: NDArray[np.bool_], tmp_path: Path) -> None:
    from PIL import Image as Pil

    Pil.fromarray(disc_image.pixels[..., 0]).save(tmp_path / "a.png")
    Pil.fromarray(disc_target.astype(np.uint8) * 255).save(tmp_path / "m.png")
    result = ibisagent.segment(
        tmp_path / "a.png", "Check it.", mask=str(tmp_path / "m.png"), policy=ScriptedPolicy([FOUND]), segmenter="rules"
    )
    assert result.mask is not None and np.array_equal(result.mask, disc_target)
    assert result.episode.image.source == "a.png" and result.episode.initial_mask is not None


def test_oracle_sees_the_target_and_no_other_may(disc_image: Image, disc_target: NDArray[np.bool_]) -> None:
    result = ibisagent.segment(
        disc_image, "Segment.", policy="oracle", segmenter="rules", target=disc_target, stop_iou=0.8, target_name="disc"
    )
    assert result.outcome is Outcome.DONE and result.answer == "the disc is outlined"
    absent = ibisagent.segment(
        disc_image, "Segment.", policy="oracle", segmenter="rules", target=np.zeros_like(disc_target)
    )
    assert absent.outcome is Outcome.ABSENT and absent.mask is not None and not absent.mask.any()
    with pytest.raises(InputError, match="oracle"):
        ibisagent.segment(disc_image, "x", policy=ScriptedPolicy([]), segmenter="rules", target=disc_target)
    with pytest.raises(InputError, match="--target"):
        ibisagent.segment(disc_image, "x", policy="oracle", segmenter="rules")


def test_a_failing_policy_is_an_outcome(disc_image: Image) -> None:
    result = ibisagent.segment(disc_image, "x", policy=ScriptedPolicy([]), segmenter=RulesSegmenter())
    assert result.outcome is Outcome.ERROR and result.mask is None and result.episode.error


def test_config_sets_all_budgets(disc_image: Image) -> None:
    result = ibisagent.segment(
        disc_image, "x", policy=ScriptedPolicy([CLICK]), segmenter="rules", config=RolloutConfig(max_steps=1, seed=5)
    )
    assert result.outcome is Outcome.OUT_OF_STEPS and result.episode.seed == 5


@pytest.mark.parametrize(
    "arguments",
    [
        {"instruction": " "},
        {"max_steps": 0},
        {"seed": -1},
        {"policy": "none"},
        {"segmenter": "none"},
        {"mask": np.zeros((3, 3), bool)},
        {"mask": np.zeros((48, 64), np.float32)},
        {"image": np.zeros((3, 3), np.float32)},
        {"image": np.zeros((3, 3, 4), np.uint8)},
        {"image": np.zeros((0, 3), np.uint8)},
        {"image": "/no/such/file.png"},
    ],
)
def test_bad_input(disc_image: Image, arguments: dict[str, object]) -> None:
    given = {"image": disc_image, "instruction": "x", "policy": ScriptedPolicy([FOUND]), "segmenter": "rules"}
    with pytest.raises(InputError):
        ibisagent.segment(**{**given, **arguments})  # type: ignore[arg-type]


def test_arrays(disc_image: Image) -> None:
    gray = disc_image.pixels[..., 0]
    assert as_image(gray).sha256 == disc_image.sha256
    assert as_image(disc_image) is disc_image
    for mask in (gray > 99, (gray > 99).astype(np.uint8) * 255, (gray > 99).astype(int)):
        assert np.array_equal(as_mask(mask, disc_image), gray > 99)


def test_policies_are_given_only_what_they_know(tmp_path: Path) -> None:
    script = tmp_path / "s.txt"
    script.write_text(CLICK)
    policy = resolve_policy(
        f"scripted:{script}", device="cuda", system_prompt="x", base_url="http://x", targets={}, dialect="ibis-paper"
    )
    assert policy.dialect.name == "ibis-paper"


def test_import_is_light_and_fast() -> None:
    code = (
        "import time; t = time.perf_counter(); import ibisagent, sys; t = time.perf_counter() - t;"
        "print(t, sorted({'torch', 'transformers', 'cv2', 'numpy', 'pydantic'} & set(sys.modules)))"
    )
    outs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(" ", 1)
        for _ in range(3)
    ]
    assert all(modules.strip() == "[]" for _, modules in outs)
    assert min(float(seconds) for seconds, _ in outs) < 0.3


def test_module_attributes() -> None:
    assert ibisagent.__version__ and set(dir(ibisagent)) >= {"segment", "Segmentation"}
    with pytest.raises(AttributeError):
        _ = ibisagent.nothing


@pytest.fixture
def ct_slice(tmp_path: Path) -> Path:
    import nibabel

    values = np.linspace(-1000, 1500, 16 * 16).reshape(16, 16, 1).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), tmp_path / "ct.nii.gz")
    return tmp_path / "ct.nii.gz"


def test_ct_is_shown_in_the_window_of_what_is_asked_for_or_that_the_policy_wants(ct_slice: Path) -> None:
    def shown(instruction: str, **options: object) -> str:
        policy = ScriptedPolicy([CLICK, FOUND])
        policy.windows = options.pop("windows", None)  # type: ignore[attr-defined]
        result = ibisagent.segment(ct_slice, instruction, policy=policy, segmenter=RulesSegmenter(), **options)
        record = result.episode.image.window
        assert record is not None and record.window() == result.image.window
        return record.name

    assert shown("Segment the left lung.") == "guessed CT: lung (target)"
    assert shown("Segment the lesion.", modality="CT") == "soft tissue"
    assert shown("Segment the left lung.", modality="CT", window="bone", windows="brain") == "bone"
    three = "lung+soft-tissue+bone"
    assert shown("Segment the left lung.", modality="CT", windows=three) == "lung + soft tissue + bone"
    assert shown("Segment the left lung.", modality="MRI", windows=three) == "percentile 0.5-99.5"
    with pytest.raises(InputError, match="the policy wants CT otherwise than there is: window 'liver' is unknown"):
        shown("Segment the left lung.", modality="CT", windows="liver")
