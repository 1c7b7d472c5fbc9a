"""What every self-contained page is made of: its assets, its data and the policy that binds it to them.

A page carries its images, style and script in itself and asks the network for nothing; its content policy forbids
it to. Data reaches the script as JSON in which no tag can open or close.
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import lru_cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["asset", "content_policy", "data_uri", "script_json", "template"]


@lru_cache(maxsize=32)
def asset(*names: str) -> str:
    """The text of one asset, or of several one after the other."""
    folder = resources.files("ibisagent.web").joinpath("assets")
    return "".join(folder.joinpath(name).read_text(encoding="utf-8") for name in names)


@lru_cache(maxsize=8)
def template(name: str) -> Template:
    """A page's template, which escapes every value that it is not told to trust."""
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    return environment.from_string(asset(name))


def content_policy(style: str, script: str, connect: str | None = None) -> str:
    """Content security policy: this style, this script, images inside the page, and nothing else.

    Parameters
    ----------
    style, script
        As they stand in the page.
    connect
        Where the script may send to (``"'self'"`` on a served page); None is nowhere.
    """
    parts = ["default-src 'none'", "img-src data:", f"style-src {_hash(style)}", f"script-src {_hash(script)}"]
    parts += [f"connect-src {connect}"] if connect is not None else []
    return "; ".join([*parts, "base-uri 'none'", "form-action 'none'"])


def script_json(value: Any) -> str:
    """JSON that may stand inside a script element: no character of it can start a tag or a comment.

    Raises
    ------
    ValueError
        If `value` holds a number that JSON cannot write.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def data_uri(data: bytes, media_type: str) -> str:
    """Bytes as an address that carries them."""
    return f"data:{media_type};base64,{base64.b64encode(data).decode('ascii')}"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode('utf-8')).digest()).decode('ascii')}'"
