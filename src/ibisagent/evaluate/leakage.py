"""Were the images of an evaluation in the training data of the policy? Weights may come with a list of theirs.

The list is ``training_images.json`` beside the weights: of every image a hash of its pixels, a fingerprint that copies
share, and its patient's name. So three things are found, and no image is needed of either side but those evaluated:
equal images, images that look the same, and patients of the same name. A policy without a list is not checked, and the
run says so; silence is no clean bill.

``python -m ibisagent.evaluate.leakage CASES --split train --out FOLDER`` writes a list.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ibisagent.engine.sources.fingerprint import FINGERPRINT_LENGTH, Fingerprints, fingerprint, near_pairs
from ibisagent.errors import InputError
from ibisagent.evaluate.records import Run
from ibisagent.hashing import file_hash
from ibisagent.io import CaseRow
from ibisagent.io.files import one_line
from ibisagent.rendering.png import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ibisagent.evaluate.case_list import CaseList
    from ibisagent.evaluate.result import CaseResult
    from ibisagent.evaluate.store import RunFolder

__all__ = [
    "LIST_NAME",
    "TrainingImages",
    "check_leakage",
    "leakage_warning",
    "list_images",
    "note_leakage",
    "training_images_of",
]

LIST_NAME = "training_images.json"

_EXAMPLES = 5
_VERSION = 1


@dataclass(frozen=True)
class TrainingImages:
    """What is known of the images that a model learnt from.

    Parameters
    ----------
    about
        What the list holds, and what the model learnt from besides.
    sha256, fingerprints, groups
        Of each image: :func:`ibisagent.hashing.pixel_hash`,
        :func:`ibisagent.engine.sources.fingerprint.fingerprint`, and patient or specimen.
    list_sha256
        Hash of the list's file.
    """

    about: str
    sha256: tuple[str, ...]
    fingerprints: tuple[str, ...]
    groups: tuple[str, ...]
    list_sha256: str = ""

    @classmethod
    def load(cls, path: Path) -> TrainingImages:
        """Read a list.

        Raises
        ------
        InputError
            If it cannot be read or is none.
        """
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["schema_version"] != _VERSION:
                raise InputError(f"{path} has schema version {document['schema_version']}; use a newer ibisagent")
            rows = [(str(row["sha256"]), str(row["fingerprint"]), str(row["group"])) for row in document["images"]]
            about = str(document["about"])
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise InputError(f"{path} is damaged: it is no list of training images") from None
        if any(len(print_) != FINGERPRINT_LENGTH for _, print_, _ in rows):
            raise InputError(f"{path} is damaged: a fingerprint has another length")
        hashes, prints, groups = zip(*rows, strict=True) if rows else ((), (), ())
        return cls(about, tuple(hashes), tuple(prints), tuple(groups), file_hash(path))

    def save(self, path: Path) -> None:
        """Write the list."""
        images = [
            {"sha256": sha256, "fingerprint": print_, "group": group}
            for sha256, print_, group in zip(self.sha256, self.fingerprints, self.groups, strict=True)
        ]
        document = {"schema_version": _VERSION, "about": self.about, "images": images}
        write_atomic((json.dumps(document, indent=0) + "\n").encode(), path)


def training_images_of(policy: str) -> TrainingImages | None:
    """The list that comes with a policy's weights, by the policy's spec; None where there is none.

    Raises
    ------
    InputError
        If there is one and it is damaged.
    """
    kind, _, place = policy.partition(":")
    if kind == "nano":
        from ibisagent.policies.nano import WEIGHTS_DIR

        folder = Path(place) if place else WEIGHTS_DIR
    elif kind == "vlm":
        folder = Path(place)
    else:
        return None
    path = folder / LIST_NAME
    return TrainingImages.load(path) if path.is_file() else None


def check_leakage(
    results: Sequence[CaseResult],
    image_of: Callable[[CaseResult], NDArray[np.uint8] | None],
    training: TrainingImages | None,
) -> dict[str, Any]:
    """Look for the images of played cases in a list of training images.

    Parameters
    ----------
    results
        Played.
    image_of
        Gives a case's pixels, ``uint8`` (H, W, 3), or None; asked once for each image.
    training
        None: there is no list.

    Returns
    -------
    dict
        ``checked``, and if so ``about`` and ``list_sha256``; ``num_images``; ``equal``, ``similar`` (and not equal)
        and ``same_group``: ``{"images", "cases", "examples"}``, ids of some cases as examples; ``num_unseen``: images
        that were not at hand, and so were compared by their hash alone.
    """
    if training is None:
        return {"checked": False, "reason": "the policy's weights come with no list of training images"}
    images: dict[str, list[CaseResult]] = {}
    for result in results:
        if result.episode is not None:
            images.setdefault(result.episode.image.sha256, []).append(result)
    known, groups = set(training.sha256), set(training.groups)
    equal = [sha256 for sha256 in images if sha256 in known]
    others = [sha256 for sha256 in images if sha256 not in known]
    seen: list[str] = []
    prints: list[str] = []
    for sha256 in others:
        pixels = image_of(images[sha256][0])
        if pixels is not None:
            seen.append(sha256)
            prints.append(fingerprint(pixels))
    first, _, _ = near_pairs(Fingerprints.parse(prints), Fingerprints.parse(training.fingerprints))
    similar = [seen[place] for place in np.unique(first).tolist()]
    same = [sha256 for sha256, cases in images.items() if any(_names(case) & groups for case in cases)]

    def told(found: Iterable[str]) -> dict[str, Any]:
        cases = [[case.case_id for case in images[sha256]] for sha256 in found]
        return {
            "images": len(cases),
            "cases": sum(len(ids) for ids in cases),
            "examples": [ids[0] for ids in cases[:_EXAMPLES]],
        }

    return {
        "checked": True,
        "about": training.about,
        "list_sha256": training.list_sha256,
        "num_images": len(images),
        "equal": told(equal),
        "similar": told(similar),
        "same_group": told(same),
        "num_unseen": len(others) - len(seen),
    }


def _names(case: CaseResult) -> set[str]:
    """Whose image it is, by the names that a list of training images may have for that."""
    patient = case.patient or ""
    # Lists that are played together put their names before those of their patients.
    return {patient, patient.partition("/")[2]} - {""}


def leakage_warning(found: dict[str, Any]) -> str | None:
    """One line for people; None where nothing was found."""
    if not found["checked"] or not (
        found["equal"]["images"] or found["similar"]["images"] or found["same_group"]["images"]
    ):
        return None
    total = found["num_images"]
    parts = [
        f"{found[name]['images']} {words}"
        for name, words in (
            ("equal", "were in the policy's training data"),
            ("similar", "look the same as one that was"),
            ("same_group", "are of a patient or specimen that it was trained on"),
        )
        if found[name]["images"]
    ]
    return f"of {total} image{'s' if total != 1 else ''} {', '.join(parts)}: figures on them measure fit (run.json)"


def note_leakage(run: RunFolder, policy: str, pictures: Path | None = None) -> str | None:
    """Check a run's images, write what was found into its ``run.json``, and give the warning for people.

    Parameters
    ----------
    run
        Played and not yet finished. Images that it does not keep are compared by their hash alone.
    policy
        The policy's spec.
    pictures
        Folder of the run that keeps this one's pictures too; None is its own.

    Raises
    ------
    InputError
        If the list beside the weights is damaged, or the folder cannot be written.
    """
    results = run.results()
    seen = Run(pictures or run.path, run.facts, results)
    found = check_leakage(results, seen.image, training_images_of(policy))
    run.note("leakage", found)
    return leakage_warning(found)


def list_images(cases: CaseList, about: str, *, without: Iterable[str] = ()) -> TrainingImages:
    """Make a list of the images of cases.

    Parameters
    ----------
    cases
        What a model learnt from.
    about
        One sentence or two.
    without
        Image paths (as rows have them) that it did not learn from.

    Raises
    ------
    InputError
        If an image cannot be read.
    """
    left_out = frozenset(without)
    found: dict[str, tuple[str, str]] = {}
    images: set[str] = set()
    for row in cases.rows:
        if isinstance(row, CaseRow) and row.image not in images and row.image not in left_out:
            images.add(row.image)
            image = cases.load(row)[0]
            patient = (row.model_extra or {}).get("patient")
            found[image.sha256] = fingerprint(image.pixels), str(patient or row.group or row.image)
    order = sorted(found, key=lambda sha256: (found[sha256][1], sha256))
    return TrainingImages(about, tuple(order), tuple(found[s][0] for s in order), tuple(found[s][1] for s in order))


def main(argv: Sequence[str] | None = None) -> int:
    """Write a list beside weights."""
    from ibisagent.engine.splits import development_images
    from ibisagent.evaluate.case_list import open_case_list

    parser = argparse.ArgumentParser(prog="python -m ibisagent.evaluate.leakage", description=main.__doc__)
    parser.add_argument("cases", nargs="+", help="JSONL file, or KIND:PATH as for ibisagent evaluate")
    parser.add_argument("--split", help="only rows of this split")
    parser.add_argument("--without-development", action="store_true", help="leave nano's development split out")
    parser.add_argument("--about", default="", help="what the model learnt from")
    parser.add_argument("--out", required=True, type=Path, help="folder of the weights")
    options = parser.parse_args(argv)
    try:
        cases = open_case_list(options.cases, split=options.split)
        rows = [row for row in cases.rows if isinstance(row, CaseRow)]
        kept_apart = development_images((row.image, row.group or "", row.target) for row in rows)
        found = list_images(cases, options.about, without=kept_apart if options.without_development else ())
        found.save(options.out / LIST_NAME)
    except (InputError, OSError) as error:
        print(f"leakage: {one_line(error, 400)}", file=sys.stderr)
        return 2
    print(f"{len(found.sha256)} images in {options.out / LIST_NAME}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
