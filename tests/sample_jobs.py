"""Jobs of a batch that need no model."""

from __future__ import annotations

import os
from typing import Any

from ibisagent.batch.job import Job
from ibisagent.batch.study import Study
from ibisagent.errors import InputError


class DyingJob(Job):
    """Its process dies of the study ``b``, and it does not load for the policy ``none``."""

    def load(self) -> dict[str, Any]:
        if self.policy == "none":
            raise InputError("there is no policy 'none'")
        return {"policy": self.policy}

    def do(self, study: Study) -> dict[str, Any]:
        if study.id == "b":
            os._exit(9)
        return {"outcome": "done", "error": None, "files": {}, "worker": os.getpid()}
