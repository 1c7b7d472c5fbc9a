"""Makes the helpers beside this file (``sample_episodes``, ``sample_scenes``) importable in any import mode."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
