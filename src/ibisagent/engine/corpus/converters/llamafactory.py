"""LLaMA-Factory: ShareGPT conversations in JSON lines, pictures as files, and an entry in ``dataset_info.json``.

``OUT/ibisagent_TABLE_SPLIT.jsonl``, ``OUT/images/…``, ``OUT/dataset_info.json`` (entries of others in it stay). Train
with ``dataset_dir: OUT`` and ``dataset: ibisagent_sft_train``; pictures are found because ``media_dir`` is
``dataset_dir`` unless it is set.

What its loader asks: an optional ``system`` message first, then ``human`` and ``gpt`` in turn, ending with ``gpt``
(anything else is skipped with a warning), and exactly as many ``<image>`` as images.

What the format cannot say: which replies are learnt. Its loss falls on all replies, or with ``mask_history: true`` on
the last one alone. So by default every learnt reply becomes an example of its own that ends with it: train with
``mask_history: true``, and the loss falls on just the right replies; wrong actions are seen and never learnt. With
`per_turn` off, whole conversations are written, and replies that must not be learnt are learnt. A span that covers
only a part of a reply cannot be said either way. Use a template that keeps earlier thoughts (``qwen2_vl``; the
reasoning templates cut ``<think>`` out of the history).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.corpus.converters.convert import Conversion
from ibisagent.engine.corpus.converters.dialogue import (
    learnt_replies,
    placeholder_text,
    shown_masks,
    turns,
    vqa_messages,
)
from ibisagent.engine.corpus.converters.pictures import Pictures
from ibisagent.errors import InputError
from ibisagent.io.files import atomic_write, display_name

if TYPE_CHECKING:
    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["write"]

_ROLES = {"system": "system", "user": "human", "assistant": "gpt"}
_RESERVED = ("<image>", "<video>", "<audio>")


def write(corpus: Corpus, table: str, split: str | None, out: Path, per_turn: bool) -> Conversion:
    """Write a table; called by :func:`~.convert.convert`."""
    info = _read_info(out / "dataset_info.json")
    files, num_rows, num_examples, num_masked = [], 0, 0, 0
    for name in corpus.splits(table) if split is None else (split,):
        dataset = f"ibisagent_{table}_{name}"
        files.append(out / f"{dataset}.jsonl")
        with atomic_write(files[-1]) as file:
            for row in corpus.rows(table, name):
                num_rows += 1
                num_masked += table == "sft" and not per_turn and _hides_replies(row)
                for example in _examples(corpus, table, row, per_turn, out):
                    file.write((json.dumps(example, ensure_ascii=False) + "\n").encode())
                    num_examples += 1
        info[dataset] = {
            "file_name": files[-1].name,
            "formatting": "sharegpt",
            "columns": {"messages": "conversations", "images": "images"},
        }
    with atomic_write(out / "dataset_info.json") as file:
        file.write((json.dumps(info, ensure_ascii=False, indent=2) + "\n").encode())
    notes = ["train with mask_history: true; the loss belongs on each example's last reply alone"] if per_turn else []
    if num_masked:
        notes.append(
            f"{num_masked} of {num_rows} trajectories hold replies that must not be learnt, and will be; "
            "write one example a reply instead"
        )
    return Conversion("llamafactory", table, tuple(files), num_rows, num_examples, tuple(notes))


def _examples(
    corpus: Corpus, table: str, row: Mapping[str, Any], per_turn: bool, out: Path
) -> Iterator[dict[str, Any]]:
    pictures = Pictures(corpus, row)
    if table == "vqa":
        yield _example(row["question_id"], vqa_messages(row), pictures, out)
    elif per_turn:
        for number, messages in turns(row):
            yield _example(f"{row['trajectory_id']}#{number}", messages, pictures, out)
    else:
        messages = list(row["messages"])
        while messages and messages[-1]["role"] != "assistant":  # what comes after the last reply teaches nothing
            messages.pop()
        if messages:
            yield _example(row["trajectory_id"], messages, pictures, out)


def _example(name: str, messages: Sequence[Mapping[str, Any]], pictures: Pictures, out: Path) -> dict[str, Any]:
    spoken = [message["role"] for message in messages if message["role"] != "system"]
    if spoken != ["user", "assistant"] * (len(spoken) // 2) or "system" in [m["role"] for m in messages[1:]]:
        raise InputError(f"{name}: user and assistant do not take turns, and LLaMA-Factory would skip it")
    images = []
    for number in shown_masks(messages):
        place = f"images/{pictures.name(number)}"
        # The name says what is in it, so a picture that is there need not be written again.
        if not (out / place).is_file():
            (out / place).parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(out / place) as file:
                file.write(pictures.png(number))
        images.append(place)
    conversations = [
        {"from": _ROLES[message["role"]], "value": placeholder_text(message, "<image>", _RESERVED, name)}
        for message in messages
    ]
    return {"id": name, "conversations": conversations, "images": images}


def _hides_replies(row: Mapping[str, Any]) -> bool:
    replies = {number for number, message in enumerate(row["messages"]) if message["role"] == "assistant"}
    return not replies <= learnt_replies(row)


def _read_info(path: Path) -> dict[str, Any]:
    if not path.exists():
        return {}
    try:
        info = json.loads(path.read_bytes())
    except (OSError, ValueError):
        info = None
    if not isinstance(info, dict):
        raise InputError(f"{display_name(path)}: not a JSON object; move it away or choose another folder")
    return info
