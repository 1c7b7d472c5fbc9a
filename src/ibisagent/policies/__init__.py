"""Policies behind one protocol: given episodes in progress, write the next reply of each.

They load through :func:`ibisagent.registry.make_policy`; importing this package loads none.
"""

from __future__ import annotations
