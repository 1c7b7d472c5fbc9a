"""Brain MRI: axial, coronal and sagittal layouts, several weightings, with or without the skull.

The cortex is folded by construction: sulci are random branched lines that run inward from the surface, and
gray matter is whatever lies within a cortex's thickness of a sulcus or of the surface (an exact distance
transform); the rest is white matter. Ventricles, deep gray nuclei, cerebellum and brain stem are laid over it.

Names are those of ``data/mini``. One difference, on purpose: here ``cerebrospinal fluid`` is *all* fluid that
was drawn (wide sulci, fissures, ventricles), while mini's derived labels leave out the ventricles; those
are also given alone, as ``ventricles``. ``gray matter``, ``white matter`` and ``cerebrospinal fluid``
are left out where the weighting does not show them (below twice the noise or 14 gray levels).
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.draw import Warp, blob, blur, ellipse, fill, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_brain_mri"]

_AIR, _CSF, _GM, _WM, _VENTRICLE, _SKULL, _SCALP, _FACE, _STEM, _TUMOR, _RIM = range(11)

# Weighting: gray levels of (CSF, GM, WM, skull, scalp, face, tumour core, tumour rim)
_LOOKS: dict[str, tuple[float, ...]] = {
    "t1": (70, 165, 225, 45, 225, 120, 75, 110),
    "t1_contrast": (38, 70, 82, 28, 190, 95, 85, 165),
    "t2": (235, 150, 95, 30, 110, 110, 215, 185),
    "flair": (30, 130, 105, 30, 150, 95, 180, 215),
    "pd": (190, 175, 145, 40, 170, 120, 215, 200),
}

# canonical outlines in [-1, 1], x right, y down
_SAGITTAL = np.array(
    [(-0.96, 0.05), (-0.90, -0.28), (-0.68, -0.58), (-0.32, -0.76), (0.08, -0.80), (0.48, -0.68), (0.80, -0.40)]
    + [
        (0.95, -0.05),
        (0.92, 0.22),
        (0.72, 0.33),
        (0.42, 0.34),
        (0.16, 0.30),
        (-0.15, 0.34),
        (-0.50, 0.42),
        (-0.82, 0.36),
    ]
)
_CORONAL = np.array(
    [(0.0, -0.80), (0.22, -0.86), (0.52, -0.74), (0.78, -0.46), (0.90, -0.10), (0.86, 0.22), (0.72, 0.50)]
    + [(0.52, 0.66), (0.32, 0.58), (0.16, 0.46), (0.0, 0.42)]
)


def paint_brain_mri(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one slice; half of them skull-stripped on black, as the template in ``data/mini`` is."""
    view = str(rng.choice(["axial", "coronal", "sagittal"], p=[0.5, 0.28, 0.22]))
    stripped = rng.random() < 0.5
    look = str(
        rng.choice(list(_LOOKS), p=[0.62, 0.08, 0.14, 0.08, 0.08] if stripped else [0.3, 0.35, 0.15, 0.12, 0.08])
    )
    sick = rng.random() < (0.15 if stripped else 0.45)
    half = rng.uniform(0.34, 0.45) if stripped else rng.uniform(0.34, 0.40)
    if stripped and rng.random() < 0.15:
        half *= rng.uniform(0.4, 0.8)  # a slice near the vertex: small and all folds
    wide = half * (rng.uniform(0.74, 0.86) if view == "axial" else rng.uniform(0.92, 1.02))
    shift = (0.5 + rng.normal(0, 0.02), 0.5 + rng.normal(0, 0.025) - (0.04 if view == "sagittal" else 0.0))
    warp = Warp(rng, rng.uniform(0.008, 0.025), (wide, half), rng.normal(0, 0.05), shift)

    lab = np.zeros((size, size), np.uint8)
    if not stripped:
        _paint_head(rng, lab, warp, view)
    outline = _outlines(rng, view)
    hull = np.zeros((size, size), np.uint8)
    for part in outline:
        fill(hull, warp(part), 1)
    folds = _paint_cortex(rng, lab, hull, warp, view, outline)
    brain = hull > 0
    below = _paint_below(rng, lab, warp, view)
    brain |= below
    _paint_centre(rng, lab, warp, view, brain)
    sick = sick and _paint_tumor(rng, lab, brain)
    return _expose(rng, lab, folds & (lab == _GM), brain, look, view, sick)


