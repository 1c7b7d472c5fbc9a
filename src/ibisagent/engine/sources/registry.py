"""Kinds of sources and where each is made. Nothing is imported before it is asked for.

A spec is ``KIND:PATH?option=value&option=value``, for example ``mini:data/mini/cases.jsonl``,
``nifti:DIR?labels=labels.json&modality=CT`` or ``phantoms:1000?seed=0&size=256``. Paths and options are
percent-decoded (``%20`` is a space, ``%3F`` a question mark, ``%26`` an ampersand); a plus sign stays a plus sign.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any
from urllib.parse import unquote

from ibisagent.engine.sources.sample import Source
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

__all__ = ["SOURCES", "make_source", "open_source", "parse_options", "parse_source"]

_HERE = "ibisagent.engine.sources"

SOURCES: dict[str, str] = {
    "mini": f"{_HERE}.mini:MiniSource",
    "biomedparse": f"{_HERE}.biomedparse:BiomedParseSource",
    "npz": f"{_HERE}.npz:NpzSource",
    "folders": f"{_HERE}.folders:FoldersSource",
    "coco": f"{_HERE}.coco:CocoSource",
    "instances": f"{_HERE}.instances:InstancesSource",
    "nifti": f"{_HERE}.nifti:NiftiSource",
    "dicomseg": f"{_HERE}.dicomseg:DicomSegSource",
    "vqa-rad": f"{_HERE}.vqa:VqaRadSource",
    "slake": f"{_HERE}.vqa:SlakeSource",
    "pathvqa": f"{_HERE}.vqa:PathVqaSource",
    "mecovqa": f"{_HERE}.mecovqa:MecoVqaSource",
    "phantoms": f"{_HERE}.phantoms:PhantomSource",
}
"""Import string of every kind's class, made by its ``from_spec(path: str, options: dict[str, str])``."""


def parse_source(spec: str) -> tuple[str, str, dict[str, str]]:
    """Split a spec into its kind, path and options.

    Examples
    --------
    >>> parse_source("folders:my%20scans?target=liver&modality=CT")
    ('folders', 'my scans', {'target': 'liver', 'modality': 'CT'})

    Raises
    ------
    InputError
        If it has no kind or no path, or an option is not ``option=value`` or stands twice.
    """
    kind, _, rest = spec.partition(":")
    path, _, query = rest.partition("?")
    if not kind or not path:
        raise InputError(f"{one_line(spec)!r} is not a source; write KIND:PATH or KIND:PATH?option=value&option=value")
    return kind, unquote(path), parse_options(spec, query)


def parse_options(spec: str, query: str) -> dict[str, str]:
    """Read ``option=value&option=value``, percent-decoded; `spec` is what messages call it.

    Raises
    ------
    InputError
        If a part is not ``option=value``, or an option stands twice.
    """
    options: dict[str, str] = {}
    for part in query.split("&") if query else ():
        option, equals, value = part.partition("=")
        option = unquote(option)
        if not equals or not option:
            raise InputError(f"{one_line(spec)!r}: '{one_line(part)}' is not option=value")
        if option in options:
            raise InputError(f"{one_line(spec)!r}: option '{one_line(option)}' stands twice")
        options[option] = unquote(value)
    return options


def open_source(spec: str) -> Source:
    """Open the data set that a spec names.

    Raises
    ------
    InputError
        If there is no such kind, it has no such option, or there is no such data set.
    """
    return make_source(*parse_source(spec))


def make_source(kind: str, path: str, options: dict[str, str]) -> Source:
    """Open a data set by the parts of its spec; errors as in :func:`open_source`."""
    if kind not in SOURCES:
        raise InputError(f"there is no source '{one_line(kind, 40)}'; there are {', '.join(sorted(SOURCES))}")
    module, _, name = SOURCES[kind].partition(":")
    factory: Any = getattr(import_module(module), name)
    source: Source = factory.from_spec(path, options)
    return source
