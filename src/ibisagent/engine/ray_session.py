"""A Ray cluster for one job: joined where there is one, else started on this machine and ended with the job."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

from ibisagent.errors import MissingExtraError, ToolError

__all__ = ["ray_session"]


@contextlib.contextmanager
def ray_session(num_cpus: int, address: str | None) -> Iterator[None]:
    """Ray, initialised; what was started here ends with the context.

    Parameters
    ----------
    num_cpus
        Of a cluster that is started on this machine.
    address
        Of a cluster; None takes ``RAY_ADDRESS``, and without it starts one here.

    Raises
    ------
    MissingExtraError
        Without Ray.
    ToolError
        If the cluster cannot be reached.
    """
    os.environ.setdefault("RAY_DEDUP_LOGS", "1")
    # Ray would replicate a uv environment by default; workers run in that of this process.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtraError("--executor ray", "ray") from None
    own = not ray.is_initialized()
    if own:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "error", "include_dashboard": False}
        if address is None and "RAY_ADDRESS" not in os.environ:
            options["num_cpus"] = num_cpus
        try:
            ray.init(address=address, **options)
        except ConnectionError as error:
            raise ToolError(f"no Ray cluster at {address or os.environ.get('RAY_ADDRESS')}: {error}") from None
    try:
        yield
    finally:
        if own:
            ray.shutdown()
