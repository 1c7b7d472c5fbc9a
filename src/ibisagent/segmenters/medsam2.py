"""MedSAM2's published ``.pt`` (SAM2.1-tiny at 512 pixels) in transformers' ``Sam2VideoModel``.

The file holds ``{"model": state_dict}`` with the names of the original sam2 code, which map one to one
onto ``Sam2VideoModel``, or onto ``Sam2Model`` if the file has nothing of the memory for video.
Anything that is left over or missing is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ibisagent.errors import InputError
from ibisagent.hashing import file_hash
from ibisagent.segmenters.preprocess import IMAGENET
from ibisagent.segmenters.pretrained import is_hub_id, pick_device, require
from ibisagent.segmenters.sam2 import Sam2Segmenter, check_backbone
from ibisagent.segmenters.sam2 import make as make_sam2
from ibisagent.segmenters.sam2_memory import image_config, image_model

if TYPE_CHECKING:
    import torch

__all__ = ["DEFAULT_FILE", "load_checkpoint", "make", "map_state", "medsam2_config"]

DEFAULT_FILE = "MedSAM2_latest.pt"
"""File taken from a hub repository such as ``wanglab/MedSAM2`` where none is named."""

IMAGE_SIZE = 512

# The memory for video, which single images do not use.
_MEMORY = re.compile(
    r"(memory_attention|memory_encoder|mask_downsample|obj_ptr_proj|obj_ptr_tpos_proj)\.|"
    r"(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
_POINT = re.compile(r"sam_prompt_encoder\.point_embeddings\.(\d+)\.weight")
_MLP = re.compile(
    r"((?:.*\.)?(?:mlp|output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head|obj_ptr_proj))"
    r"\.layers\.(\d+)\."
)
_DOWNSAMPLER = re.compile(r"(memory_encoder\.mask_downsampler)\.encoder\.(0|1|3|4|6|7|9|10)\.")
_PE = "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"

_RENAMES = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        # image encoder: trunk (Hiera) and neck (FPN)
        (r"^image_encoder\.trunk\.patch_embed\.proj\.", "vision_encoder.backbone.patch_embed.projection."),
        (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
        (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
        (r"^(vision_encoder\.backbone\.blocks\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        # prompt encoder: the mask branch is a Sequential with activations at 2 and 5
        (r"^sam_prompt_encoder\.mask_downscaling\.0\.", "prompt_encoder.mask_embed.conv1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.1\.", "prompt_encoder.mask_embed.layer_norm1."),
        (r"^sam_prompt_encoder\.mask_downscaling\.3\.", "prompt_encoder.mask_embed.conv2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.4\.", "prompt_encoder.mask_embed.layer_norm2."),
        (r"^sam_prompt_encoder\.mask_downscaling\.6\.", "prompt_encoder.mask_embed.conv3."),
        (r"^sam_prompt_encoder\.", "prompt_encoder."),
        # mask decoder
        (r"^sam_mask_decoder\.output_upscaling\.0\.", "mask_decoder.upscale_conv1."),
        (r"^sam_mask_decoder\.output_upscaling\.1\.", "mask_decoder.upscale_layer_norm."),
        (r"^sam_mask_decoder\.output_upscaling\.3\.", "mask_decoder.upscale_conv2."),
        (r"^sam_mask_decoder\.", "mask_decoder."),
        (r"^(mask_decoder\.transformer\..*)\.out_proj\.", r"\1.o_proj."),
        (r"^(mask_decoder\.transformer\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"^(mask_decoder\.transformer)\.norm_final_attn\.", r"\1.layer_norm_final_attn."),
        (r"^no_mem_embed$", "no_memory_embedding"),
        # memory: attention to it, its encoder (four steps of convolution, norm, activation, then 12), pointers
        (r"^(memory_attention\.layers\.\d+\.\w+)\.out_proj\.", r"\1.o_proj."),
        (r"^(memory_attention\.layers\.\d+)\.norm(\d)\.", r"\1.layer_norm\2."),
        (r"^memory_attention\.norm\.", "memory_attention.layer_norm."),
        (r"^(memory_encoder\.mask_downsampler)\.encoder\.12\.", r"\1.final_conv."),
        (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
        (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
        (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
        (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.dwconv\.", r"\1.depthwise_conv."),
        (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.pwconv(\d)\.", r"\1.pointwise_conv\2."),
        (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.norm\.", r"\1.layer_norm."),
        (r"^(memory_encoder\.memory_fuser\.layers\.\d+)\.gamma$", r"\1.scale"),
        (r"^obj_ptr_proj\.", "object_pointer_proj."),
        (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
        (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
        (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
        (r"^no_obj_ptr$", "no_object_pointer"),
        (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    )
)


def medsam2_config() -> Any:
    """Return the ``Sam2VideoConfig`` of the published MedSAM2: Hiera tiny, 512 pixels."""
    from transformers import Sam2VideoConfig

    quarter = IMAGE_SIZE // 4
    return Sam2VideoConfig(
        vision_config={
            "backbone_config": {"model_type": "sam2_hiera_det_model", "image_size": [IMAGE_SIZE, IMAGE_SIZE]},
            "backbone_feature_sizes": [[quarter >> level, quarter >> level] for level in range(3)],
        },
        prompt_encoder_config={"image_size": IMAGE_SIZE},
        image_size=IMAGE_SIZE,
        memory_attention_rope_feat_sizes=[quarter >> 2, quarter >> 2],
    )


def map_state(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename a state dict of the original sam2 code for ``Sam2VideoModel``.

    Names without a rule pass unchanged, so that the caller's comparison with the model reports them.
    """
    import torch

    last_layer: dict[str, int] = {}
    for key in state:
        if found := _MLP.match(key):
            last_layer[found[1]] = max(last_layer.get(found[1], 0), int(found[2]))

    mapped: dict[str, torch.Tensor] = {}
    points: dict[int, torch.Tensor] = {}
    for key, value in state.items():
        if found := _POINT.fullmatch(key):
            points[int(found[1])] = value
            continue
        if key == _PE:
            # One Fourier matrix serves the image grid and the prompts.
            mapped["shared_image_embedding.positional_embedding"] = value
            mapped["prompt_encoder.shared_embedding.positional_embedding"] = value
            continue
        name = key
        if found := _MLP.match(key):
            layer, last = int(found[2]), last_layer[found[1]]
            part = "proj_in" if layer == 0 else "proj_out" if layer == last else f"layers.{layer - 1}"
            name = f"{found[1]}.{part}.{key[found.end() :]}"
        elif found := _DOWNSAMPLER.match(key):
            layer, is_norm = divmod(int(found[2]), 3)
            name = f"{found[1]}.layers.{layer}.{'layer_norm' if is_norm else 'conv'}.{key[found.end() :]}"
        for pattern, replacement in _RENAMES:
            name = pattern.sub(replacement, name)
        mapped[name] = value
    if points:
        # Four embeddings of one row each (negative, positive, two box corners) become one table.
        mapped["prompt_encoder.point_embed.weight"] = torch.cat([points[i] for i in sorted(points)])
    return mapped


