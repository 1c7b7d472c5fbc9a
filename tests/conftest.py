"""Makes the helpers beside this file importable in any import mode, and Ctrl-C heard however the tests were started."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import hypothesis

sys.path.insert(0, str(Path(__file__).parent))

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in its background deaf to Ctrl-C, and the processes of the tests would be deaf too.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is no fault of an example.
hypothesis.settings.register_profile("ibisagent", deadline=None)
hypothesis.settings.load_profile("ibisagent")
