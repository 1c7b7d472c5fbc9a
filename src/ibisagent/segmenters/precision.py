"""Which floats a processor multiplies fastest."""

from __future__ import annotations

from pathlib import Path

import torch

__all__ = ["fast_dtype"]


def fast_dtype(device: torch.device | str, cpuinfo: Path = Path("/proc/cpuinfo")) -> torch.dtype:
    """``bfloat16`` where it is faster than ``float32``, else that.

    On GPUs that have it; on CPUs with AMX; and on AMD's with AVX-512's bfloat16. On an Intel processor that has
    AVX-512's but not AMX (a hypervisor may hide it) it was slower than single precision: ``benchmarks/precision.py``
    times both wherever it is run. CPUs with AMX were not at hand.

    Parameters
    ----------
    device
        Where it is computed.
    cpuinfo
        The kernel's description of the processor; without one the answer is ``float32``.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    if kind != "cpu":
        return torch.float32
    try:
        words = set(cpuinfo.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        return torch.float32
    fast = "amx_bf16" in words or {"avx512_bf16", "AuthenticAMD"} <= words
    return torch.bfloat16 if fast else torch.float32
