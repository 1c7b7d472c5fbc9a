from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from ibisagent.hashing import file_hash, pixel_hash, text_hash


def test_pixel_hash_tells_values_shape_and_type_apart() -> None:
    base = np.arange(12, dtype=np.uint8)
    other_value = base.copy()
    other_value[3] = 99
    arrays = [base, base.reshape(3, 4), base.reshape(4, 3), base.astype(np.int8), other_value]
    assert len({pixel_hash(a) for a in arrays}) == len(arrays)


def test_pixel_hash_ignores_memory_layout() -> None:
    a = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    assert pixel_hash(a) == pixel_hash(np.asfortranarray(a)) == pixel_hash(a[::-1][::-1])


def test_file_and_text_hash(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("é".encode())
    assert file_hash(path) == text_hash("é") == hashlib.sha256("é".encode()).hexdigest()
    assert len(text_hash("\ud800")) == 64  # half a surrogate pair must not raise
