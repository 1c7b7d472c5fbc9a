"""Areas and last values, on episodes that were made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ibisagent.config import RolloutConfig
from ibisagent.environment import SegmentationEnv
from ibisagent.evaluate.protocols.cvpr25 import Cvpr25Protocol
from ibisagent.evaluate.result import CaseResult
from ibisagent.geometry import Geometry
from ibisagent.metrics import dice, nsd
from ibisagent.registry import make_policy
from ibisagent.rle import encode_mask
from ibisagent.rollout import run_episode
from ibisagent.segmenters.protocol import Capabilities
from ibisagent.types import Case, Image, Prediction

TARGET = np.zeros((30, 40), bool)
TARGET[5:25, 8:32] = True


def square(rows: int) -> np.ndarray:
    mask = np.zeros_like(TARGET)
    mask[5 : 5 + rows, 8:32] = True
    return mask


class Given:
    """Segmenter that answers with the masks it was given, one after the other."""

    name = "given"
    weights_sha256 = None
    capabilities = Capabilities(True, True, True, False)

    def __init__(self, masks: Sequence[np.ndarray]) -> None:
        self.masks = list(masks)

    def encode(self, image: Image) -> None:
        return None

    def predict(self, embedding: None, prompts: Sequence[object]) -> list[Prediction]:
        return [Prediction(self.masks.pop(0)) for _ in prompts]


def played(
    masks: Sequence[np.ndarray], spacing: tuple[float, float] | None = (1.0, 0.5), box: str = "always"
) -> CaseResult:
    protocol = Cvpr25Protocol({"box": box})
    image = Image(np.zeros((30, 40, 3), np.uint8), Geometry.plane_2d())
    case = Case(image, "x", case_id="a", target="liver")
    episode = run_episode(
        case, make_policy(protocol.policy, targets={"a": TARGET}), Given(masks), protocol.config(RolloutConfig())
    )
    facts = {"target": "liver", "absent": False, "image": "i", "spacing_mm": spacing, "error": episode.error or ""}
    return CaseResult("a", episode=episode, target_mask=encode_mask(TARGET), **facts)


def test_areas_leave_the_box_out() -> None:
    masks = [square(n) for n in (2, 6, 10, 14, 16, 18)]  # after the box, after five clicks
    found = Cvpr25Protocol().case_figures(played(masks))
    dices = [dice(mask, TARGET) for mask in masks]
    nsds = [nsd(mask, TARGET, 2.0, (1.0, 0.5)) for mask in masks]
    assert found["cvpr25_dice_auc"][0] == pytest.approx(np.trapezoid(dices[1:]))
    assert found["cvpr25_nsd_auc"][0] == pytest.approx(np.trapezoid(nsds[1:]))
    assert found["cvpr25_dice_final"][0] == dices[-1] and found["cvpr25_nsd_final"][0] == nsds[-1]
    assert found["cvpr25_dice_box"][0] == dices[0] < 0.2 and found["cvpr25_nsd_box"][0] == 0.0 < nsds[0]


def test_a_perfect_mask_keeps_its_values_and_has_the_best_area() -> None:
    result = played([TARGET])
    assert result.episode is not None and result.episode.num_steps == 1
    found = Cvpr25Protocol().case_figures(result)
    assert found["cvpr25_dice_auc"] == (4.0, 1.0) and found["cvpr25_nsd_auc"] == (4.0, 1.0)
    assert found["cvpr25_dice_final"] == found["cvpr25_dice_box"] == (1.0, 1.0)


def test_without_a_box_or_spacing() -> None:
    result = played([square(n) for n in (6, 10, 14, 16, 18)], None, "never")
    found = Cvpr25Protocol({"box": "never"}).case_figures(result)
    assert set(found) == {"cvpr25_dice_auc", "cvpr25_dice_final"}


def test_errors_are_zero_and_absent_targets_no_part() -> None:
    failed = played([square(3)])  # the second call fails: no mask is left
    assert failed.error
    found = Cvpr25Protocol().case_figures(failed)
    assert found["cvpr25_dice_auc"] == (0.0, 1.0) == found["cvpr25_nsd_final"]
    assert found["cvpr25_dice_box"] == (0.0, 1.0) == found["cvpr25_nsd_box"]
    unread = CaseResult("b", target="liver", absent=False, error="no such file")
    found = Cvpr25Protocol().case_figures(unread)
    assert found["cvpr25_dice_final"] == (0.0, 1.0) == found["cvpr25_dice_box"]
    assert "cvpr25_dice_box" not in Cvpr25Protocol().case_figures(replace(unread, target="portal vein"))
    overall = Cvpr25Protocol().summarise([played([TARGET]), unread])["overall"]
    assert overall["cvpr25_dice_box"]["value"] == 0.5
    assert "cvpr25_dice_box" not in Cvpr25Protocol().summarise([unread])["overall"], "it may take no boxes at all"
    assert Cvpr25Protocol().case_figures(replace(unread, absent=True)) == {}


def test_means_are_over_images_of_their_targets() -> None:
    perfect, poor = played([TARGET]), played([square(2)] * 6)
    results = [
        replace(perfect, case_id="a", image="one"),
        replace(poor, case_id="b", image="two", target="spleen"),
        replace(poor, case_id="c", image="two", target="kidney"),
        replace(poor, case_id="d", image="two", target="gone", absent=True),
    ]
    protocol = Cvpr25Protocol()
    assert list(protocol.weights(results[:3])) == [1.0, 0.5, 0.5]
    overall = protocol.summarise(results)["overall"]
    value = overall["cvpr25_dice_final"]["value"]
    low, high = overall["cvpr25_dice_auc"]["ci95"]  # of two images, and yet not wider than the area can be
    assert low == 0.0 and high == 4.0
    assert value == pytest.approx((1.0 + dice(square(2), TARGET)) / 2)


def test_weights_are_those_of_the_part() -> None:
    perfect, poor = played([TARGET]), played([square(2)] * 6)
    results = [
        replace(perfect, case_id="a", image="one"),
        replace(poor, case_id="b", image="two"),
        replace(poor, case_id="c", image="two", target="spleen"),
        replace(poor, case_id="d", image="two", target="hepatic vein"),
    ]
    table = Cvpr25Protocol().summarise(results)
    mean = (1.0 + dice(square(2), TARGET)) / 2
    assert table["by_target"]["liver"]["cvpr25_dice_final"]["value"] == pytest.approx(mean), "each of one image"
    # Of the second image two targets have a box: the image still counts once.
    assert table["overall"]["cvpr25_dice_box"]["value"] == pytest.approx(mean)


def test_boxes_are_left_out_for_vessels_by_name() -> None:
    image = Image(np.zeros((30, 40, 3), np.uint8), Geometry.plane_2d())
    for option, target, boxed in (
        ("auto", "liver", True),
        ("auto", "Hepatic vessels", False),
        ("auto", "left pulmonary artery", False),
        ("always", "vessels", True),
        ("never", "liver", False),
    ):
        policy = make_policy(Cvpr25Protocol({"box": option}).policy, targets={"a": TARGET})
        view = SegmentationEnv(Given([])).reset(Case(image, "x", case_id="a", target=target))
        assert (policy.turn(view).action.kind == "box") == boxed, (option, target)