def _outlines(rng: np.random.Generator, view: str) -> list[NDArray[np.float64]]:
    """Canonical outline of the cerebrum."""
    jitter = rng.uniform(0.005, 0.02)
    if view == "sagittal":
        flip = -1.0 if rng.random() < 0.4 else 1.0  # most sources look to the image's right, some to its left
        points = _SAGITTAL + rng.normal(0, jitter, _SAGITTAL.shape)
        return [spline(points) * (flip, 1.0)]
    if view == "coronal":
        points = _CORONAL + rng.normal(0, jitter, _CORONAL.shape)
        mirrored = points[1:-1][::-1] * (-1.0, 1.0) + rng.normal(0, jitter / 2, (len(points) - 2, 2))
        return [spline(np.concatenate([points, mirrored]))]
    t = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    egg = 1.0 + rng.uniform(0.03, 0.12) * np.sin(t)  # wider towards the back (image bottom)
    notch = (
        1.0
        - 0.05 * np.exp(-((np.sin(t / 2 - np.pi / 4) / 0.05) ** 2))
        - 0.05 * np.exp(-((np.cos(t / 2 - np.pi / 4) / 0.05) ** 2))
    )
    return [np.stack([np.cos(t) * egg * 0.97, np.sin(t) * notch * 0.98], 1)]


def _paint_head(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, view: str) -> None:
    """Scalp, skull, and for views that cut it, the face and neck."""
    k = rng.uniform(1.12, 1.20)
    if view == "sagittal":
        # which way it looks is drawn later; a symmetric neck and lower face serve both
        fill(lab, warp(blob(rng, 0.0, 0.75, 0.75, 0.8, rough=0.06)), _FACE)
        head = ellipse(0.0, -0.06, 1.06, 0.90, n=72, power=2.2)
    elif view == "coronal":
        fill(lab, warp(blob(rng, 0.0, 0.85, 0.70, 0.7, rough=0.06)), _FACE)
        head = ellipse(0.0, -0.10, 0.98, 0.90, n=72, power=2.3)
    else:
        head = ellipse(0.0, 0.0, 1.03, 1.0, n=72, power=2.15)
    centre = head.mean(0)
    thick = rng.uniform(0.45, 0.8)
    lift = 1.0 + rng.normal(0, 0.004, (len(head), 1))
    fill(lab, warp(centre + (head - centre) * k * lift), _SCALP)
    fill(lab, warp(centre + (head - centre) * (1.0 + (k - 1.0) * (1.0 - thick * 0.5))), _SKULL)
    # marrow: bright line inside the skull
    if rng.random() < 0.5:
        stroke(lab, warp(centre + (head - centre) * (1.0 + (k - 1.0) * 0.5)), _FACE, 0.006, closed=True)
    fill(lab, warp(centre + (head - centre) * rng.uniform(1.02, 1.06)), _CSF)


