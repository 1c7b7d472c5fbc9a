"""Does a mask lie where it was drawn? 48 orientations, three spacings, three formats, read back by other libraries.

    python benchmarks/geometry.py --out docs/results/geometry.json

Every source is written by another library than ours (nibabel, SimpleITK, pydicom), opened as a user's file is, and a
shape without symmetry is drawn on all its axial, coronal and sagittal displays, told only where in the world each
displayed pixel lies. The mask is written and read back by nibabel, SimpleITK and highdicom. A case fails where a voxel
of the mask is another than the shape's by arithmetic, where what is displayed does not lie where its geometry says or
is not radiological, or where the mask's centroid in the world is 0.01 mm off.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from sample_orientations import FORMATS, SPACINGS, TOLERANCE_MM, Orientation, all_orientations, play


def main(argv: list[str] | None = None) -> int:
    """Play all cases; 1 if one fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON to write")
    options = parser.parse_args(argv)
    start = time.perf_counter()
    worst: dict[str, dict[str, float]] = {fmt: {} for fmt in FORMATS}
    failures: list[dict[str, Any]] = []
    count = 0
    for order, signs in all_orientations():
        for spacing in SPACINGS[:3]:
            for fmt in FORMATS:
                orientation = Orientation(order, signs, spacing)
                count += 1
                problem = ""
                with tempfile.TemporaryDirectory() as folder:
                    try:
                        offsets = play(orientation, fmt, Path(folder))
                    except Exception as error:  # a case that cannot be read fails; the others are played nonetheless
                        problem, offsets = f"{type(error).__name__}: {error}"[:200], {}
                for reader, offset in offsets.items():
                    worst[fmt][reader] = max(worst[fmt].get(reader, 0.0), offset)
                    if not offset < TOLERANCE_MM:
                        problem = f"{reader}: {offset:.4f} mm off"
                if problem:
                    failures.append(
                        {"orientation": orientation.code, "spacing": spacing, "format": fmt, "problem": problem}
                    )
        print(f"{count} cases, {len(failures)} failures", file=sys.stderr, flush=True)
    result = {
        "cases": count,
        "failures": failures,
        "tolerance_mm": TOLERANCE_MM,
        "largest_offset_mm": {
            fmt: {reader: float(f"{offset:.2g}") for reader, offset in readers.items()}
            for fmt, readers in worst.items()
        },
        "planes_drawn": ["axial", "coronal", "sagittal"],
        "packages": {name: version(name) for name in ("nibabel", "SimpleITK", "highdicom", "pydicom")},
        "seconds": round(time.perf_counter() - start, 1),
    }
    print(json.dumps(result, indent=1))
    if options.out is not None:
        options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
