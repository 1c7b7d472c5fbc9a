"""Code streams that are not of the size that the DICOM header claims: decoders would write beyond their buffers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from dicom_maker import write_series
from ibisagent.errors import InputError
from ibisagent.io.code_streams import check_code_stream
from ibisagent.io.images import read_image
from ibisagent.io.studies import open_volume

VALUES = np.random.default_rng(0).integers(-500, 500, (40, 36, 1))


@pytest.mark.parametrize("syntax", ["57", "80", "90"])
@pytest.mark.parametrize(
    "elements",
    [{"Rows": 48, "Columns": 64}, {"Rows": 12}, {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7}],
)
def test_headers_that_claim_another_size(tmp_path: Path, syntax: str, elements: dict[str, Any]) -> None:
    (path,) = write_series(tmp_path, VALUES, syntax=f"1.2.840.10008.1.2.4.{syntax}")
    ds = pydicom.dcmread(path)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    ds.save_as(path)
    volume = open_volume(tmp_path)
    assert volume is not None
    with pytest.raises(InputError, match="pixels are damaged or cannot be decoded"):
        volume.voxels.array()
    with pytest.raises(InputError, match=r"pixels are compressed .* and are damaged"):
        read_image(path)


@pytest.mark.parametrize("data", [b"\xff\xd8\xff\xe0\x00\x04ab\x00\x00\x00\x00", b"abcd"])
def test_streams_without_a_size(data: bytes) -> None:
    with pytest.raises(ValueError, match="code stream"):
        check_code_stream(data, rows=1, columns=1, samples=1, allocated=8)