def _paint_cortex(
    rng: np.random.Generator,
    lab: NDArray[np.uint8],
    hull: NDArray[np.uint8],
    warp: Warp,
    view: str,
    outlines: list[NDArray[np.float64]],
) -> NDArray[np.bool_]:
    """Sulci, then gray matter near them, then white matter.

    Only wide sulci are labelled fluid. Narrow ones are where two banks of cortex meet: gray matter,
    as in mini's labels, and drawn a little towards the fluid; those are returned.
    """
    size = lab.shape[0]
    px = size / 256.0
    sulci = np.zeros((size, size), np.uint8)
    narrow = np.zeros((size, size), np.uint8)
    wide = rng.uniform(0.002, 0.008)
    depth_scale = rng.uniform(0.7, 1.2)
    for outline in outlines:
        centre = np.array([0.0, 0.08 if view == "sagittal" else 0.0])
        count = int(rng.integers(28, 50))
        starts = (np.arange(count) + rng.uniform(-0.35, 0.35, count)) / count * len(outline)
        for s in starts:
            p = outline[int(s) % len(outline)]
            inward = centre - p
            far = float(np.hypot(*inward))
            inward = inward / far
            across = np.array([-inward[1], inward[0]])
            depth = min(rng.choice([rng.uniform(0.08, 0.2), rng.uniform(0.2, 0.42)]) * depth_scale, 0.6 * far)
            steps = np.linspace(-0.08, depth, 7)
            wander = np.cumsum(rng.normal(0, 0.035, 7))
            wander -= wander[0]
            line = p + np.outer(steps, inward) + np.outer(wander, across)
            width = wide * rng.uniform(0.3, 1.2)
            stroke(sulci if width > 1.5 / 256 else narrow, warp(line), 1, width)
            for _ in range(int(rng.integers(0, 3))):
                at = int(rng.integers(2, 7))
                side = rng.choice([-1.0, 1.0])
                reach = rng.uniform(0.04, 0.14) * depth_scale
                tip = line[at] + side * across * reach + inward * rng.normal(0.02, 0.03)
                stroke(narrow, warp(np.array([line[at], tip])), 1, 0.002)
    fissure = rng.uniform(0.002, 0.007)
    if view != "sagittal":
        x = rng.normal(0, 0.008, 12)
        top, bottom = (-1.05, -rng.uniform(0.28, 0.4)) if view == "axial" else (-1.0, -rng.uniform(0.25, 0.32))
        stroke(sulci, warp(np.stack([x, np.linspace(top, bottom, 12)], 1)), 1, fissure)
        if view == "axial":
            stroke(sulci, warp(np.stack([x, np.linspace(rng.uniform(0.35, 0.5), 1.05, 12)], 1)), 1, fissure)
        # the lateral fissures, deep and oblique, with the insula at their end
        for side in (-1, 1):
            y = rng.uniform(-0.12, 0.12)
            line = np.array([(side * 1.0, y + 0.08), (side * 0.75, y + 0.05), (side * 0.6, y), (side * 0.56, y - 0.18)])
            stroke(sulci, warp(spline(line, 4, closed=False)), 1, rng.uniform(0.003, 0.011))
    sulci &= hull
    narrow &= hull & (1 - sulci)
    inside = (hull > 0) & (sulci == 0)
    distance = cv2.distanceTransform((inside & (narrow == 0)).astype(np.uint8), cv2.DIST_L2, 3)
    thickness = rng.uniform(0.016, 0.024) * size * (1.0 + 0.25 * np.clip(smooth_field(rng, size, 12), -1.5, 1.5))
    gray = inside & (distance <= np.maximum(thickness, 1.5 * px))
    lab[hull > 0] = _CSF
    lab[inside] = _WM
    lab[gray] = _GM
    return (narrow > 0) & gray


def _paint_below(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, view: str) -> NDArray[np.bool_]:
    """Cerebellum and brain stem where the view shows them; the mask of both."""
    size = lab.shape[0]
    part = np.zeros((size, size), np.uint8)
    if view == "axial" or (view == "coronal" and rng.random() < 0.5):
        return part > 0
    if view == "coronal":
        lobes = [blob(rng, s * 0.36, 0.66, 0.38, 0.26, rough=0.04) for s in (-1, 1)]
        stem = ellipse(0.0, 0.72, 0.14, 0.34)
    else:
        lobes = [blob(rng, -0.42, 0.60, 0.34, 0.25, 0.2, rough=0.04)]
        stem = spline(
            [
                (-0.06, 0.2),
                (0.12, 0.22),
                (0.16, 0.5),
                (0.02, 0.80),
                (-0.10, 1.1),
                (-0.22, 1.08),
                (-0.12, 0.7),
                (-0.10, 0.45),
            ]
        )
    for lobe in lobes:
        fill(part, warp(lobe), 1)
    new = (part > 0) & ((lab == _AIR) | (lab >= _SKULL) | (lab == _CSF))
    rim = cv2.distanceTransform((part > 0).astype(np.uint8), cv2.DIST_L2, 3)
    lab[new] = _GM
    # folia: white branches within gray
    tree = np.zeros_like(part)
    for lobe in lobes:
        c = lobe.mean(0)
        for p in lobe[:: int(rng.integers(3, 6))]:
            stroke(tree, warp(np.array([c, c + (p - c) * rng.uniform(0.6, 0.85)])), 1, rng.uniform(0.004, 0.010))
        fill(tree, warp(c + (lobe - c) * rng.uniform(0.2, 0.45)), 1)
    lab[(tree > 0) & new & (rim > 0.012 * size)] = _WM
    lab[new & (rim <= 1.0)] = _CSF
    below = new
    stalk = np.zeros_like(part)
    fill(stalk, warp(stem), 1)
    stalk_new = (stalk > 0) & ((lab != _GM) & (lab != _WM) | new)
    lab[stalk_new] = _STEM
    return below | stalk_new


