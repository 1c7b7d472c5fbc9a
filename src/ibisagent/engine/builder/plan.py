"""The plan of a build: which samples there are, in which shards, and what is wrong with the data sets."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ibisagent.engine.sources.registry import open_source
from ibisagent.engine.sources.sample import Fault, Sample
from ibisagent.engine.splits import split_of
from ibisagent.errors import InputError

if TYPE_CHECKING:
    from ibisagent.engine.builder.config import SynthesisConfig

__all__ = ["Plan", "Shard", "make_plan"]


@dataclass(frozen=True)
class Shard:
    """The samples of one file of every table.

    Parameters
    ----------
    split
        Of all of them.
    index, count
        Which shard of how many of its split.
    samples
        In order.
    """

    split: str
    index: int
    count: int
    samples: tuple[Sample, ...]

    @property
    def name(self) -> str:
        """``train-00000-of-00010``, as its files are called."""
        return f"{self.split}-{self.index:05d}-of-{self.count:05d}"

    @property
    def sha256(self) -> str:
        """Hash of its samples' names: what a rerun must find unchanged."""
        names = "\n".join(f"{sample.source}/{sample.key}" for sample in self.samples)
        return hashlib.sha256(f"{self.name}\n{names}".encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Plan:
    """All shards, what could not be planned, and which structures each modality may show."""

    shards: tuple[Shard, ...]
    faults: tuple[Fault, ...]
    names_by_modality: dict[str, tuple[str, ...]]

    @property
    def samples(self) -> list[Sample]:
        """All samples, shard by shard."""
        return [sample for shard in self.shards for sample in shard.samples]


def make_plan(config: SynthesisConfig) -> Plan:
    """List the data sets and cut them into shards.

    Parameters
    ----------
    config
        Settings of the build.

    Returns
    -------
    Plan
        The same settings and files give the same plan.

    Raises
    ------
    InputError
        If a data set does not exist, two have one name, or there is nothing to work on.
    """
    samples: list[Sample] = []
    faults: list[Fault] = []
    names: dict[str, set[str]] = defaultdict(set)
    seen: set[tuple[str, str]] = set()
    sources: set[str] = set()
    for spec in config.sources:
        source = open_source(spec)
        if source.name in sources:
            raise InputError(f"two data sets are called '{source.name}'; give one of them another name (?name=...)")
        sources.add(source.name)
        for item in source.samples():
            if isinstance(item, Fault):
                faults.append(item)
                continue
            if (item.source, item.key) in seen:
                text = f"{item.source}/{item.key} stands twice in its data set; only the first one is used"
                faults.append(Fault(item.source, item.key, "duplicate_id", text))
                continue
            seen.add((item.source, item.key))
            problem = _problem(item, config)
            if problem is not None:
                faults.append(Fault(item.source, item.key, "bad_row", problem))
                continue
            if item.modality is not None:
                names[item.modality].update(item.names)
            if config.splits is None or split_of(item) in config.splits:
                samples.append(item)
        for modality, known in getattr(source, "vocabulary", dict)().items():
            names[modality].update(known)
    if not samples:
        what = "" if config.splits is None else f" in the splits {', '.join(config.splits)}"
        why = f"; {len(faults)} items cannot be used, the first: {faults[0].message}" if faults else ""
        raise InputError(f"nothing to work on: the data sets have no usable sample{what}{why}")
    vocabulary = {modality: tuple(sorted(found)) for modality, found in sorted(names.items())}
    return Plan(_cut(samples, config.shard_images), tuple(faults), vocabulary)


def _problem(sample: Sample, config: SynthesisConfig) -> str | None:
    """Why a sample can serve no table."""
    try:
        f"{sample.source}/{sample.key}".encode()
    except UnicodeEncodeError:
        return "its name is not valid text; rename the file"
    split = split_of(sample)
    used = {*config.sft_splits, *config.rl_splits, *config.test_splits}
    if split not in used and (config.splits is None or split in config.splits):
        return f"its split '{split}' serves no table; name it in sft_splits, rl_splits or test_splits"
    return None


def _cut(samples: Sequence[Sample], size: int) -> tuple[Shard, ...]:
    by_split: dict[str, list[Sample]] = defaultdict(list)
    for sample in samples:
        by_split[split_of(sample)].append(sample)
    shards = []
    for split in sorted(by_split):
        members = by_split[split]
        count = -(-len(members) // size)
        shards += [Shard(split, i, count, tuple(members[i * size : (i + 1) * size])) for i in range(count)]
    return tuple(shards)
