"""verl: prompts for reinforcement learning, as ``RLHFDataset`` reads them.

``OUT/TABLE/SPLIT-00000-of-0000N.parquet``; give the files of a split as ``data.train_files``.

``data_source`` ``ibisagent/SOURCE``; ``prompt`` with ``<image>`` where an image stands, ``images`` in that order;
``ability`` ``segmentation`` or ``vqa``; ``reward_model`` ``{"style": "rule", "ground_truth": JSON}``;
``extra_info`` with ``index``, ``split``, the names of the case and its pixel spacing; ``agent_name`` ``ibisagent``, our
agent loop (:mod:`ibisagent.train.rl.verl_loop`), or for a visual question verl's ``single_turn_agent``.
``ground_truth`` is a string, as verl's own data have it: ``{"kind": "mask", "mask": {"size", "counts"} | null}`` (COCO
RLE on the image's grid, null where the target is absent) or ``{"kind": "answer", "answer": …, "closed": …}``. An agent
loop finds the image without a mask on it in ``source_image`` (PNG) and the given mask in
``extra_info["initial_mask"]`` (RLE as JSON, empty for none).

What the format cannot say: nothing of what a prompt holds is lost. Trajectories (``sft``) have no place in it, so
loss spans do not arise. Our agent loop scores its runs itself; verl's own ``default_compute_score`` knows neither masks
nor our answers: for another loop, or for visual questions, give it ``custom_reward_function``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.corpus.converters.convert import Conversion
from ibisagent.engine.corpus.converters.dialogue import placeholder_text, shown_masks, vqa_messages
from ibisagent.engine.corpus.converters.parquet import picture_type, write_rows
from ibisagent.engine.corpus.converters.pictures import Pictures
from ibisagent.engine.corpus.schema import NO_MASK

if TYPE_CHECKING:
    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["write"]

_RESERVED = ("<image>", "<video>")
_EXTRA = ("id", "split", "image_id", "sample", "source", "group", "licence", "modality")
_ASKED = ("target", "scenario", "instruction", "question", "initial_mask")


def write(corpus: Corpus, table: str, split: str | None, out: Path, per_turn: bool) -> Conversion:
    """Write a table; called by :func:`~.convert.convert`. `per_turn` means nothing to prompts."""
    import pyarrow as pa

    text = pa.string()
    columns = {
        "data_source": text,
        "prompt": pa.list_(pa.struct([("role", text), ("content", text)])),
        "images": pa.list_(picture_type()),
        "ability": text,
        "agent_name": text,
        "reward_model": pa.struct([("style", text), ("ground_truth", text)]),
        "extra_info": pa.struct(
            [
                ("index", pa.int64()),
                *((name, text) for name in (*_EXTRA, *_ASKED)),
                ("spacing_mm", pa.list_(pa.float64())),
            ]
        ),
        "source_image": picture_type(),
    }
    files, index = [], 0
    for path in corpus.shards(table, split):

        def rows(path: Path = path) -> Iterator[dict[str, Any]]:
            nonlocal index
            for row in corpus.shard_rows(path, table):
                yield _row(corpus, table, row, index)
                index += 1

        files.append(out / table / path.name)
        # The bare picture is for the agent loop, not for the prompt: it stays bytes until it is needed.
        write_rows(files[-1], columns, rows(), pictures=("images",))
    return Conversion("verl", table, tuple(files), index, index)


def _row(corpus: Corpus, table: str, row: Mapping[str, Any], index: int) -> dict[str, Any]:
    pictures = Pictures(corpus, row)
    extra: dict[str, Any] = {name: row.get(name) for name in (*_EXTRA, *_ASKED)}
    extra["spacing_mm"] = corpus.image_row(row["image_id"])["spacing_mm"]
    if table == "vqa":
        name, messages = row["question_id"], vqa_messages(row)[:-1]
        truth: dict[str, Any] = {"kind": "answer", "answer": row["answer"], "closed": row["closed"]}
        extra["initial_mask"] = ""
    else:
        name, messages = row["prompt_id"], row["messages"]
        truth = {"kind": "mask", "mask": row["target_mask"]}
        initial = corpus.rle(row, row["initial_mask"])
        extra["initial_mask"] = "" if initial is None else initial.model_dump_json()
    return {
        "data_source": f"ibisagent/{row['source']}",
        "prompt": [
            {"role": message["role"], "content": placeholder_text(message, "<image>", _RESERVED, name)}
            for message in messages
        ],
        "images": [pictures.cell(number) for number in shown_masks(messages)],
        "ability": "vqa" if table == "vqa" else "segmentation",
        "agent_name": "single_turn_agent" if table == "vqa" else "ibisagent",
        "reward_model": {"style": "rule", "ground_truth": json.dumps(truth, ensure_ascii=False)},
        "extra_info": {**extra, "index": index, "id": name},
        "source_image": pictures.cell(NO_MASK),
    }