def _paint_centre(
    rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, view: str, brain: NDArray[np.bool_]
) -> None:
    """Deep gray nuclei, callosum, ventricles; only inside the brain."""
    layer = np.zeros_like(lab)
    big = float(np.exp(rng.normal(0.0, 0.3)))
    if view == "axial":
        core = blob(rng, 0.0, 0.02, 0.42, 0.46, rough=0.04)
        fill(layer, warp(core), _WM)
        if rng.random() < 0.7:
            for s in (-1, 1):
                fill(layer, warp(blob(rng, s * 0.16, 0.10, 0.11, 0.15, -s * 0.4, 0.05)), _GM)  # thalamus
                fill(layer, warp(blob(rng, s * 0.35, -0.04, 0.09, 0.20, s * 0.25, 0.06)), _GM)  # putamen
                fill(layer, warp(blob(rng, s * 0.16, -0.24, 0.06, 0.10, 0.0, 0.06)), _GM)  # caudate
        if rng.random() < 0.85:
            gap = rng.uniform(0.03, 0.06)
            w = rng.uniform(0.035, 0.075) * big
            for s in (-1, 1):
                front = [
                    (s * gap, -0.1),
                    (s * (gap + 0.02), -0.25),
                    (s * (gap + 0.16), -0.40),
                    (s * (gap + 0.14 + w), -0.32),
                ]
                back = [(s * (gap + 0.05 + w), -0.1), (s * (gap + 0.05), 0.05)]
                if rng.random() < 0.8:
                    back = [
                        (s * (gap + 0.04 + w), -0.12),
                        (s * (gap + 0.10 + w), 0.16),
                        (s * (0.26 + w), 0.42),
                        (s * 0.24, 0.44),
                    ]
                    back += [(s * (gap + 0.07), 0.18)]
                points = np.array(front + back) + rng.normal(0, 0.008, (len(front + back), 2))
                fill(layer, warp(spline(points)), _VENTRICLE)
            if rng.random() < 0.6:
                fill(layer, warp(ellipse(0.0, 0.12, rng.uniform(0.012, 0.03) * big, 0.1)), _VENTRICLE)
    elif view == "coronal":
        fill(layer, warp(blob(rng, 0.0, -0.02, 0.44, 0.26, rough=0.04)), _WM)
        for s in (-1, 1):
            fill(layer, warp(blob(rng, s * 0.14, 0.12, 0.12, 0.12, rough=0.06)), _GM)
            fill(layer, warp(blob(rng, s * 0.36, 0.04, 0.08, 0.14, s * 0.2, 0.06)), _GM)
            w = rng.uniform(0.8, 1.3) * big
            top = -0.14
            horn = [
                (s * 0.02, top),
                (s * (0.04 + 0.22 * w), top - 0.08),
                (s * (0.05 + 0.20 * w), top + 0.02),
                (s * 0.05, top + 0.07 * w),
            ]
            fill(layer, warp(spline(np.array(horn) + rng.normal(0, 0.006, (4, 2)))), _VENTRICLE)
        fill(layer, warp(ellipse(0.0, 0.14, rng.uniform(0.012, 0.03) * big, 0.09)), _VENTRICLE)
    else:
        if rng.random() < 0.45:  # beside the midline: deep white matter, putamen, a horn of the ventricle
            fill(layer, warp(blob(rng, 0.0, -0.02, 0.50, 0.26, rough=0.06)), _WM)
            fill(layer, warp(blob(rng, 0.05, 0.04, 0.20, 0.10, 0.1, 0.08)), _GM)
            if rng.random() < 0.7:
                fill(layer, warp(blob(rng, -0.25, 0.0, 0.16 * big, 0.04 * big, rng.normal(-0.3, 0.3), 0.1)), _VENTRICLE)
            put = (layer > 0) & brain & (lab != _STEM)
            lab[put] = layer[put]
            return
        # midline: white arch of the callosum over the ventricle, thalamus below
        t = np.linspace(np.pi * 1.08, np.pi * 1.98, 24)
        arch = np.stack([0.03 + 0.42 * np.cos(t), 0.02 + 0.27 * np.sin(t)], 1)
        fill(layer, warp(np.concatenate([arch, [(0.3, 0.1), (-0.3, 0.1)]])), _VENTRICLE)
        fill(layer, warp(blob(rng, -0.02, 0.06, 0.20, 0.15, rough=0.05)), _GM)
        side = np.stack([np.cos(t), np.sin(t)], 1)
        w = rng.uniform(0.04, 0.07)
        fill(layer, warp(np.concatenate([arch + side * w, (arch - side * w * 0.5)[::-1]])), _WM)
    put = (layer > 0) & brain & (lab != _STEM)
    lab[put] = layer[put]


