"""Chest CT, axial: body, bones, lungs, heart, aorta, sometimes a tumour, arms, a table.

Canonical anatomy in [-1, 1] (x to the image's right, y down, body centre at the origin), bent by a random
smooth warp, painted back to front into a label image. Window -1000 to 400 HU as in ``data/mini``
(lung1): gray = (HU + 1000) * 255 / 1400. As there, lungs are filled (vessels and a tumour inside belong
to them), the airway does not belong to them, and the patient's left is on the image's right. Heart and aorta are
named only where their edge can be seen.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from ibisagent.phantoms.draw import Warp, blob, blur, ellipse, fill, main_pieces, noise, smooth_field, spline, stroke
from ibisagent.phantoms.phantom import Drawing

__all__ = ["paint_chest_ct"]

_AIR, _TABLE, _FAT, _MUSCLE, _LUNG_R, _LUNG_L, _SOFT, _HEART, _AORTA, _AIRWAY, _BONE, _TUMOR, _LIVER = range(13)

# patient's right lung, which is on the image's left; the other one mirrors it
_LUNG = np.array(
    [(-0.09, -0.36), (-0.22, -0.47), (-0.40, -0.48), (-0.57, -0.38), (-0.68, -0.15), (-0.70, 0.10), (-0.62, 0.33)]
    + [(-0.46, 0.46), (-0.27, 0.44), (-0.15, 0.33), (-0.11, 0.18), (-0.08, -0.05)]
)


def _gray(hu: float) -> float:
    return (hu + 1000.0) * 255.0 / 1400.0


def paint_chest_ct(rng: np.random.Generator, size: int) -> Drawing:
    """Draw one axial slice somewhere between the dome of the liver and the apex of the lungs."""
    z = float(rng.random())
    width = rng.uniform(0.42, 0.54)
    if rng.random() < 0.15:
        width *= rng.uniform(1.05, 1.2)  # cut by the field of view, as shoulders often are
    shift = (0.5 + rng.normal(0, 0.02), 0.5 + rng.uniform(-0.06, 0.14))
    warp = Warp(rng, rng.uniform(0.01, 0.03), (width, width * rng.uniform(0.9, 1.12)), rng.normal(0, 0.05), shift)
    lab = np.zeros((size, size), np.uint8)
    _paint_outside(rng, lab, warp)
    body = _paint_body(rng, lab, warp, z)
    outside = lab[~body]
    cage = _paint_inside(rng, lab, warp, z)
    _paint_bones(rng, lab, warp, z, cage)
    lab[~body] = outside  # whatever a strong warp pushed through the skin
    has_tumor = rng.random() < 0.4 and _paint_tumor(rng, lab)
    hu = _tissues(rng)
    image = _expose(rng, lab, hu)

    right = main_pieces(lab == _LUNG_R)
    left = main_pieces(lab == _LUNG_L)
    tumor = lab == _TUMOR
    if has_tumor:
        near = cv2.dilate(tumor.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        if (near & right).sum() >= (near & left).sum():
            right |= tumor
        else:
            left |= tumor
    masks = {"body": body, "bone": lab == _BONE, "lungs": left | right, "left lung": left, "right lung": right}
    if has_tumor:
        masks["lung tumor"] = tumor
    for name, label in (("heart", _HEART), ("aorta", _AORTA)):
        if _stands_out(lab, label, hu):
            masks[name] = lab == label
    return Drawing(image, masks, "axial")


def _paint_outside(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp) -> None:
    """Table below and a blanket above, both thin and faint."""
    if rng.random() < 0.7:
        x = np.linspace(-1.5, 1.5, 40)
        sag, y0 = rng.uniform(0.0, 0.25), rng.uniform(0.70, 0.85)
        for dy in (0.0, rng.uniform(0.05, 0.12)):
            stroke(lab, warp(np.stack([x, y0 + dy - sag * (x / 1.2) ** 2], 1)), _TABLE, 0.004)
    if rng.random() < 0.4:
        x = np.linspace(-1.1, 1.1, 30)
        y = -0.75 - 0.1 * rng.random() + 0.05 * np.cumsum(rng.normal(0, 0.5, 30)) + 0.5 * np.abs(x) ** 3
        stroke(lab, warp(np.stack([x, y], 1)), _TABLE, 0.004)


def _paint_body(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, z: float) -> NDArray[np.bool_]:
    """Skin, fat, muscle, arms and breasts; the mask of everything inside the skin."""
    size = lab.shape[0]
    skin = np.zeros((size, size), np.uint8)
    fat = rng.uniform(0.03, 0.13)
    half = 0.92 + (0.12 * (z - 0.7) / 0.3 if z > 0.7 else 0.0)
    tall = 0.70 - (0.08 * (z - 0.7) / 0.3 if z > 0.7 else 0.0)
    torso = ellipse(0.0, 0.04, half, tall, n=72, power=rng.uniform(2.2, 2.8))
    parts = [torso]
    if rng.random() < 0.45 and 0.1 < z < 0.75:
        r, y = rng.uniform(0.28, 0.38), -0.42 - rng.uniform(0.0, 0.1)
        for sign in (-1, 1):
            parts.append(blob(rng, sign * rng.uniform(0.40, 0.48), y, r * 1.15, r * rng.uniform(0.7, 1.0), rough=0.03))
    arms = rng.random() < 0.25
    if arms:
        r, x, y = rng.uniform(0.13, 0.19), half + rng.uniform(0.0, 0.08), rng.uniform(0.0, 0.2)
        for sign in (-1, 1):
            parts.append(blob(rng, sign * x, y, r, r * rng.uniform(0.9, 1.15), rough=0.04))
    for part in parts:
        fill(skin, warp(part), 1)
    inside = skin > 0
    lab[inside] = _FAT
    inner = np.zeros((size, size), np.uint8)
    fill(inner, warp(ellipse(0.0, 0.04, half - fat, tall - fat * 0.8, n=72, power=2.3)), 1)
    if arms:
        for sign in (-1, 1):
            fill(inner, warp(blob(rng, sign * x, y, r * 0.75, r * 0.75, rough=0.08)), 1)
            fill(lab, warp(ellipse(sign * x, y, r * 0.3, r * 0.3)), _BONE)
    lab[(inner > 0) & inside] = _MUSCLE
    if arms:
        for sign in (-1, 1):
            fill(lab, warp(ellipse(sign * x, y, r * 0.28, r * 0.28)), _BONE)
    # streaks of fat between the muscles of the wall
    for _ in range(int(rng.integers(6, 16))):
        t = rng.uniform(0, 2 * np.pi) + np.linspace(0, rng.uniform(0.1, 0.5), 8)
        k = rng.uniform(0.78, 0.97) + rng.normal(0, 0.01, 8)
        line = np.zeros_like(skin)
        stroke(
            line, warp(np.stack([0.85 * k * np.cos(t), 0.02 + 0.57 * k * np.sin(t)], 1)), 1, rng.uniform(0.004, 0.012)
        )
        lab[(line > 0) & (lab == _MUSCLE)] = _FAT
    return inside


def _paint_inside(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, z: float) -> NDArray[np.float64]:
    """Lungs, then what lies between them on top; returns the outline of the rib cage (canonical)."""
    grow = float(np.interp(z, [0.0, 0.35, 0.7, 1.0], [1.0, 1.0, 0.88, 0.52])) * rng.uniform(0.95, 1.05)
    y0 = float(np.interp(z, [0.0, 1.0], [0.02, 0.04]))
    tall = float(np.interp(z, [0.0, 0.7, 1.0], [1.0, 0.95, 0.72]))
    cage = ellipse(0.0, y0, 0.78 * grow + 0.02, 0.55 * max(grow, 0.6) * tall + 0.02, n=96, power=2.3)
    fill(lab, warp(cage), _MUSCLE)
    for sign, name in ((1.0, _LUNG_R), (-1.0, _LUNG_L)):
        jitter = rng.normal(0, 0.012, _LUNG.shape)
        shape = (_LUNG + jitter) * (sign * grow, max(grow, 0.6) * tall) + (-0.04 * sign * (1.0 - grow), y0)
        fill(lab, warp(spline(shape)), name)
    # between the lungs: a column of fat and soft tissue from the sternum to the spine
    w = rng.uniform(0.05, 0.10) + 0.03 * (z > 0.75)
    top = float(cage[:, 1].min()) + 0.01
    edge = [(-w, top), (w, top), (w * 1.1, -0.25), (w * 1.3, 0.1), (0.14, 0.4), (-0.14, 0.4), (-w * 1.2, 0.1)]
    column = np.array(edge) + rng.normal(0, 0.02, (7, 2)) * (1.0, 0.3)
    fill(lab, warp(spline(column)), _SOFT if rng.random() < 0.7 else _FAT)
    if z < 0.5:
        _paint_heart(rng, lab, warp, z)
    elif z < 0.72:
        _paint_arch(rng, lab, warp)
    else:
        for _ in range(int(rng.integers(3, 7))):
            x, y = rng.uniform(-0.16, 0.16), rng.uniform(-0.3, 0.0)
            fill(lab, warp(blob(rng, x, y, 0.05, 0.045)), _SOFT)
    if z > 0.4:
        x, y, r = rng.normal(0.0, 0.015), 0.02 + rng.normal(0, 0.02), rng.uniform(0.035, 0.055)
        fill(lab, warp(ellipse(x, y, r * 1.6, r * 1.6)), _SOFT)
        fill(lab, warp(ellipse(x, y, r, r * 0.9)), _AIRWAY)
    elif z > 0.28:
        for sign in (-1, 1):
            fill(lab, warp(ellipse(sign * 0.09, 0.06, 0.05, 0.045)), _SOFT)
            fill(lab, warp(ellipse(sign * 0.09, 0.06, 0.028, 0.025, rng.normal(0, 0.5))), _AIRWAY)
    return cage


def _paint_heart(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, z: float) -> None:
    if z < 0.16:
        depth = (0.16 - z) / 0.16
        r = 0.12 + 0.26 * depth
        fill(lab, warp(blob(rng, -0.32, -0.12, r * 1.15, r, rough=0.04)), _LIVER)
        if rng.random() < 0.6:
            fill(lab, warp(blob(rng, 0.38, 0.12, r * 0.9, r * 0.8, rough=0.05)), _LIVER)
    grow = float(np.interp(z, [0.0, 0.2, 0.5], [0.9, 1.0, 0.75])) * rng.uniform(0.85, 1.12)
    heart = blob(rng, 0.13, -0.14, 0.36 * grow, 0.25 * grow, rng.uniform(0.25, 0.6), 0.05)
    fat = heart + (heart - heart.mean(0)) * rng.uniform(0.03, 0.12)
    if rng.random() < 0.6:
        fill(lab, warp(fat), _FAT)
    fill(lab, warp(heart), _HEART)
    fill(lab, warp(blob(rng, 0.02, 0.16, 0.05, 0.04)), _SOFT)  # oesophagus
    r = rng.uniform(0.055, 0.085)
    fill(lab, warp(blob(rng, rng.uniform(0.09, 0.14), 0.21, r * 1.2, r * 1.2, rough=0.02)), _SOFT)
    fill(lab, warp(blob(rng, 0.115, 0.21, r, r, rough=0.02)), _AORTA)
    if z > 0.2:  # hila
        for sign in (-1, 1):
            fill(lab, warp(blob(rng, sign * 0.2, 0.02, 0.08, 0.05, sign * 0.4, 0.15)), _SOFT)


def _paint_arch(rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp) -> None:
    if rng.random() < 0.5:  # the arch itself, one sausage
        line = spline([(-0.07, -0.24), (0.03, -0.22), (0.12, -0.08), (0.15, 0.12)], 8, closed=False)
        side = np.gradient(line, axis=0)
        side = np.stack([-side[:, 1], side[:, 0]], 1) / np.linalg.norm(side, axis=1, keepdims=True)
        half = rng.uniform(0.055, 0.08) * np.sin(np.linspace(0.12, np.pi - 0.12, len(line)))[:, None] ** 0.4
        fill(lab, warp(np.concatenate([line + side * (half + 0.03), (line - side * (half + 0.03))[::-1]])), _SOFT)
        fill(lab, warp(np.concatenate([line + side * half, (line - side * half)[::-1]])), _AORTA)
        return
    for x, y, r in ((-0.06, -0.2, 0.085), (0.12, 0.2, 0.07)):  # ascending and descending part
        r *= rng.uniform(0.9, 1.15)
        fill(lab, warp(ellipse(x, y, r * 1.25, r * 1.25)), _SOFT)
        fill(lab, warp(blob(rng, x, y, r, r, rough=0.02)), _AORTA)
    fill(lab, warp(blob(rng, 0.1, -0.14, 0.1, 0.06, 0.5)), _SOFT)  # pulmonary trunk


def _bone(rng: np.random.Generator, lab: NDArray[np.uint8], curve: NDArray[np.float64]) -> None:
    """A bone replaces whatever lies inside the skin."""
    one = np.zeros_like(lab)
    fill(one, curve, 1)
    lab[(one > 0) & (lab > _TABLE)] = _BONE


def _thick(line: NDArray[np.float64], half: float) -> NDArray[np.float64]:
    """Closed outline of a line with rounded, narrowing ends."""
    d = np.gradient(line, axis=0)
    d = np.stack([-d[:, 1], d[:, 0]], 1) / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9)
    w = half * np.sin(np.linspace(0.25, np.pi - 0.25, len(line)))[:, None] ** 0.5
    return np.concatenate([line + d * w, (line - d * w)[::-1]])


def _paint_bones(
    rng: np.random.Generator, lab: NDArray[np.uint8], warp: Warp, z: float, cage: NDArray[np.float64]
) -> None:
    # spine: body, arch around a canal, processes
    y, r = 0.34 + rng.normal(0, 0.01), rng.uniform(0.105, 0.135)
    fill(lab, warp(blob(rng, 0.0, y + 0.10, 0.21, 0.24, rough=0.04)), _MUSCLE)
    for sign in (-1, 1):
        line = spline(
            [(sign * 0.05, y + 0.12), (sign * 0.15, y + 0.13), (sign * rng.uniform(0.2, 0.27), y + 0.17)],
            6,
            closed=False,
        )
        _bone(rng, lab, warp(_thick(line, 0.028)))
    _bone(rng, lab, warp(ellipse(0, y + 0.155, 0.085, 0.08)))
    _bone(
        rng, lab, warp(_thick(np.linspace([0, y + 0.18], [rng.normal(0, 0.01), y + rng.uniform(0.26, 0.34)], 8), 0.025))
    )
    _bone(rng, lab, warp(blob(rng, 0, y, r, r * 0.82, rough=0.03)))
    fill(lab, warp(ellipse(0, y + 0.14, 0.05, 0.045)), _SOFT)
    # sternum or the ends of the clavicles
    top = float(cage[:, 1].min())
    if z > 0.85:
        for sign in (-1, 1):
            a = rng.uniform(0.12, 0.2)
            line = np.linspace(
                [sign * a, top - 0.02], [sign * (a + rng.uniform(0.05, 0.35)), top - rng.uniform(0.0, 0.1)], 8
            )
            _bone(rng, lab, warp(_thick(line, 0.04)))
    else:
        _bone(
            rng,
            lab,
            warp(
                ellipse(rng.normal(0, 0.02), top - 0.025, rng.uniform(0.08, 0.13), 0.032, rng.normal(0, 0.05), power=3)
            ),
        )
    # ribs: arcs along the cage
    centre = cage.mean(0)
    angle = np.arctan2(cage[:, 1] - centre[1], cage[:, 0] - centre[0])
    order = np.argsort(angle)
    angle, ring = angle[order], (cage - centre)[order]
    for side in (0, 1):
        t = rng.uniform(-1.25, -1.0)
        while t < 1.35:
            span = rng.uniform(0.12, 0.42)
            if rng.random() < 0.85:
                around = np.linspace(t, t + span, 10) if side == 0 else np.pi - np.linspace(t, t + span, 10)
                around = (around + np.pi) % (2 * np.pi) - np.pi
                p = np.stack([np.interp(around, angle, ring[:, i], period=2 * np.pi) for i in (0, 1)], 1)
                tilt = np.linspace(-1, 1, 10)[:, None] * rng.uniform(-0.02, 0.02)
                _bone(rng, lab, warp(_thick(centre + p * (1.03 + tilt), rng.uniform(0.02, 0.032))))
            t += span + rng.uniform(0.1, 0.3)
    if z > 0.45:  # scapulae, behind and beside the cage
        for sign in (-1, 1):
            x, y = sign * rng.uniform(0.62, 0.74), rng.uniform(0.25, 0.36)
            dx, dy = sign * rng.uniform(0.08, 0.15), rng.uniform(0.12, 0.2)
            line = spline([(x + dx, y - dy), (x, y), (x - dx * 1.2, y + dy * 0.7)], 6, closed=False)
            _bone(rng, lab, warp(_thick(line, rng.uniform(0.016, 0.028))))
            if rng.random() < 0.6:
                _bone(rng, lab, warp(_thick(np.linspace([x + dx * 0.3, y], [x + dx * 1.6, y + dy * 0.2], 8), 0.022)))


def _paint_tumor(rng: np.random.Generator, lab: NDArray[np.uint8]) -> bool:
    """A mass in one lung, somewhere at random or against its wall; False where it found no room."""
    size = lab.shape[0]
    side = _LUNG_R if rng.random() < 0.5 else _LUNG_L
    ys, xs = np.nonzero(lab == side)
    if len(xs) < 400 * (size / 256) ** 2:
        return False
    at = int(rng.integers(len(xs)))
    r = float(np.exp(rng.uniform(np.log(0.016), np.log(0.06))))
    curve = blob(
        rng,
        xs[at] / size,
        ys[at] / size,
        r,
        r * rng.uniform(0.7, 1.0),
        rng.uniform(0, np.pi),
        rng.uniform(0.05, 0.16),
        harmonics=8,
    )
    one = np.zeros_like(lab)
    fill(one, curve, 1)
    spot = (one > 0) & (lab == side)
    n, parts, stats, _ = cv2.connectedComponentsWithStats(spot.astype(np.uint8), connectivity=4)
    if n < 2:
        return False
    spot = parts == 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    if not 30 * (size / 256) ** 2 <= spot.sum() <= 0.35 * len(xs):
        return False
    lab[spot] = _TUMOR
    return True


def _tissues(rng: np.random.Generator) -> NDArray[np.float64]:
    """Hounsfield units of each label; half of the scans are after contrast."""
    hu = np.zeros(16)
    blood = rng.uniform(30, 55) if rng.random() < 0.5 else rng.uniform(80, 220)
    hu[[_AIR, _TABLE, _FAT, _MUSCLE]] = -1000, rng.uniform(-950, -750), rng.uniform(-120, -90), rng.uniform(35, 65)
    hu[[_LUNG_R, _LUNG_L]] = rng.uniform(-900, -800)
    hu[[_SOFT, _LIVER]] = rng.uniform(20, 60), rng.uniform(50, 110)
    hu[[_HEART, _AORTA]] = blood * rng.uniform(0.8, 1.0), blood
    hu[[_AIRWAY, _BONE, _TUMOR]] = -990, rng.uniform(170, 340), rng.uniform(10, 70)
    return hu


def _stands_out(lab: NDArray[np.uint8], label: int, hu: NDArray[np.float64]) -> bool:
    """Whether at least 60% of a structure's edge borders on something 35 HU away or more: without contrast
    an aorta beside muscle is there but cannot be seen, and nobody should be asked to outline it."""
    one = (lab == label).astype(np.uint8)
    ring = (cv2.dilate(one, np.ones((3, 3), np.uint8)) > 0) & (one == 0)
    return bool(ring.any()) and bool(np.mean(np.abs(hu[lab[ring]] - hu[label]) >= 35.0) >= 0.6)


def _expose(rng: np.random.Generator, lab: NDArray[np.uint8], hu: NDArray[np.float64]) -> NDArray[np.float32]:
    """Labels to Hounsfield units to gray, with vessels, trabeculae, partial volume and noise."""
    size = lab.shape[0]
    px = size / 256.0
    image = hu[lab].astype(np.float32)
    # cortex is bright, the inside of a bone is dimmer and speckled
    bone = (lab == _BONE).astype(np.uint8)
    core = cv2.erode(bone, np.ones((3, 3), np.uint8), iterations=max(1, round(px))) > 0
    image[(bone > 0) & ~core] += rng.uniform(150, 450)
    spongy = smooth_field(rng, size, size // 3)
    image[core] += 70.0 * spongy[core]
    # large-scale unevenness of fat and muscle, emphysema in the lungs
    soft = (lab >= _FAT) & (lab != _LUNG_R) & (lab != _LUNG_L) & (lab != _AIRWAY)
    image += np.where(soft, 14.0 * smooth_field(rng, size, 20), 0.0)
    lung = (lab == _LUNG_R) | (lab == _LUNG_L)
    image += np.where(lung, rng.uniform(10, 40) * smooth_field(rng, size, 14), 0.0)
    image = _vessels(rng, image, lab, lung)
    image = blur(image, rng.uniform(0.45, 0.85) * px)
    grain = blur(noise(rng, size), 0.6) * rng.uniform(8, 70)
    if rng.random() < 0.15:
        # a few photons short: streaks from side to side
        grain += cv2.resize(noise(rng, size)[:, :8].copy(), (size, size)) * rng.uniform(5, 20)
    return ((image + grain + 1000.0) * (255.0 / 1400.0)).astype(np.float32)


def _vessels(
    rng: np.random.Generator, image: NDArray[np.float32], lab: NDArray[np.uint8], lung: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Branches that run outward from each hilum, and dots where they cross the slice."""
    size = lab.shape[0]
    layer = np.zeros((size, size), np.uint8)
    for side in (_LUNG_R, _LUNG_L):
        ys, xs = np.nonzero(lab == side)
        if len(xs) < 100:
            continue
        # the hilum lies on the side of the midline
        hx = (np.percentile(xs, 92) if side == _LUNG_R else np.percentile(xs, 8)) / size
        hy = float(np.median(ys)) / size
        share = min(1.0, len(xs) / (0.1 * size * size))  # small near the apex: fewer
        pick = rng.integers(len(xs), size=int(rng.integers(14, 30) * share) + 3)
        for x, y in zip(xs[pick] / size, ys[pick] / size, strict=True):
            a = rng.uniform(0.15, 0.7)
            b = a + rng.uniform(0.15, 0.5)
            bend = rng.normal(0, 0.014, 2)
            p = np.array([hx, hy]) + np.outer([a, (a + b) / 2, b], [x - hx, y - hy]) + np.outer([0, 1, 0], bend)
            value = rng.uniform(30, 150)
            stroke(layer, spline(p, 4, closed=False), value, rng.uniform(0.002, 0.0075), smooth=True)
            fork = np.array([p[1], (p[1] + p[2]) / 2 + rng.normal(0, 0.008, 2), p[2] + rng.normal(0, 0.025, 2)])
            stroke(layer, fork, value * 0.7, 0.002, smooth=True)
        dots = rng.integers(len(xs), size=int(rng.integers(20, 70) * share) + 3)
        layer[ys[dots], xs[dots]] = rng.integers(60, 200, len(dots)).astype(np.uint8)
    add = layer.astype(np.float32) * np.float32(4.2)
    return np.where(lung, np.minimum(image + add, 60.0), image).astype(np.float32)
