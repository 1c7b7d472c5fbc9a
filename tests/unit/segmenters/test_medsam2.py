from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ibisagent.errors import InputError
from ibisagent.hashing import file_hash
from ibisagent.segmenters import medsam2
from ibisagent.segmenters.conformance import check_segmenter
from ibisagent.segmenters.sam2 import Sam2Segmenter
from ibisagent.segmenters.sam2 import make as make_sam2
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def pairs(names: dict[str, str]) -> list[tuple[str, str]]:
    return [(f"{old}.{kind}", f"{new}.{kind}") for old, new in names.items() for kind in ("weight", "bias")]


def original_names(stage_blocks: list[int]) -> dict[str, str]:
    """Original name -> transformers' name, written out from the two module trees and not from our rules."""
    names: dict[str, str] = {}
    trunk, backbone = "image_encoder.trunk", "vision_encoder.backbone"
    names |= {f"{trunk}.{n}": f"{backbone}.{n}" for n in ("pos_embed", "pos_embed_window")}
    names |= pairs({f"{trunk}.patch_embed.proj": f"{backbone}.patch_embed.projection"})
    first = 0
    for stage, count in enumerate(stage_blocks):
        for index in range(first, first + count):
            old, new = f"{trunk}.blocks.{index}", f"{backbone}.blocks.{index}"
            inner = {
                "norm1": "layer_norm1",
                "norm2": "layer_norm2",
                "attn.qkv": "attn.qkv",
                "attn.proj": "attn.proj",
                "mlp.layers.0": "mlp.proj_in",
                "mlp.layers.1": "mlp.proj_out",
            }
            if stage > 0 and index == first:
                inner["proj"] = "proj"
            names |= pairs({f"{old}.{a}": f"{new}.{b}" for a, b in inner.items()})
        first += count
    names |= pairs({f"image_encoder.neck.convs.{i}.conv": f"vision_encoder.neck.convs.{i}" for i in range(4)})
    names["no_mem_embed"] = "no_memory_embedding"

    prompt = {"0": "conv1", "1": "layer_norm1", "3": "conv2", "4": "layer_norm2", "6": "conv3"}
    names |= pairs(
        {f"sam_prompt_encoder.mask_downscaling.{a}": f"prompt_encoder.mask_embed.{b}" for a, b in prompt.items()}
    )
    for n in ("no_mask_embed", "not_a_point_embed"):
        names[f"sam_prompt_encoder.{n}.weight"] = f"prompt_encoder.{n}.weight"

    old, new = "sam_mask_decoder", "mask_decoder"
    for n in ("iou_token", "mask_tokens", "obj_score_token"):
        names[f"{old}.{n}.weight"] = f"{new}.{n}.weight"
    three = {"layers.0": "proj_in", "layers.1": "layers.0", "layers.2": "proj_out"}
    heads = ["iou_prediction_head", "pred_obj_score_head", *(f"output_hypernetworks_mlps.{i}" for i in range(4))]
    names |= pairs({f"{old}.{h}.{a}": f"{new}.{h}.{b}" for h in heads for a, b in three.items()})
    upscale = {"0": "upscale_conv1", "1": "upscale_layer_norm", "3": "upscale_conv2"}
    names |= pairs({f"{old}.output_upscaling.{a}": f"{new}.{b}" for a, b in upscale.items()})
    names |= pairs({f"{old}.{n}": f"{new}.{n}" for n in ("conv_s0", "conv_s1")})
    attention = {"q_proj": "q_proj", "k_proj": "k_proj", "v_proj": "v_proj", "out_proj": "o_proj"}
    for layer in (f"transformer.layers.{i}" for i in range(2)):
        for block in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token"):
            names |= pairs({f"{old}.{layer}.{block}.{a}": f"{new}.{layer}.{block}.{b}" for a, b in attention.items()})
        names |= pairs({f"{old}.{layer}.norm{i}": f"{new}.{layer}.layer_norm{i}" for i in (1, 2, 3, 4)})
        names |= pairs(
            {f"{old}.{layer}.mlp.layers.{i}": f"{new}.{layer}.mlp.proj_{p}" for i, p in ((0, "in"), (1, "out"))}
        )
    final = "transformer.final_attn_token_to_image"
    names |= pairs({f"{old}.{final}.{a}": f"{new}.{final}.{b}" for a, b in attention.items()})
    names |= pairs({f"{old}.transformer.norm_final_attn": f"{new}.transformer.layer_norm_final_attn"})
    return names


