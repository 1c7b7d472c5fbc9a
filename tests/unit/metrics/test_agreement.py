"""Our numbers equal those of MONAI, surface-distance and medpy, where their conventions agree with ours."""

from __future__ import annotations

import importlib.util
import math
import warnings
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from numpy.typing import NDArray

from ibisagent.metrics import SurfaceDistances, dice, nsd
from ibisagent.metrics.elements import _surfaces

ROOT = Path(__file__).resolve().parents[3]
PAIRS = 30  # benchmarks/metrics.py takes 500, and so does the slow test


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("metrics_benchmark", ROOT / "benchmarks" / "metrics.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def balls() -> tuple[NDArray[np.bool_], NDArray[np.bool_], tuple[float, float, float]]:
    """Balls of 20 and 19 mm, their centres 2 and 3 mm apart along two axes, in slices of 3 mm."""
    spacing = (3.0, 1.0, 1.0)

    def ball(centre: tuple[int, int, int], radius: float) -> NDArray[np.bool_]:
        grid = np.ogrid[:17, :56, :56]
        return sum(((g - c) * s) ** 2 for g, c, s in zip(grid, centre, spacing, strict=True)) <= radius**2

    return ball((8, 27, 27), 20), ball((8, 29, 30), 19), spacing


def test_two_balls() -> None:
    """One pair, three conventions: the numbers that other libraries give for it, to the digits they are quoted in."""
    a, b, spacing = balls()
    surfels = SurfaceDistances.between(a, b, spacing)
    voxels = SurfaceDistances.between(a, b, spacing, elements="voxels")
    assert round(dice(a, b), 4) == 0.8516
    assert surfels.hd95() == 4.0  # surface-distance
    assert voxels.hd95("pooled") == 4.0  # medpy
    assert round(voxels.hd95(), 3) == 4.123  # MONAI
    assert round(surfels.nsd(1.0), 4) == 0.5290  # surface-distance, MONAI with use_subvoxels
    assert round(voxels.nsd(1.0), 4) == 0.4938  # MONAI


def test_libraries_say_the_same_of_two_balls(bench: ModuleType) -> None:
    pairs = bench.numbers(*balls(), 1.0)
    assert len(pairs) == 20
    for name, (ours, theirs) in pairs.items():
        assert ours == pytest.approx(theirs, rel=1e-6), name
    quoted = {"monai hd95": 4.1231, "monai nsd": 0.4938, "surface-distance hd95": 4.0, "surface-distance nsd": 0.529}
    for name, value in quoted.items():
        assert round(pairs[name][1], 4) == value, name


def check(worst: dict[str, float], bench: ModuleType) -> None:
    # MONAI's HD95 loses digits where it interpolates between two distances in single precision.
    assert worst.pop(bench.RELEASED) <= 1e-4
    assert max(worst.values()) <= 1e-6, worst


def test_random_pairs(bench: ModuleType) -> None:
    worst = bench.largest_differences(PAIRS, seed=1)
    assert len(worst) == 20
    check(worst, bench)


@pytest.mark.slow
def test_five_hundred_random_pairs(bench: ModuleType) -> None:
    check(bench.largest_differences(500), bench)


def test_random_pairs_are_of_all_kinds(bench: ModuleType) -> None:
    pairs = list(bench.random_pairs(60, seed=2))
    assert {a.ndim for a, _, _ in pairs} == {2, 3}
    assert all(a.any() and b.any() and len(set(spacing)) == a.ndim for a, b, spacing in pairs)
    overlaps = [dice(a, b) for a, b, _ in pairs]
    assert min(overlaps) < 0.1 and max(overlaps) > 0.9


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.7, 1.3)])
def test_surfaces_of_all_neighbourhoods(spacing: tuple[float, float, float]) -> None:
    from surface_distance import lookup_tables

    areas = lookup_tables.create_table_neighbour_code_to_surface_area(spacing)
    assert np.abs(_surfaces(spacing) - areas).max() < 1e-12
    lengths = lookup_tables.create_table_neighbour_code_to_contour_length(spacing[:2])
    assert np.abs(_surfaces(spacing[:2]) - lengths).max() < 1e-12


def test_what_libraries_say_of_empty_masks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where ours differ on purpose: this pins the table in docs/evaluation."""
    import surface_distance as deepmind
    import torch
    from medpy.metric import binary as medpy
    from monai import metrics as monai

    empty, some = np.zeros((6, 6), bool), np.zeros((6, 6), bool)
    some[2:4, 2:4] = True
    with pytest.raises(RuntimeError):
        medpy.hd95(empty, some)
    with pytest.raises(AttributeError, match="Inf"):  # the release of 2024 uses names that NumPy 2 dropped
        deepmind.compute_surface_distances(empty, some, (1, 1))
    monkeypatch.setattr(np, "Inf", np.inf, raising=False)
    monkeypatch.setattr(np, "NaN", np.nan, raising=False)

    def theirs(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> list[float]:
        p, t = torch.from_numpy(a)[None, None], torch.from_numpy(b)[None, None]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dm = deepmind.compute_surface_distances(b, a, (1, 1))
            return [
                deepmind.compute_surface_dice_at_tolerance(dm, 1.0),
                deepmind.compute_robust_hausdorff(dm, 95),
                monai.compute_surface_dice(p, t, [1.0], include_background=True).item(),
                monai.compute_dice(p, t, include_background=True).item(),
                monai.compute_hausdorff_distance(p, t, include_background=True, percentile=95).item(),
                deepmind.compute_dice_coefficient(b, a),
                medpy.dc(a, b),
            ]

    nan, inf = math.nan, math.inf
    for pair, expected in {
        (0, 0): [nan, inf, nan, nan, nan, nan, nan],
        (0, 1): [0.0, inf, 0.0, 0.0, nan, 0.0, 0.0],
        (1, 0): [0.0, inf, 0.0, nan, nan, 0.0, 0.0],  # MONAI leaves the case out of its mean Dice
    }.items():
        a, b = ((empty, some)[which] for which in pair)
        assert theirs(a, b) == pytest.approx(expected, nan_ok=True)
        assert nsd(a, b, 1.0) == dice(a, b) == float(pair == (0, 0))
