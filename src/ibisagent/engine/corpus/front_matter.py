"""The head of a data card, by which ``datasets`` and the hub find the tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ibisagent.engine.corpus.schema import TABLES
from ibisagent.io.files import one_line

__all__ = ["front_matter"]

# Licences that the hub has a name for; others go by "other" and stand in the card in full.
_HUB_LICENCES = frozenset(
    "apache-2.0 mit cc cc0-1.0 cc-by-2.0 cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 "
    "cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 "
    "cc-by-nc-sa-4.0 odc-by odbl pddl bsd-3-clause unknown".split()
)


def front_matter(counted: Mapping[str, Any], name: str) -> str:
    """The YAML head of the card, as the hub and ``datasets`` read it; texts are quoted as JSON, which YAML holds."""
    licences = sorted({licence for by in counted["licences"].values() for licence in by})
    known = sorted({licence.lower() for licence in licences if licence.lower() in _HUB_LICENCES})
    lines = ["---", f"pretty_name: {json.dumps(one_line(name), ensure_ascii=False)}", "language:", "- en"]
    if known and len(known) == len({licence.lower() for licence in licences}):
        lines += ["license:", *(f"- {licence}" for licence in known)]
    else:
        lines += ["license: other", "license_name: see-the-licences-of-the-sources"]
    lines += ["task_categories:", "- image-segmentation", "- image-text-to-text"]
    lines += ["tags:", "- medical", "- agent", "- trajectories", "- interactive-segmentation"]
    lines += ["size_categories:", f"- {_size(max(sum(splits.values()) for splits in counted['tables'].values()))}"]
    # A split without rows would make `datasets` refuse the whole table.
    filled = {
        name: [split for split, count in counted["tables"][name].items() if count]
        for name in TABLES
        if any(counted["tables"].get(name, {}).values())
    }
    default = next((name for name in ("sft", "rl", "test", "vqa", "images") if name in filled), None)
    if filled:
        lines.append("configs:")
    for name, splits in filled.items():
        lines.append(f"- config_name: {name}")
        if name == default:
            lines.append("  default: true")
        lines.append("  data_files:")
        for split in splits:
            lines += [f"  - split: {json.dumps(split)}", f"    path: {json.dumps(f'data/{name}/{split}-*.parquet')}"]
    return "\n".join([*lines, "---"])


def _size(count: int) -> str:
    limits = [(1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M")]
    return next((name for limit, name in limits if count < limit), "1M<n<10M")