def original_memory_names(attention_layers: int) -> dict[str, str]:
    """The same for the memory for video."""
    names = {
        "maskmem_tpos_enc": "memory_temporal_positional_encoding",
        "no_mem_pos_enc": "no_memory_positional_encoding",
        "no_obj_ptr": "no_object_pointer",
        "no_obj_embed_spatial": "occlusion_spatial_embedding_parameter",
    }
    inner = {f"norm{i}": f"layer_norm{i}" for i in (1, 2, 3)} | {"linear1": "linear1", "linear2": "linear2"}
    for block in ("self_attn", "cross_attn_image"):
        inner |= {f"{block}.{n}_proj": f"{block}.{n}_proj" for n in "qkv"}
        inner[f"{block}.out_proj"] = f"{block}.o_proj"
    for layer in (f"memory_attention.layers.{i}" for i in range(attention_layers)):
        names |= pairs({f"{layer}.{a}": f"{layer}.{b}" for a, b in inner.items()})
    encoder = "memory_encoder"
    down = {str(3 * i): f"layers.{i}.conv" for i in range(4)} | {
        str(3 * i + 1): f"layers.{i}.layer_norm" for i in range(4)
    }
    down["12"] = "final_conv"
    names |= pairs(
        {f"{encoder}.mask_downsampler.encoder.{a}": f"{encoder}.mask_downsampler.{b}" for a, b in down.items()}
    )
    block = {
        "dwconv": "depthwise_conv",
        "norm": "layer_norm",
        "pwconv1": "pointwise_conv1",
        "pwconv2": "pointwise_conv2",
    }
    for i in range(2):
        old, new = f"{encoder}.fuser.layers.{i}", f"{encoder}.memory_fuser.layers.{i}"
        names |= pairs({f"{old}.{a}": f"{new}.{b}" for a, b in block.items()})
        names[f"{old}.gamma"] = f"{new}.scale"
    names |= pairs(
        {
            "memory_attention.norm": "memory_attention.layer_norm",
            f"{encoder}.pix_feat_proj": f"{encoder}.feature_projection",
            f"{encoder}.out_proj": f"{encoder}.projection",
            "mask_downsample": "mask_downsample",
            "obj_ptr_proj.layers.0": "object_pointer_proj.proj_in",
            "obj_ptr_proj.layers.1": "object_pointer_proj.layers.0",
            "obj_ptr_proj.layers.2": "object_pointer_proj.proj_out",
            "obj_ptr_tpos_proj": "temporal_positional_encoding_projection_layer",
        }
    )
    return names


