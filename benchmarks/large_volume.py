"""A CT of 512 x 512 x 600 voxels: seconds to read it beside SimpleITK's own, and the memory that a whole use takes.

    python benchmarks/large_volume.py --out docs/results/large_volume.json

One synthetic body (ellipsoids of tissue with noise, so that it packs as scans do) is written as a DICOM folder, as
NIfTI.gz and as NRRD (gzip). Then, for each, fresh processes take turns: SimpleITK reads all voxels; ours opens the
study and reads all voxels (the time to load pydicom or nibabel counts); and a third one does what an agent does with a
study, of which the peak memory is taken: it opens it, picks the window, shows every 20th slice in three planes, puts an
ellipsoid on the displays of one plane, and writes the mask in the formats that are the default. The bars: 6 GiB, and
10 s beyond SimpleITK.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SHAPE = (512, 512, 600)
SPACING = (0.75, 0.75, 1.0)
NAMES = {"DICOM": "dicom", "NIfTI.gz": "ct.nii.gz", "NRRD": "ct.nrrd"}
MAX_GIB, MAX_BEYOND_SECONDS = 6.0, 10.0
REPEATS = 3
EVERY = 20


def make(folder: Path, shape: tuple[int, int, int]) -> None:
    """Write the same body in three formats."""
    import numpy as np
    import SimpleITK as sitk

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from dicom_maker import write_series

    rng = np.random.default_rng(0)
    ni, nj, nk = shape
    x = (np.arange(ni, dtype=np.float32) / ni - 0.5)[None, :]
    y = (np.arange(nj, dtype=np.float32) / nj - 0.5)[:, None]
    volume = np.empty((nk, nj, ni), np.int16)
    for k in range(nk):
        z = k / nk - 0.5
        plane = np.full((nj, ni), -1000, np.float32)
        for (cx, cy, rx, ry, rz), hu in (
            ((0, 0, 0.42, 0.3, 5.0), 40),
            ((-0.18, -0.02, 0.14, 0.2, 0.35), -850),
            ((0.18, -0.02, 0.14, 0.2, 0.35), -850),
            ((0, 0.2, 0.05, 0.05, 5.0), 400),
            ((0.2, 0.02, 0.05, 0.05, 0.1), 60),
        ):
            plane[((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 + (z / rz) ** 2 < 1] = hu
        volume[k] = np.clip(plane + rng.normal(0, 12, plane.shape).astype(np.float32), -1024, 3000)
    lps = np.diag([*SPACING, 1.0])
    lps[:3, 3] = (-190, -190, -300)
    write_series(folder / NAMES["DICOM"], volume.T, lps)
    image = sitk.GetImageFromArray(volume)
    image.SetSpacing(SPACING)
    image.SetOrigin(lps[:3, 3].tolist())
    for name in (NAMES["NIfTI.gz"], NAMES["NRRD"]):
        writer = sitk.ImageFileWriter()
        writer.SetFileName(str(folder / name))
        writer.UseCompressionOn()
        writer.SetCompressionLevel(1)
        writer.Execute(image)


def read_theirs(path: Path) -> dict[str, Any]:
    """Read all voxels with SimpleITK."""
    import SimpleITK as sitk

    start = time.perf_counter()
    if path.is_dir():
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(path)))
        image = reader.Execute()
    else:
        image = sitk.ReadImage(str(path))
    array = sitk.GetArrayViewFromImage(image)
    checksum = int(array.sum(dtype="int64"))
    return {"seconds": time.perf_counter() - start, "checksum": checksum}


def read_ours(path: Path) -> dict[str, Any]:
    """Open the study and read all voxels."""
    from ibisagent.io.studies import open_volume

    start = time.perf_counter()
    volume = open_volume(path)
    assert volume is not None
    opened = time.perf_counter()
    checksum = int(volume.voxels.array().sum(dtype="int64"))
    return {"seconds": time.perf_counter() - start, "open_seconds": opened - start, "checksum": checksum}


def use(path: Path) -> dict[str, Any]:
    """What an agent does with a study, from opening it to the written mask."""
    import numpy as np

    from ibisagent.io.studies import open_volume
    from ibisagent.io.volume import place_slice
    from ibisagent.io.writers import FORMATS, default_formats, write_volume_mask
    from ibisagent.io.writers.label import SegmentLabel
    from ibisagent.slices import mask_to_source

    start = time.perf_counter()
    volume = open_volume(path)
    assert volume is not None
    window = volume.window(target="lung nodule")
    first_window = time.perf_counter() - start
    shown = 0
    for plane in ("axial", "coronal", "sagittal"):
        for index in range(0, volume.grid.num_slices(plane), EVERY):
            volume.image(plane, index, window)
            shown += 1
    mask = np.zeros(volume.grid.shape, np.bool_)
    for index in range(volume.grid.num_slices("axial")):
        geometry, (height, width) = volume.grid.view("axial", index), volume.grid.view_size("axial")
        y, x = np.mgrid[:height, :width]
        depth = index / volume.grid.num_slices("axial") - 0.5
        disc = ((x / width - 0.3) / 0.1) ** 2 + ((y / height - 0.5) / 0.1) ** 2 + (depth / 0.2) ** 2 < 1
        if disc.any():
            place_slice(mask, mask_to_source(disc, geometry), geometry)
    writing = {}
    with tempfile.TemporaryDirectory() as out:
        for name in default_formats(volume):
            began = time.perf_counter()
            write_volume_mask(mask, volume, Path(out) / FORMATS[name].filename, name, SegmentLabel("nodule"))
            writing[name] = round(time.perf_counter() - began, 2)
    return {
        "seconds": time.perf_counter() - start,
        "seconds_to_window": first_window,
        "slices_shown": shown,
        "writing_seconds": writing,
    }


def peak_gib() -> float:
    """Largest resident memory of this process (mapped files count)."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) / 2**20
    raise RuntimeError("no VmHWM in /proc/self/status")