def load_checkpoint(path: Path, config: Any = None) -> Any:
    """Build a ``Sam2VideoModel`` from a file with the original names, or a ``Sam2Model`` if it has no memory.

    Parameters
    ----------
    path
        ``.pt`` file: ``{"model": state_dict}``, or the state dict itself.
    config
        ``Sam2VideoConfig`` of the architecture; None for the published MedSAM2.

    Raises
    ------
    ibisagent.errors.InputError
        If the file cannot be read safely, or a weight is missing, unknown or of another shape.
    """
    import torch
    from transformers import Sam2Model, Sam2VideoModel

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises anything for damaged, huge or unsafe files
        raise InputError(f"{path}: not a readable PyTorch checkpoint ({type(error).__name__})") from error
    state = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise InputError(f'{path}: holds no state dict (expected {{"model": name -> tensor}})')

    config = config if config is not None else medsam2_config()
    check_backbone(config, str(path))
    has_memory = any(_MEMORY.match(key) for key in state)
    model: Any = Sam2VideoModel(config) if has_memory else Sam2Model(image_config(config))
    mapped, wanted = map_state(state), model.state_dict()
    for title, names in (
        ("weights are missing", sorted(wanted.keys() - mapped.keys())),
        ("weights are not known to SAM2", sorted(mapped.keys() - wanted.keys())),
        (
            "weights have another shape than SAM2.1-tiny at 512 pixels",
            sorted(name for name in wanted.keys() & mapped.keys() if wanted[name].shape != mapped[name].shape),
        ),
    ):
        if names:
            raise InputError(f"{path}: {len(names)} {title}, the first is {names[0]}")
    model.load_state_dict(mapped)
    return model.float()


def make(arg: str | None, device: str = "cpu", config: Any = None, batch_size: int = 16) -> Sam2Segmenter:
    """Load MedSAM2.

    Parameters
    ----------
    arg
        A ``.pt`` file; a folder with one ``.pt`` file or a transformers model; a hub id
        ``wanglab/MedSAM2`` (then :data:`DEFAULT_FILE`) or ``wanglab/MedSAM2/FILE.pt``.
    device
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"`` or ``"auto"``.
    config
        ``Sam2VideoConfig`` of a ``.pt`` with another architecture; None for the published one.
    batch_size
        Most prompts decoded at once.

    Raises
    ------
    ibisagent.errors.MissingExtraError
        If torch or transformers is not installed.
    ibisagent.errors.InputError
        If the file or the device cannot be used.
    """
    require("medsam2")
    arg = arg or ""  # a spec without a colon, for which the search below has a message
    chosen = pick_device(device)
    path = _find(arg)
    if path.is_dir():
        segmenter = make_sam2(str(path), device=device, batch_size=batch_size)
        segmenter.name = f"medsam2:{arg}"
        return segmenter
    model = load_checkpoint(path, config)
    has_memory = hasattr(model, "memory_encoder")
    return Sam2Segmenter(
        image_model(model) if has_memory else model,
        video_model=model if has_memory else None,
        name=f"medsam2:{arg}",
        weights_sha256=file_hash(path),
        layout="stretch",
        normalisation=IMAGENET,
        device=chosen,
        batch_size=batch_size,
    )


def _find(arg: str) -> Path:
    """Return the ``.pt`` file that ``arg`` means, or a transformers folder."""
    if not arg:
        raise InputError("medsam2 needs a .pt file, a folder or a hub id, for example medsam2:MedSAM2_latest.pt")
    path = Path(arg).expanduser()
    if path.is_file():
        return path
    if path.is_dir():
        if (path / "config.json").is_file():
            return path
        files = sorted(path.glob("*.pt"))
        if len(files) == 1:
            return files[0]
        raise InputError(
            f"{arg}: {len(files)} .pt files here; name one of them" if files else f"{arg}: no .pt file here"
        )
    repo, file = arg, DEFAULT_FILE
    if arg.endswith(".pt") and arg.count("/") == 2:
        repo, _, file = arg.rpartition("/")
    if repo.endswith(".pt") or not is_hub_id(repo):
        raise InputError(f"{arg}: no such file")
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repo, file))
    except Exception as error:  # the hub's client raises many kinds: HTTP, offline, bad id, full disk
        raise InputError(
            f"{arg}: no such file, and {file} is not to be had from the hub ({type(error).__name__})"
        ) from error
