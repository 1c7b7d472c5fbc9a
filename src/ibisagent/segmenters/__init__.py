"""Promptable segmenters behind one protocol: encode once, prompt many.

Backends load through :func:`ibisagent.registry.make_segmenter`; importing this package loads none.
"""

from __future__ import annotations
