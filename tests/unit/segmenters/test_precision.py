"""Which floats are fastest, by what the kernel says of the processor."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from ibisagent.segmenters.precision import fast_dtype


@pytest.mark.parametrize(
    ("vendor", "flags", "expected"),
    [
        ("AuthenticAMD", "avx512f avx512_bf16", torch.bfloat16),
        ("AuthenticAMD", "avx2 avx512f", torch.float32),
        ("GenuineIntel", "avx512f avx512_bf16 amx_bf16 amx_tile", torch.bfloat16),
        ("GenuineIntel", "avx512f avx512_bf16", torch.float32),
        ("GenuineIntel", "avx512_bf16_not", torch.float32),
    ],
)
def test_bfloat16_only_where_it_is_faster(tmp_path: Path, vendor: str, flags: str, expected: torch.dtype) -> None:
    told = tmp_path / "cpuinfo"
    told.write_text(f"vendor_id\t: {vendor}\nflags\t\t: fpu {flags} sse\n")
    assert fast_dtype("cpu", told) is expected
    assert fast_dtype(torch.device("cpu"), told) is expected


def test_an_unknown_processor_computes_in_single_precision(tmp_path: Path) -> None:
    assert fast_dtype("cpu", tmp_path / "none") is torch.float32
    assert fast_dtype("meta") is torch.float32
