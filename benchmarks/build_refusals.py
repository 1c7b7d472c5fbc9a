"""Write the two lists of absent targets on mini's val images that the refusal figures use.

    python benchmarks/build_refusals.py

- ``data/refusals/other_modality.jsonl``: structures that no image of this modality can show.
- ``data/refusals/same_modality.jsonl``: structures of the same modality that this image does not show
  (a breast lesion on a brain, a tumour in the healthy ICBM template, a brain on a breast).

Both are in the mini format with ``mask: null``. Drawn with a fixed seed, so that the files do not change.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[1]
HOMES = {
    "MRI": ["brain", "gray matter", "white matter", "cerebrospinal fluid", "brain tumor", "breast lesion"],
    "CT": ["body", "bone", "lungs", "left lung", "right lung", "lung tumor", "heart", "aorta"],
    "Fluorescence microscopy": [
        "cell nuclei",
        "largest nucleus",
        "leftmost nucleus",
        "uppermost nucleus",
        "smallest nucleus",
    ],
    "Histology": ["stratum corneum", "epidermis", "dermis"],
    "Endoscopy": ["polyp"],
    "Fundus photography": ["optic disc", "vessels"],
    "OCT": ["retina", "retinal pigment epithelium"],
    "Dermoscopy": ["skin lesion"],
}
NOT_ABSENT = {
    "MRI": ["skin lesion", "vessels", "body", "bone", "heart", "aorta", "retina", "dermis", "epidermis"],
    "CT": ["vessels", "skin lesion", "dermis", "epidermis"],
}
"""Names that an image of this modality could show somewhere, whatever the templates say: left out."""
SAME = {
    "icbm152": ["brain tumor", "breast lesion"],
    "brain1": ["breast lesion"],
    "breast1": ["brain", "gray matter", "white matter", "cerebrospinal fluid", "brain tumor"],
}
PER_IMAGE = 10


def main() -> None:
    rows = [json.loads(line) for line in (ROOT / "data/mini/cases.jsonl").read_text(encoding="utf-8").splitlines()]
    images = {r["image"]: r for r in rows if r["split"] == "val"}
    rng = np.random.default_rng(2026)
    other, same = [], []

    def case(row: dict, target: str) -> dict:
        stem = Path(row["image"]).stem
        return {
            "case_id": f"{stem}__absent-{target.replace(' ', '-')}",
            "image": f"../mini/{row['image']}",
            "mask": None,
            "target": target,
            "modality": row["modality"],
            "view": row["view"],
            "group": row["group"],
            "split": "val",
            "spacing_mm": row["spacing_mm"],
            "source": row["source"],
            "license": row["license"],
        }

    for name in sorted(images):
        row = images[name]
        foreign = [t for m, targets in HOMES.items() if m != row["modality"] for t in targets]
        foreign = [t for t in foreign if t not in NOT_ABSENT.get(row["modality"], ())]
        other += [case(row, t) for t in sorted(rng.choice(foreign, min(PER_IMAGE, len(foreign)), replace=False))]
        same += [case(row, t) for t in SAME.get(row["group"], ())]
    folder = ROOT / "data/refusals"
    folder.mkdir(parents=True, exist_ok=True)
    for label, cases in (("other_modality", other), ("same_modality", same)):
        text = "".join(json.dumps(c) + "\n" for c in cases)
        (folder / f"{label}.jsonl").write_text(text, encoding="utf-8")
        print(label, len(cases))


if __name__ == "__main__":
    main()