def original_state(model: Any) -> dict[str, Any]:
    """The model's weights as the original code would have saved them, with those of the memory if it has one."""
    state = model.state_dict()
    names = original_names([1, 2, 2, 1])
    if "no_object_pointer" in state:
        names |= original_memory_names(2)
    result = {old: state[new].clone() for old, new in names.items()}
    for i in range(4):
        result[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = state["prompt_encoder.point_embed.weight"][
            i : i + 1
        ]
    matrix = state["prompt_encoder.shared_embedding.positional_embedding"]
    result["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = matrix
    return result


@pytest.fixture
def checkpoint(tiny_sam2_video_model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "MedSAM2_latest.pt"
    torch.save({"model": original_state(tiny_sam2_video_model)}, path)
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    state = torch.load(path, weights_only=True)["model"]
    change(state)
    torch.save({"model": state}, path)
    return path


@pytest.mark.parametrize("kind", ["images", "video"])
def test_every_weight_arrives_where_it_belongs(tiny_sam2_model: Any, tiny_sam2_video_model: Any, kind: str) -> None:
    model = tiny_sam2_model if kind == "images" else tiny_sam2_video_model
    mapped = medsam2.map_state(original_state(model))
    wanted = model.state_dict()
    assert mapped.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(mapped[name], value), name


def test_outputs_equal_the_same_weights_under_transformers_names(
    checkpoint: Path, tiny_sam2_video_folder: Path, tiny_sam2_video_config: Callable[..., Any], noise_image: Image
) -> None:
    loaded = medsam2.make(str(checkpoint), config=tiny_sam2_video_config())
    reference = make_sam2(str(tiny_sam2_video_folder))
    prompts = [Prompt(clicks=(PixelClick(9, 9, True),)), Prompt(box=PixelBox(2, 3, 30, 40))]
    for found, wanted in zip(
        loaded.predict(loaded.encode(noise_image), prompts),
        reference.predict(reference.encode(noise_image), prompts),
        strict=True,
    ):
        # not bit for bit: the two files place the weights at other alignments
        np.testing.assert_allclose(found.state, wanted.state, atol=1e-3)
        np.testing.assert_allclose(found.probability, wanted.probability, atol=1e-3)
        assert found.score == pytest.approx(wanted.score, abs=1e-4)
    assert loaded.name == f"medsam2:{checkpoint}"
    assert loaded.weights_sha256 == file_hash(checkpoint)
    assert loaded.capabilities.video
    ends = []
    for segmenter in (loaded, reference):
        track = segmenter.track([noise_image] * 4)
        track.prompt(0, prompts[0])
        ends.append(dict(track.carry(0))[3].state)
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-3)


def test_conforms(checkpoint: Path, tiny_sam2_video_config: Callable[..., Any], noise_image: Image) -> None:
    assert check_segmenter(medsam2.make(str(checkpoint), config=tiny_sam2_video_config()), [noise_image]) == []


def test_the_published_architecture() -> None:
    from transformers import Sam2VideoModel

    with torch.device("meta"):
        model = Sam2VideoModel(medsam2.medsam2_config())
    state = model.state_dict()
    names = original_names([1, 2, 7, 2]) | original_memory_names(4)
    extra = {name for name in state if name not in names.values()}
    assert extra == {
        "prompt_encoder.point_embed.weight",
        "prompt_encoder.shared_embedding.positional_embedding",
        "shared_image_embedding.positional_embedding",
    }
    assert set(names.values()) <= set(state)
    assert state["vision_encoder.backbone.pos_embed"].shape == (1, 96, 7, 7)
    assert model.prompt_encoder.mask_input_size == (128, 128)
    assert model.backbone_feature_sizes == [[128, 128], [64, 64], [32, 32]]
    assert model.image_size == 512 and state["memory_temporal_positional_encoding"].shape == (7, 1, 1, 64)
    assert model.memory_attention.position_ids.shape == (32 * 32, 2)


def test_a_bare_state_dict_in_half_precision_and_without_memory(
    tiny_sam2_video_model: Any, tiny_sam2_video_config: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "bare.pt"
    memory = original_memory_names(2)
    state = {k: v.half() for k, v in original_state(tiny_sam2_video_model).items() if k not in memory}
    torch.save(state, path)
    segmenter = medsam2.make(str(path), config=tiny_sam2_video_config())
    assert not segmenter.capabilities.video
    assert {p.dtype for p in segmenter._model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("sam_mask_decoder.conv_s0.bias"),
            "1 weights are missing, the first is mask_decoder.conv_s0.bias",
        ),
        (lambda s: s.pop("no_obj_ptr"), "1 weights are missing, the first is no_object_pointer"),
        (lambda s: s.update(surprise=torch.zeros(1)), "1 weights are not known to SAM2, the first is surprise"),
        (lambda s: s.update(no_mem_embed=torch.zeros(1, 1, 31)), "another shape .* no_memory_embedding"),
        (lambda s: s.clear(), "weights are missing"),
    ],
    ids=["missing", "part of the memory", "unexpected", "shape", "empty"],
)
def test_what_does_not_fit_is_reported(
    checkpoint: Path, tiny_sam2_video_config: Callable[..., Any], change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        medsam2.make(str(changed(checkpoint, change)), config=tiny_sam2_video_config())
    assert "\n" not in str(error.value) and str(checkpoint) in str(error.value)


def test_another_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(InputError, match="weights are missing"):
        medsam2.make(str(checkpoint))  # the tiny file is not SAM2.1-tiny


class Unsafe:
    """Pickled by reference: loading it would run code."""


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04torn", b"just text"], ids=["empty", "torn", "text"])
def test_damaged_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable PyTorch checkpoint") as error:
        medsam2.make(str(path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [[1, 2], {"model": 3}, {"model": {"a": 1}}], ids=["list", "number", "no tensors"])
def test_files_of_another_kind(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "x.pt"
    torch.save(content, path)
    with pytest.raises(InputError, match="holds no state dict"):
        medsam2.make(str(path))


def test_pickled_code_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"model": Unsafe()}, path)
    with pytest.raises(InputError, match="not a readable PyTorch checkpoint"):
        medsam2.make(str(path))


def test_where_the_file_is_looked_for(
    checkpoint: Path,
    tiny_sam2_folder: Path,
    tiny_sam2_video_config: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import huggingface_hub

    config = tiny_sam2_video_config()
    assert medsam2.make(str(checkpoint.parent), config=config).name == f"medsam2:{checkpoint.parent}"
    folder = medsam2.make(str(tiny_sam2_folder))
    assert isinstance(folder, Sam2Segmenter) and folder.name == f"medsam2:{tiny_sam2_folder}"

    asked: list[tuple[str, str]] = []

    def download(repo: str, file: str) -> str:
        asked.append((repo, file))
        return str(checkpoint)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    medsam2.make("wanglab/MedSAM2", config=config)
    medsam2.make("wanglab/MedSAM2/MedSAM2_CTLesion.pt", config=config)
    assert asked == [("wanglab/MedSAM2", "MedSAM2_latest.pt"), ("wanglab/MedSAM2", "MedSAM2_CTLesion.pt")]

    def offline(*_: Any) -> str:
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    (checkpoint.parent / "second.pt").write_bytes(b"")
    nowhere = checkpoint.parent / "nowhere"
    nowhere.mkdir()
    for arg in (None, "", "missing.pt", "wanglab/MedSAM2", str(checkpoint.parent), str(nowhere), str(nowhere / "x.pt")):
        with pytest.raises(InputError) as error:
            medsam2.make(arg)
        assert "\n" not in str(error.value)
