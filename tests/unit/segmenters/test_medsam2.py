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

VIDEO = {
    "maskmem_tpos_enc": (7, 1, 1, 4),
    "no_mem_pos_enc": (1, 1, 32),
    "no_obj_ptr": (1, 32),
    "no_obj_embed_spatial": (1, 4),
    "mask_downsample.weight": (1, 1, 4, 4),
    "memory_attention.layers.0.self_attn.q_proj.weight": (32, 32),
    "memory_attention.norm.bias": (32,),
    "memory_encoder.mask_downsampler.encoder.0.weight": (4, 1, 3, 3),
    "obj_ptr_proj.layers.0.weight": (32, 32),
    "obj_ptr_tpos_proj.weight": (4, 32),
}


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


def original_state(model: Any) -> dict[str, Any]:
    """The model's weights as the original code would have saved them, video memory included."""
    state = model.state_dict()
    result = {old: state[new].clone() for old, new in original_names([1, 2, 2, 1]).items()}
    for i in range(4):
        result[f"sam_prompt_encoder.point_embeddings.{i}.weight"] = state["prompt_encoder.point_embed.weight"][
            i : i + 1
        ]
    matrix = state["prompt_encoder.shared_embedding.positional_embedding"]
    result["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"] = matrix
    return result | {name: torch.zeros(shape) for name, shape in VIDEO.items()}


@pytest.fixture
def checkpoint(tiny_sam2_model: Any, tmp_path: Path) -> Path:
    path = tmp_path / "MedSAM2_latest.pt"
    torch.save({"model": original_state(tiny_sam2_model)}, path)
    return path


def changed(path: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    state = torch.load(path, weights_only=True)["model"]
    change(state)
    torch.save({"model": state}, path)
    return path


def test_every_weight_arrives_where_it_belongs(tiny_sam2_model: Any) -> None:
    mapped = medsam2.map_state(original_state(tiny_sam2_model))
    wanted = tiny_sam2_model.state_dict()
    assert mapped.keys() == wanted.keys()
    for name, value in wanted.items():
        assert torch.equal(mapped[name], value), name


def test_outputs_equal_the_same_weights_under_transformers_names(
    checkpoint: Path, tiny_sam2_folder: Path, tiny_sam2_config: Callable[..., Any], noise_image: Image
) -> None:
    loaded = medsam2.make(str(checkpoint), config=tiny_sam2_config())
    reference = make_sam2(str(tiny_sam2_folder))
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


def test_conforms(checkpoint: Path, tiny_sam2_config: Callable[..., Any]) -> None:
    assert check_segmenter(medsam2.make(str(checkpoint), config=tiny_sam2_config())) == []


def test_the_published_architecture() -> None:
    from transformers import Sam2Model

    with torch.device("meta"):
        model = Sam2Model(medsam2.medsam2_config())
    state = model.state_dict()
    names = original_names([1, 2, 7, 2])
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


def test_a_bare_state_dict_and_half_precision_load(
    tiny_sam2_model: Any, tiny_sam2_config: Callable[..., Any], tmp_path: Path
) -> None:
    path = tmp_path / "bare.pt"
    torch.save({k: v.half() for k, v in original_state(tiny_sam2_model).items()}, path)
    model = medsam2.load_checkpoint(path, tiny_sam2_config())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: s.pop("sam_mask_decoder.conv_s0.bias"),
            "1 weights are missing, the first is mask_decoder.conv_s0.bias",
        ),
        (lambda s: s.update(surprise=torch.zeros(1)), "1 weights are not known to SAM2, the first is surprise"),
        (lambda s: s.update(no_mem_embed=torch.zeros(1, 1, 31)), "another shape .* no_memory_embedding"),
        (lambda s: s.clear(), "weights are missing"),
    ],
    ids=["missing", "unexpected", "shape", "empty"],
)
def test_what_does_not_fit_is_reported(
    checkpoint: Path, tiny_sam2_config: Callable[..., Any], change: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        medsam2.make(str(changed(checkpoint, change)), config=tiny_sam2_config())
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
    checkpoint: Path, tiny_sam2_folder: Path, tiny_sam2_config: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    config = tiny_sam2_config()
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
