"""Columns of the corpora. One folder holds four tables, each as Parquet shards of one split.

``OUT/data/images/train-00000-of-00010.parquet``  every image once, as PNG
``OUT/data/sft/…``   trajectories for supervised fine-tuning
``OUT/data/rl/…``    prompts for reinforcement learning: a case with its reference mask, and no trajectory
``OUT/data/test/…``  like ``rl``, of the splits that are not trained on, with held-out instruction templates
``OUT/data/vqa/…``   visual questions, where a source has them

Rows name their image by ``image_id``, the SHA-256 of its pixels. Masks are COCO RLE on the image's grid and stand
once in a row's ``masks``; everything else points to them by number, with -1 for "no mask". An image in a message is
the row's image with mask number ``mask`` laid over it by :func:`ibisagent.rendering.agent_overlay`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NO_MASK", "TABLES", "schema"]

NO_MASK = -1
"""Number of a mask where there is none."""

TABLES = ("images", "sft", "rl", "test", "vqa")
"""Names of the tables, which are also the names of the data set's configurations."""


def schema(table: str) -> pa.Schema:
    """The columns of a table.

    Parameters
    ----------
    table
        One of :data:`TABLES`.

    Raises
    ------
    KeyError
        If there is no such table.
    """
    import pyarrow as pa

    text, number, real = pa.string(), pa.int32(), pa.float64()
    rle = pa.struct([("size", pa.list_(number)), ("counts", text)])
    origin = [
        ("image_id", text),
        ("sample", text),
        ("source", text),
        ("group", text),
        ("split", text),
        ("licence", text),
        ("modality", text),
        ("view", text),
    ]
    asked = [
        ("target", text),
        ("scenario", text),
        ("instruction", text),
        ("instruction_category", text),
        ("masks", pa.list_(rle)),
        ("initial_mask", number),
        ("target_mask", rle),
    ]
    part = pa.struct([("type", text), ("text", text), ("mask", number)])
    messages = pa.list_(pa.struct([("role", text), ("content", pa.list_(part))]))
    step = pa.struct(
        [
            ("intent", text),
            ("thought", text),
            ("action", text),
            ("learn", pa.bool_()),
            ("mask", number),
            ("changed_pixels", pa.int64()),
            ("segmenter_score", real),
            ("iou", real),
            ("dice", real),
        ]
    )
    span = pa.struct([("message", number), ("start", number), ("end", number)])
    provenance = pa.struct(
        [
            ("ibisagent_version", text),
            ("segmenter", text),
            ("segmenter_sha256", text),
            ("teacher", text),
            ("config_sha256", text),
            ("seed", pa.int64()),
        ]
    )
    image = pa.struct([("bytes", pa.binary()), ("path", text)])
    spacing = pa.list_(real)
    columns = {
        "images": [*origin, ("width", number), ("height", number), ("spacing_mm", spacing), ("image", image)],
        "sft": [
            ("trajectory_id", text),
            *origin,
            *asked,
            ("expert", text),
            ("messages", messages),
            ("loss_spans", pa.list_(span)),
            ("steps", pa.list_(step)),
            ("outcome", text),
            ("answer", text),
            ("final_iou", real),
            ("final_dice", real),
            ("num_steps", number),
            ("num_clicks", number),
            ("provenance", provenance),
        ],
        "rl": [("prompt_id", text), *origin, *asked, ("messages", messages), ("provenance", provenance)],
        "vqa": [
            ("question_id", text),
            *origin,
            ("question", text),
            ("answer", text),
            ("closed", pa.bool_()),
            ("provenance", provenance),
        ],
    }
    columns["test"] = columns["rl"]
    fields = pa.schema(columns[table])
    if table != "images":
        return fields
    # What `datasets` reads to decode the bytes as pictures.
    return fields.with_metadata({"huggingface": _image_feature(fields)})


def _image_feature(fields: pa.Schema) -> str:
    import json

    import pyarrow as pa

    def feature(kind: pa.DataType) -> object:
        if pa.types.is_list(kind):
            return {"_type": "List", "feature": feature(kind.value_type)}
        return {"_type": "Value", "dtype": {"double": "float64"}.get(str(kind), str(kind))}

    features = {f.name: {"_type": "Image"} if f.name == "image" else feature(f.type) for f in fields}
    return json.dumps({"info": {"features": features}})
