"""``python -m ibisagent``."""

from __future__ import annotations

from ibisagent.cli import entry_point

if __name__ == "__main__":
    entry_point()
