"""The command line: ``ibisagent segment | evaluate | replay | doctor | train``.

Exit codes, which other tools rely on:

====  =====================================================================
0     done or uncertain; for ``evaluate``: every case ended without error
1     ``replay``: a mask came out differently; ``doctor``: something that the defaults need is missing
2     bad input or usage; nothing was written
3     the target is absent (an all-zero mask is written)
4     ran out of steps (the best mask is written)
5     a tool or a model failed; for ``evaluate``: some row was unreadable or failed
130   stopped by Ctrl-C
====  =====================================================================

With ``--json`` standard output gets one JSON object and nothing else; messages and progress go to standard error.
Nothing heavy is imported before a command asks for it.
"""

from __future__ import annotations

from ibisagent.cli.main import entry_point, main

__all__ = ["entry_point", "main"]
