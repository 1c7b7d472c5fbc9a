"""SAM and SAM2 with random weights, small enough to run a conformance test in under a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.geometry import Geometry
from ibisagent.types import Image

SIDE = 64  # input of the tiny models, in pixels; their decoders answer on 16 x 16

_DECODER = {"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 24}
_PROMPTS = {"hidden_size": 32, "image_size": SIDE, "patch_size": 16, "mask_input_channels": 8}


@pytest.fixture(scope="session")
def tiny_sam_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.manual_seed(0)
    vision = {
        "hidden_size": 32,
        "output_channels": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "window_size": 2,
        "global_attn_indexes": [1],
        "num_pos_feats": 16,
        "mlp_dim": 48,
        "initializer_range": 0.2,
    }
    config = transformers.SamConfig(
        vision_config=vision, prompt_encoder_config=_PROMPTS, mask_decoder_config=_DECODER, initializer_range=0.2
    )
    folder = tmp_path_factory.mktemp("tiny") / "sam"
    transformers.SamModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sam2_config() -> Callable[..., Any]:
    """Builder of a tiny ``Sam2Config``; keywords override the backbone's."""
    transformers = pytest.importorskip("transformers")

    def build(**backbone: Any) -> Any:
        hiera = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [SIDE, SIDE],
            "blocks_per_stage": [1, 2, 2, 1],
            "embed_dim_per_stage": [8, 16, 24, 32],
            "num_attention_heads_per_stage": [1, 2, 2, 4],
            "window_size_per_stage": [8, 4, 4, 2],
            # never the first block of a stage: transformers would divide by zero
            "global_attention_blocks": [4],
            "window_positional_embedding_background_size": [3, 3],
            **backbone,
        }
        vision = {
            "backbone_config": hiera,
            "backbone_channel_list": [32, 24, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 32,
        }
        return transformers.Sam2Config(
            vision_config=vision, prompt_encoder_config=_PROMPTS, mask_decoder_config=_DECODER
        )

    return build


@pytest.fixture(scope="session")
def tiny_sam2_model(tiny_sam2_config: Callable[..., Any]) -> Any:
    import torch
    from transformers import Sam2Model

    torch.manual_seed(0)
    model = Sam2Model(tiny_sam2_config())
    with torch.no_grad():
        for value in model.state_dict().values():
            value.normal_(0.0, 0.3)  # a fresh model has zeros and ones where a wrong key map would go unseen
        # one Fourier matrix serves both; they are separate buffers only in transformers
        model.shared_image_embedding.positional_embedding.copy_(
            model.prompt_encoder.shared_embedding.positional_embedding
        )
    return model.eval()


@pytest.fixture(scope="session")
def tiny_sam2_folder(tmp_path_factory: pytest.TempPathFactory, tiny_sam2_model: Any) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "sam2"
    tiny_sam2_model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_sam2_video_config() -> Callable[..., Any]:
    """Builder of a tiny ``Sam2VideoConfig`` with a short memory; keywords override its own settings."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.sam2_video.configuration_sam2_video import Sam2VideoMaskDecoderConfig

    hidden = 128  # the memory's 64 channels are fixed in transformers; pointers are cut into two pieces of it

    def build(**settings: Any) -> Any:
        hiera = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": 8,
            "image_size": [SIDE, SIDE],
            "blocks_per_stage": [1, 2, 2, 1],
            "embed_dim_per_stage": [8, 16, 24, 32],
            "num_attention_heads_per_stage": [1, 2, 2, 4],
            "window_size_per_stage": [8, 4, 4, 2],
            "global_attention_blocks": [4],
            "window_positional_embedding_background_size": [3, 3],
        }
        vision = {
            "backbone_config": hiera,
            "backbone_channel_list": [32, 24, 16, 8],
            "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": hidden,
        }
        memory = {
            "image_size": SIDE,
            "num_maskmem": 3,
            "max_object_pointers_in_encoder": 4,
            "memory_attention_hidden_size": hidden,
            "memory_attention_num_layers": 2,
            "memory_attention_feed_forward_hidden_size": 16,
            "memory_attention_rope_feat_sizes": [4, 4],
            "memory_encoder_hidden_size": hidden,
            "mask_downsampler_embed_dim": hidden,
            "memory_fuser_num_layers": 2,
            "memory_fuser_embed_dim": hidden,
            "memory_fuser_intermediate_dim": 16,
        }
        return transformers.Sam2VideoConfig(
            vision_config=vision,
            prompt_encoder_config={**_PROMPTS, "hidden_size": hidden},
            mask_decoder_config=Sam2VideoMaskDecoderConfig(**{**_DECODER, "hidden_size": hidden}),
            **{**memory, **settings},
        )

    return build


@pytest.fixture(scope="session")
def tiny_sam2_video_model(tiny_sam2_video_config: Callable[..., Any]) -> Any:
    import torch
    from transformers import Sam2VideoModel

    torch.manual_seed(1)
    model = Sam2VideoModel(tiny_sam2_video_config())
    with torch.no_grad():
        for name, value in model.state_dict().items():
            value.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.15)
        model.shared_image_embedding.positional_embedding.copy_(
            model.prompt_encoder.shared_embedding.positional_embedding
        )
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(9.0)  # the target is there
    return model.eval()


@pytest.fixture(scope="session")
def tiny_sam2_video_folder(tmp_path_factory: pytest.TempPathFactory, tiny_sam2_video_model: Any) -> Path:
    folder = tmp_path_factory.mktemp("tiny") / "sam2_video"
    tiny_sam2_video_model.save_pretrained(folder)
    return folder


@pytest.fixture
def noise_image() -> Image:
    """Smooth RGB noise, 48 wide and 80 high."""
    rng = np.random.default_rng(3)
    coarse = rng.integers(0, 256, (10, 6, 3)).astype(np.uint8)
    return Image(np.repeat(np.repeat(coarse, 8, axis=0), 8, axis=1), Geometry.plane_2d())