def child(job: str, path: Path) -> dict[str, Any]:
    """Run one job in a fresh process."""
    command = [sys.executable, __file__, "--job", job, "--path", str(path)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def measure(path: Path) -> dict[str, Any]:
    """All figures of one format; readers take turns, so that a busy machine is as bad for each."""
    theirs, ours = [], []
    child("theirs", path)  # the files are in the page cache from now on, for both
    for _ in range(REPEATS):
        theirs.append(child("theirs", path))
        ours.append(child("ours", path))
    assert {r["checksum"] for r in ours} == {r["checksum"] for r in theirs}, "the voxels differ"
    used = child("use", path)
    seconds = {name: statistics.median(r["seconds"] for r in runs) for name, runs in (("t", theirs), ("o", ours))}
    return {
        "simpleitk_seconds": round(seconds["t"], 2),
        "our_seconds": round(seconds["o"], 2),
        "our_open_seconds": round(statistics.median(r["open_seconds"] for r in ours), 2),
        "beyond_seconds": round(seconds["o"] - seconds["t"], 2),
        "simpleitk_read_peak_gib": round(max(r["peak_gib"] for r in theirs), 2),
        "our_read_peak_gib": round(max(r["peak_gib"] for r in ours), 2),
        "use_peak_gib": round(used["peak_gib"], 2),
        "use_seconds": round(used["seconds"], 1),
        "use_seconds_to_window": round(used["seconds_to_window"], 2),
        "slices_shown": used["slices_shown"],
        "writing_seconds": used["writing_seconds"],
    }


def main(argv: list[str] | None = None) -> int:
    """Measure all formats; 1 if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument("--slices", type=int, default=SHAPE[2], help="fewer slices, to try it out")
    parser.add_argument("--job", choices=("make", "theirs", "ours", "use"), help=argparse.SUPPRESS)
    parser.add_argument("--path", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    shape = (SHAPE[0], SHAPE[1], options.slices)
    if options.job == "make":
        make(options.path, shape)
        return 0
    if options.job:
        result = {"theirs": read_theirs, "ours": read_ours, "use": use}[options.job](options.path)
        print(json.dumps(result | {"peak_gib": peak_gib()}))
        return 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        subprocess.run(
            [sys.executable, __file__, "--job", "make", "--path", name, "--slices", str(options.slices)], check=True
        )
        formats = {}
        for fmt, file in NAMES.items():
            formats[fmt] = measure(folder / file)
            print(fmt, json.dumps(formats[fmt]), file=sys.stderr, flush=True)
    missed = [
        fmt for fmt, f in formats.items() if f["use_peak_gib"] > MAX_GIB or f["beyond_seconds"] > MAX_BEYOND_SECONDS
    ]
    summary = {
        "shape": list(shape),
        "voxel_gib_int16": round(shape[0] * shape[1] * shape[2] * 2 / 2**30, 3),
        "bars": {"use_peak_gib": MAX_GIB, "beyond_seconds": MAX_BEYOND_SECONDS},
        "bars_missed": missed,
        "formats": formats,
        "repeats": REPEATS,
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("SimpleITK", "nibabel", "pydicom", "highdicom", "numpy")},
    }
    text = json.dumps(summary, indent=1) + "\n"
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    print(text, end="")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
