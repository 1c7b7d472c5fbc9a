"""Settings of a training from a preset, a YAML file and the command line, for any pydantic model.

A settings class is a pydantic model with ``extra="forbid"`` and a sentence under every field, which becomes the help of
its flag; ``PRESETS`` in the class names some sets of values. The later of preset, file, ``--set`` and flags wins.
"""

from __future__ import annotations

import argparse
import sys
import types
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NoReturn, TypeVar, Union

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from ibisagent.errors import InputError
from ibisagent.io import settings

__all__ = ["Settings", "load_config", "read_yaml", "write_config"]


class Settings(BaseModel):
    """Base of the settings of a training: unknown names are refused, the sentence under a field is its help."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    """Values by name."""


S = TypeVar("S", bound=Settings)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} ('{self.prog} --help' shows all settings)")


def load_config(cls: type[S], argv: Sequence[str] | None, prog: str, description: str = "") -> S:
    """Settings from the command line.

    Parameters
    ----------
    cls
        The settings class. A field ``learning_rate`` gives ``--learning-rate``; a field of a nested model
        ``--lora.rank``; a boolean ``--name`` and ``--no-name``.
    argv
        Words without the program's name; None takes those of the process.
    prog, description
        For ``--help``.

    Raises
    ------
    InputError
        In one line: an unknown flag, preset or setting, a value that does not fit, a file that cannot be read.
    """
    parser = _Parser(prog=prog, description=description, allow_abbrev=False)
    if cls.PRESETS:
        parser.add_argument("--preset", metavar="NAME", help=f"values to begin with: {', '.join(cls.PRESETS)}")
    parser.add_argument("--config", metavar="FILE", help="YAML file with settings; the command line wins over it")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="any setting, value as YAML")
    names = _add_flags(parser, cls)
    options = vars(parser.parse_args(list(sys.argv[1:] if argv is None else argv)))
    values: dict[str, Any] = {}
    preset = options.get("preset")
    if preset is not None:
        if preset not in cls.PRESETS:
            raise InputError(f"there is no preset '{preset}'; there are {', '.join(cls.PRESETS)}")
        _merge(values, cls.PRESETS[preset])
    where = "settings"
    if options["config"] is not None:
        where = str(options["config"])
        _merge(values, read_yaml(options["config"]))
    for word in options["set"]:
        name, equals, text = word.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes NAME=VALUE, not '{word}'")
        _put(values, name.replace("-", "_").split("."), _scalar(text))
    for name in names:
        if options[name] is not None:
            _put(values, name.split("."), options[name])
    return validated(cls, values, where)


def validated(cls: type[S], values: dict[str, Any], where: str = "settings") -> S:
    """Settings of a class from values.

    Raises
    ------
    InputError
        In one line, naming the first setting that does not fit.
    """
    try:
        return cls.model_validate(values)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            message = f"there is no such setting{_closest(str(first['loc'][-1]), cls)}"
        elif first["type"] == "missing":
            place, message = f"--{place.replace('_', '-')}", "has to be given"
        raise InputError(f"{where}: {place}: {message}" if place else f"{where}: {message}") from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A file with settings of a training; errors as in :func:`ibisagent.io.settings.read_yaml`."""
    return settings.read_yaml(path, "learning_rate: 1e-5")


def write_config(config: BaseModel, path: str | Path) -> None:
    """Write settings as YAML that :func:`load_config` reads."""
    import yaml

    from ibisagent.rendering.png import write_atomic

    # Escaped: PyYAML writes line breaks of Unicode in a way that it reads back as spaces.
    text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
    write_atomic(text.encode(), path)


def _add_flags(parser: argparse.ArgumentParser, cls: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in cls.model_fields.items():
        kind = _without_none(field.annotation)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _add_flags(parser, kind, f"{prefix}{name}.")
            continue
        dest = prefix + name
        names.append(dest)
        flag = "--" + dest.replace("_", "-")
        text = _help(field)
        if kind is bool:
            parser.add_argument(flag, dest=dest, action=argparse.BooleanOptionalAction, default=None, help=text)
        elif typing.get_origin(kind) in (tuple, list):
            parser.add_argument(flag, dest=dest, nargs="+", metavar=_metavar(name), default=None, help=text)
        else:
            metavar = "{" + ",".join(map(str, typing.get_args(kind))) + "}" if _is_choice(kind) else _metavar(name)
            known = _is_choice(kind) and "none" in typing.get_args(kind)  # then it is a word like others
            parser.add_argument(
                flag, dest=dest, metavar=metavar, type=str if known else _flag_value, default=None, help=text
            )
    return names


def _metavar(name: str) -> str:
    return name.rsplit("_", 1)[-1].upper()


def _is_choice(kind: Any) -> bool:
    return typing.get_origin(kind) is Literal


def _without_none(annotation: Any) -> Any:
    if typing.get_origin(annotation) in (Union, types.UnionType):
        kept = [arg for arg in typing.get_args(annotation) if arg is not type(None)]
        return kept[0] if len(kept) == 1 else annotation
    return annotation


def _help(field: FieldInfo) -> str:
    text = " ".join((field.description or "").split()).replace("%", "%%")
    if field.is_required():
        return text
    default = field.get_default(call_default_factory=True)
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{text} (default: {'none' if shown is None or shown == '' else shown})".replace("``", "")


def _flag_value(text: str) -> Any:
    """``none`` as None, everything else as it stands: pydantic reads numbers, 1e-5 among them."""
    return _NONE if text.lower() in ("none", "null") else text


class _None:
    pass


_NONE = _None()


def _scalar(text: str) -> Any:
    import yaml

    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _put(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    for name in path[:-1]:
        inner = values.get(name)
        values[name] = inner = dict(inner) if isinstance(inner, dict) else {}
        values = inner
    values[path[-1]] = None if value is _NONE else value


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    """Nested settings are merged, so that naming one of them does not unset the others."""
    for name, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(name), dict):
            values[name] = {**values[name], **value}
        else:
            values[name] = value


def _closest(name: str, cls: type[BaseModel]) -> str:
    import difflib

    found = difflib.get_close_matches(name, cls.model_fields, n=1)
    return f"; is '{found[0]}' meant?" if found else ""