def _paint_tumor(rng: np.random.Generator, lab: NDArray[np.uint8], brain: NDArray[np.bool_]) -> bool:
    """One lesion with an enhancing rim; False where the slice has no room."""
    size = lab.shape[0]
    depth = cv2.distanceTransform(brain.astype(np.uint8), cv2.DIST_L2, 3)
    ys, xs = np.nonzero(depth > 0.03 * size)
    if len(xs) < 0.03 * size * size:
        return False
    at = int(rng.integers(len(xs)))
    r = rng.uniform(0.018, 0.085)
    curve = blob(
        rng,
        xs[at] / size,
        ys[at] / size,
        r,
        r * rng.uniform(0.6, 1.0),
        rng.uniform(0, np.pi),
        rng.uniform(0.08, 0.2),
        harmonics=8,
    )
    one = np.zeros_like(lab)
    fill(one, curve, 1)
    one[~brain] = 0
    n, parts, stats, _ = cv2.connectedComponentsWithStats(one, connectivity=4)
    if n < 2:
        return False
    spot = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    lab[spot] = _RIM
    if rng.random() < 0.65:
        inner = cv2.distanceTransform(spot.astype(np.uint8), cv2.DIST_L2, 3)
        wall = rng.uniform(0.008, 0.016) * size * (1.0 + 0.5 * smooth_field(rng, size, 24))
        lab[spot & (inner > np.maximum(wall, 1.5))] = _TUMOR
    return True


def _expose(
    rng: np.random.Generator,
    lab: NDArray[np.uint8],
    folds: NDArray[np.bool_],
    brain: NDArray[np.bool_],
    look: str,
    view: str,
    sick: bool,
) -> Drawing:
    """Labels to gray by weighting; blur, bias field, Rician noise; and the masks that can be seen."""
    size = lab.shape[0]
    px = size / 256.0
    csf, gm, wm, skull, scalp, face, core, rim = np.array(_LOOKS[look]) * rng.normal(1.0, 0.05, 8)
    level = np.zeros(16)
    level[[_CSF, _GM, _WM, _VENTRICLE]] = csf, gm, wm, csf * rng.uniform(0.9, 1.05)
    level[[_SKULL, _SCALP, _FACE, _STEM, _TUMOR, _RIM]] = skull, scalp, face, 0.35 * gm + 0.65 * wm, core, rim
    gain = rng.uniform(0.75, 1.12)
    image = np.minimum(level * gain, 255.0)[lab].astype(np.float32)
    image[folds & (lab == _GM)] += rng.uniform(0.25, 0.6) * (csf - gm) * gain
    stripped = not (lab == _SCALP).any()
    if sick and rng.random() < 0.6 and look != "t1":
        # swelling: a soft halo in the white matter around the lesion
        halo = blur(((lab == _TUMOR) | (lab == _RIM)).astype(np.float32), rng.uniform(6, 14) * px)
        sign = 1.0 if look in ("t2", "flair", "pd") else -0.3
        image += np.where(lab == _WM, sign * 60.0 * np.minimum(halo * 2.0, 1.0), 0.0)
    texture = smooth_field(rng, size, size // 4)
    rough = np.array([0.02] * _SKULL + [0.10, 0.10, 0.10, 0.03, 0.08, 0.08] + [0.0] * 5, np.float32)
    image *= 1.0 + rough[lab] * texture
    image = blur(image, rng.uniform(0.5, 1.1) * px)
    if stripped:
        image[~brain] *= 0.25
    strength = 0.0 if stripped and rng.random() < 0.5 else rng.uniform(0.0, 0.14)
    image *= 1.0 + strength * np.clip(smooth_field(rng, size, 2), -2, 2)
    sigma = rng.uniform(0.5, 3.0) if stripped else rng.uniform(1.0, 6.0)
    clean = stripped and rng.random() < 0.7
    n1, n2 = noise(rng, size, sigma), noise(rng, size, sigma)
    noisy = np.sqrt((image + n1) ** 2 + n2**2)
    if clean:
        noisy[cv2.dilate(brain.astype(np.uint8), np.ones((3, 3), np.uint8)) == 0] = 0.0

    masks = {"brain": brain}
    visible = lambda a, b: abs(a - b) * gain >= max(14.0, 2.0 * sigma)  # noqa: E731
    gray, white = lab == _GM, lab == _WM
    fluid = (lab == _VENTRICLE) | (lab == _CSF)
    if visible(gm, wm):
        masks["gray matter"], masks["white matter"] = gray, white
    if visible(csf, gm) and visible(csf, wm):
        masks["cerebrospinal fluid"] = fluid
        masks["ventricles"] = lab == _VENTRICLE
    if sick:
        masks["brain tumor"] = (lab == _TUMOR) | (lab == _RIM)
    return Drawing(noisy, masks, view)
