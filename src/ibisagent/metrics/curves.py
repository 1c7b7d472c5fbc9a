"""Numbers of a quality curve over steps: number of clicks to a threshold, and areas under the curve.

A curve is the sequence of values after 0, 1, 2 … steps (its first value is that of the mask given at the start, or of
no mask), unless said otherwise. Where an agent takes other actions than clicks, a step is any action that counts.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["NOC_CAP", "auc", "auc_cvpr25", "clicks_to_reach", "noc"]

NOC_CAP = 20
"""Clicks that a target not reached counts with: the usual cap of NoC@80, NoC@85 and NoC@90."""


def clicks_to_reach(curve: Sequence[float], threshold: float) -> int | None:
    """Steps until the curve first reaches `threshold` (the bound itself counts); None if it never does.

    0 if the mask that was given at the start is good enough. That the curve falls again afterwards does not matter.

    Raises
    ------
    ValueError
        If the curve is empty.
    """
    _check(curve)
    return next((k for k, value in enumerate(curve) if value >= threshold), None)


def noc(curve: Sequence[float], threshold: float, cap: int = NOC_CAP) -> int:
    """Number of clicks to a threshold: NoC@90 is ``noc(curve, 0.9)``.

    Parameters
    ----------
    curve
        Values (IoU, in [0, 1]) after 0, 1, 2 … clicks.
    threshold
        Between 0 and 1.
    cap
        What a curve counts with that does not reach the threshold within `cap` clicks, no matter why: too many
        clicks, or an agent that stopped early. So stopping early never improves the number.

    Raises
    ------
    ValueError
        If the curve is empty or `cap` is less than 1.
    """
    if cap < 1:
        raise ValueError(f"the cap on clicks must be 1 or more, not {cap}")
    clicks = clicks_to_reach(curve, threshold)
    return cap if clicks is None else min(clicks, cap)


def auc(curve: Sequence[float], steps: int | None = None) -> float:
    """Area under a curve over steps 0 to `steps` by the trapezoid rule, over `steps`: in [0, 1] if the values are.

    A curve that ends early keeps its last value (the mask stays as it is); a longer one is cut. With no step at all the
    area is the first value.

    Parameters
    ----------
    curve
        Values after 0, 1, 2 … steps.
    steps
        Where the area ends, the same for all curves that are compared; None for this curve's own length.

    Raises
    ------
    ValueError
        If the curve is empty or `steps` is negative.
    """
    _check(curve)
    if steps is None:
        steps = len(curve) - 1
    if steps < 0:
        raise ValueError(f"steps must be 0 or more, not {steps}")
    values = [float(value) for value in curve[: steps + 1]]
    values += [values[-1]] * (steps + 1 - len(values))
    return _trapezoid(values) / steps if steps else values[0]


def auc_cvpr25(values: Sequence[float], clicks: int = 5) -> float:
    """Area as in CVPR25's interactive track: trapezoids of width 1 over the last `clicks` values, not divided.

    The value before the clicks (from no prompt, or a box) is left out, so five clicks make four trapezoids and the
    best area is 4.0, not 1.0.

    Parameters
    ----------
    values
        One value after each click; values before the first click may come in front.
    clicks
        How many clicks the protocol gives.

    Raises
    ------
    ValueError
        If `clicks` is less than 2 or there are fewer values.
    """
    if clicks < 2 or len(values) < clicks:
        raise ValueError(f"this area needs at least two clicks and a value for each: {clicks} and {len(values)}")
    return _trapezoid([float(value) for value in values[-clicks:]])


def _trapezoid(values: Sequence[float]) -> float:
    return sum(values) - (values[0] + values[-1]) / 2


def _check(curve: Sequence[float]) -> None:
    if not len(curve):
        raise ValueError("a curve needs one value at least")
