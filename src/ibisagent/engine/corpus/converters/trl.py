"""trl 1.16: conversational data with images, for ``SFTTrainer`` and ``GRPOTrainer``.

``OUT/TABLE/SPLIT-00000-of-0000N.parquet``; ``datasets.load_dataset("OUT/sft")`` finds the splits by their names.

sft, vqa
    ``messages`` (content in parts, images as bare ``{"type": "image"}`` places) and ``images`` (as many as places, in
    order), which trl's vision collator fills in. Every message has ``learn``, and ``loss_spans`` stands beside it.
    trl itself does not read them: its collator learns all text, or with ``assistant_only_loss`` all replies. Use our
    own collator, or a chat template that opens ``{% generation %}`` only where ``message.learn`` is set, or `per_turn`.
sft, per_turn
    ``prompt``, ``completion`` and ``images``: one example for each reply that is learnt, so that stock trl with
    ``completion_only_loss`` computes the loss on just the right replies. A span that covers only a part of a reply
    cannot be said so.
rl, test
    ``prompt`` and ``images`` for GRPO, and for rewards and environments the columns ``source_image`` (without a mask
    on it), ``initial_mask``, ``target_mask`` (COCO RLE, null where there is none), ``instruction``, ``target``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.engine.corpus.converters.convert import Conversion
from ibisagent.engine.corpus.converters.dialogue import learnt_replies, shown_masks, turns, vqa_messages
from ibisagent.engine.corpus.converters.parquet import picture_type, rle_type, write_rows
from ibisagent.engine.corpus.converters.pictures import Pictures
from ibisagent.engine.corpus.schema import NO_MASK

if TYPE_CHECKING:
    import pyarrow as pa

    from ibisagent.engine.corpus.reader import Corpus

__all__ = ["write"]

_FACTS = ("target", "modality", "source", "licence", "image_id")


def write(corpus: Corpus, table: str, split: str | None, out: Path, per_turn: bool) -> Conversion:
    """Write a table; called by :func:`~.convert.convert`."""
    columns, pictures = _columns(table, per_turn)
    files, num_rows, num_examples = [], 0, 0
    for path in corpus.shards(table, split):
        seen = 0

        def examples(path: Path = path) -> Iterator[dict[str, Any]]:
            nonlocal seen
            for row in corpus.shard_rows(path, table):
                seen += 1
                yield from _examples(corpus, table, row, per_turn)

        files.append(out / table / path.name)
        num_examples += write_rows(files[-1], columns, examples(), pictures)
        num_rows += seen
    return Conversion("trl", table, tuple(files), num_rows, num_examples)


def _columns(table: str, per_turn: bool) -> tuple[dict[str, pa.DataType], tuple[str, ...]]:
    import pyarrow as pa

    text, number = pa.string(), pa.int32()
    part = pa.struct([("type", text), ("text", text)])
    said = [("role", text), ("content", pa.list_(part))]
    facts = {name: text for name in _FACTS if not (table == "vqa" and name == "target")}
    images = pa.list_(picture_type())
    if table in ("rl", "test"):
        columns = {"id": text, "prompt": pa.list_(pa.struct(said)), "images": images, "source_image": picture_type()}
        columns |= {"initial_mask": rle_type(), "target_mask": rle_type(), "instruction": text, "scenario": text}
        return columns | facts, ("images", "source_image")
    if per_turn:
        talk = pa.list_(pa.struct(said))
        return {"id": text, "prompt": talk, "completion": talk, "images": images} | facts, ("images",)
    messages = pa.list_(pa.struct([*said, ("learn", pa.bool_())]))
    spans = pa.list_(pa.struct([("message", number), ("start", number), ("end", number)]))
    return {"id": text, "messages": messages, "images": images, "loss_spans": spans} | facts, ("images",)


def _examples(corpus: Corpus, table: str, row: Mapping[str, Any], per_turn: bool) -> Iterator[dict[str, Any]]:
    pictures = Pictures(corpus, row)

    def images(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [pictures.cell(number) for number in shown_masks(messages)]

    facts = {name: row[name] for name in _FACTS if name in row}
    if table in ("rl", "test"):
        initial = corpus.rle(row, row["initial_mask"])
        yield {
            "id": row["prompt_id"],
            "prompt": _said(row["messages"]),
            "images": images(row["messages"]),
            "source_image": pictures.cell(NO_MASK),
            "initial_mask": None if initial is None else initial.model_dump(mode="json"),
            "target_mask": row["target_mask"],
            "instruction": row["instruction"],
            "scenario": row["scenario"],
        } | facts
    elif table == "vqa":
        asked = vqa_messages(row)
        spans = [{"message": 1, "start": 0, "end": len(row["answer"])}]
        yield {
            "id": row["question_id"],
            "messages": _said(asked, learnt=frozenset([1])),
            "images": images(asked),
            "loss_spans": spans,
        } | facts
    elif per_turn:
        for number, messages in turns(row):
            yield {
                "id": f"{row['trajectory_id']}#{number}",
                "prompt": _said(messages[:-1]),
                "completion": _said(messages[-1:]),
                "images": images(messages[:-1]),
            } | facts
    else:
        yield {
            "id": row["trajectory_id"],
            "messages": _said(row["messages"], learnt=learnt_replies(row)),
            "images": images(row["messages"]),
            "loss_spans": row["loss_spans"],
        } | facts


def _said(messages: Sequence[Mapping[str, Any]], learnt: frozenset[int] | None = None) -> list[dict[str, Any]]:
    out = []
    for number, message in enumerate(messages):
        content = [{"type": part["type"], "text": part["text"]} for part in message["content"]]
        said: dict[str, Any] = {"role": message["role"], "content": content}
        if learnt is not None:
            said["learn"] = number in learnt
        out.append(said)
    return out
