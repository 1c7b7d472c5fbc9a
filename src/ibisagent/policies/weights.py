"""The hash that names a model's weights in records."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable
from pathlib import Path

from ibisagent.hashing import file_hash

__all__ = ["weight_files", "weights_hash"]

_PATTERNS = ("*.safetensors", "*.bin", "*.pt", "*.pth")


def weight_files(folder: Path) -> list[Path]:
    """The weight files right inside a folder, by name; where there are safetensors, those alone."""
    for pattern in (_PATTERNS[:1], _PATTERNS[1:]):
        # Trainers leave training_args.bin and optimizer.pt beside the weights.
        side = ("training_args.bin", "optimizer.pt", "optimizer.bin", "scheduler.pt", "rng_state.pth")
        files = sorted(p for glob in pattern for p in folder.glob(glob) if p.is_file() and p.name not in side)
        if files:
            return files
    return []


def weights_hash(files: Iterable[Path]) -> str:
    """SHA-256 (hex) that names a set of weight files.

    One file has its own SHA-256, as ``sha256sum FILE`` prints it. Several have the SHA-256 of the lines
    that ``sha256sum`` prints for them (hash, two spaces, name), in the order given.

    Hashing 16 GB takes a while, so each file's hash is kept in ``$XDG_CACHE_HOME/ibisagent/hashes.json``
    (else ``~/.cache``) under its path, size and modification time in ns, and is read from there while those
    stay the same. A cache that cannot be read or written is passed over.
    """
    cache = _Cache()
    pairs = [(cache.hash(path), path.name) for path in files]
    cache.save()
    if len(pairs) == 1:
        return pairs[0][0]
    return hashlib.sha256("".join(f"{digest}  {name}\n" for digest, name in pairs).encode()).hexdigest()


class _Cache:
    """Hashes of files by (path, size, modification time)."""

    def __init__(self) -> None:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        self.path = Path(root) / "ibisagent" / "hashes.json"
        self.changed = False
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.known: dict[str, str] = known if isinstance(known, dict) else {}

    def hash(self, path: Path) -> str:
        real = path.resolve()
        stat = real.stat()
        key = f"{real}|{stat.st_size}|{stat.st_mtime_ns}"
        digest = self.known.get(key)
        if not isinstance(digest, str) or len(digest) != 64:
            digest = file_hash(real)
            self.known = {k: v for k, v in self.known.items() if not k.startswith(f"{real}|")}
            self.known[key] = digest
            self.changed = True
        return digest

    def save(self) -> None:
        if not self.changed:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self.path.parent, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self.known, file, indent=0)
            os.replace(temporary, self.path)
        except OSError:
            pass  # a read-only home: the hash is right all the same
