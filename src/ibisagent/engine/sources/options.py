"""Options of a source, ``KIND:PATH?option=value``: which there are, and what their values mean."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from ibisagent.engine.sources.names import clean_name
from ibisagent.engine.sources.sample import Question, Reader, Sample
from ibisagent.errors import InputError
from ibisagent.io.files import one_line

__all__ = ["COMMON", "SPLITS", "CommonOptions", "Options"]

COMMON = ("name", "modality", "view", "licence", "split", "group", "target")
"""Options that most kinds know: name of the data set, what its images are, and how samples are grouped."""

SPLITS = ("train", "val", "test")
"""Values of a split."""


@dataclass(frozen=True)
class CommonOptions:
    """What a user says of a whole data set; whatever is given wins over what the files say, except in the split.

    A split that the files state is kept, so that no option turns a data set's test images into training images.

    Parameters
    ----------
    name
        Name of the data set.
    modality, view, licence
        For all its samples, or None.
    split
        For its samples without a split of their own, or None.
    group
        Regular expression with one group; what it finds in a file's stem is the patient or specimen.
    target
        Name of the structure, for data sets of one.
    """

    name: str
    modality: str | None = None
    view: str | None = None
    licence: str | None = None
    split: str | None = None
    group: str | None = None
    target: str | None = None

    def check_patients(self) -> None:
        """Make sure that something says which samples belong together, for kinds whose files do not.

        Otherwise each file would be a group of its own, and slices of one patient would fall into different splits.

        Raises
        ------
        InputError
            If neither a group pattern nor a split is given.
        """
        if self.group is None and self.split is None:
            raise InputError(
                f"{one_line(self.name)}: no patients and no splits are given; add group=REGEX (for example "
                "group=(.*?)_\\d+$), group=(.*) if every file is a patient of its own, or split=train"
            )

    def group_of(self, stem: str) -> str | None:
        """Patient or specimen of a file; None if no pattern was given.

        Raises
        ------
        InputError
            If the pattern finds nothing in `stem`: a sample without its patient could end up on both sides of a split.
        """
        if self.group is None:
            return None
        found = re.search(self.group, stem)
        if found is None or not found.group(1):
            raise InputError(f"the group pattern '{self.group}' finds nothing in '{one_line(stem)}'; widen it")
        return str(found.group(1))

    def sample(
        self,
        key: str,
        reader: Reader,
        names: tuple[str, ...],
        *,
        stem: str,
        absent: tuple[str, ...] = (),
        modality: str | None = None,
        view: str | None = None,
        group: str | None = None,
        split: str | None = None,
        licence: str | None = None,
        instructions: Mapping[str, tuple[str, ...]] | None = None,
        questions: tuple[Question, ...] = (),
    ) -> Sample:
        """A sample with these options; the keyword arguments are what the files say, and are used where no option is.

        Parameters
        ----------
        stem
            What the group pattern looks at, as a rule the image file's stem.

        Raises
        ------
        InputError
            If the group pattern finds nothing in `stem`.
        """
        return Sample(
            key=key,
            source=self.name,
            reader=reader,
            names=names,
            absent=absent,
            modality=self.modality or modality,
            view=self.view or view,
            group=group if self.group is None else self.group_of(stem),
            split=split or self.split,
            licence=self.licence or licence or "unknown",
            instructions=dict(instructions or {}),
            questions=questions,
        )


class Options:
    """Options of one spec, read by name and checked.

    Parameters
    ----------
    kind
        Kind of the source, for messages.
    values
        Option -> value, percent-decoded.
    extra
        Options of this kind beside the common ones.
    common
        The common options that make sense for it.
    noun
        What messages call a thing of this kind.

    Raises
    ------
    InputError
        If `values` has an option that is neither in `extra` nor in `common`.

    Examples
    --------
    >>> options = Options("npz", {"slices": "3", "modality": "CT"}, extra=("slices", "labels"))
    >>> options.integer("slices", 4, least=1), options.common("brats").modality
    (3, 'CT')
    """

    def __init__(
        self,
        kind: str,
        values: Mapping[str, str],
        extra: Collection[str] = (),
        common: Collection[str] = COMMON,
        noun: str = "source",
    ) -> None:
        allowed = sorted({*extra, *common})
        for option in values:
            if option not in allowed:
                names = ", ".join(allowed) if allowed else "none"
                raise InputError(f"the {noun} '{kind}' has no option '{one_line(option)}'; there are {names}")
        self.kind = kind
        self._values = dict(values)

    def __contains__(self, option: str) -> bool:
        return option in self._values

    def common(self, name: str) -> CommonOptions:
        """The common options; `name` is the data set's name where none is given.

        Raises
        ------
        InputError
            If the split is none of :data:`SPLITS`, or the group pattern is no regular expression with one group.
        """
        split = self.choice("split", SPLITS, None)
        pattern = self.text("group")
        if pattern is not None:
            try:
                groups = re.compile(pattern).groups
            except re.error as exc:
                raise self._wrong("group", f"a regular expression ({exc})") from None
            if groups != 1:
                raise self._wrong("group", "a regular expression with one group, for example 'patient(\\d+)'")
        target = self.text("target")
        return CommonOptions(
            name=self.text("name") or name,
            modality=self.text("modality"),
            view=self.text("view"),
            licence=self.text("licence"),
            split=split,
            group=pattern,
            target=None if target is None else clean_name(target),
        )

    def text(self, option: str, default: str | None = None) -> str | None:
        """A text; an empty or blank one is refused, because it is a slip.

        Raises
        ------
        InputError
            If it is blank.
        """
        value = self._values.get(option)
        if value is None:
            return default
        if not value.strip():
            raise self._wrong(option, "some text")
        return value

    def suffix(self, option: str, default: str = "") -> str:
        """A text that may be empty."""
        return self._values.get(option, default)

    def choice(self, option: str, values: Collection[str], default: str | None) -> str | None:
        """One of some words.

        Raises
        ------
        InputError
            If it is none of them.
        """
        value = self._values.get(option)
        if value is not None and value not in values:
            raise self._wrong(option, f"one of {', '.join(values)}")
        return default if value is None else value

    def words(self, option: str, values: Collection[str], default: tuple[str, ...]) -> tuple[str, ...]:
        """Several of some words, separated by commas, in the order given and each once.

        Raises
        ------
        InputError
            If one is not known, or none is given.
        """
        value = self._values.get(option)
        if value is None:
            return default
        words = tuple(dict.fromkeys(word.strip() for word in value.split(",") if word.strip()))
        if not words or any(word not in values for word in words):
            raise self._wrong(option, f"some of {', '.join(values)}, separated by commas")
        return words

    def integer(self, option: str, default: int, least: int = 0) -> int:
        """A whole number, at least `least`.

        Raises
        ------
        InputError
            If it is no such number.
        """
        value = self._values.get(option)
        if value is None:
            return default
        if re.fullmatch(r"[0-9]{1,18}", value) is None or int(value) < least:
            raise self._wrong(option, f"a whole number, {least} or more")
        return int(value)

    def flag(self, option: str, default: bool = False) -> bool:
        """``1`` or ``0``.

        Raises
        ------
        InputError
            If it is neither.
        """
        return self.choice(option, ("0", "1"), "1" if default else "0") == "1"

    def path(self, option: str) -> Path | None:
        """A path, or None."""
        value = self.text(option)
        return None if value is None else Path(value)

    def _wrong(self, option: str, wanted: str) -> InputError:
        return InputError(f"{self.kind}: option {option}={one_line(self._values[option], 80)} is not {wanted}")
