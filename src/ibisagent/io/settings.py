"""Settings in YAML files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ibisagent.errors import InputError

__all__ = ["read_yaml"]


def read_yaml(path: str | Path, example: str) -> dict[str, Any]:
    """A YAML file that holds a mapping of settings; an empty one holds none.

    Parameters
    ----------
    path
        Of the file.
    example
        A line that such a file may hold, for the message.

    Raises
    ------
    InputError
        If it cannot be read or holds something else.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{path}: a mapping of settings is needed, for example '{example}'")
    return content
