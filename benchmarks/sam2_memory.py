"""MedSAM2's architecture through our segmenter against the original sam2 code, slice by slice; and what a stack costs.

    pip download sam2==1.1.0 --no-deps --no-binary :all: && tar xzf sam2-1.1.0.tar.gz
    python benchmarks/sam2_memory.py --original sam2-1.1.0 --out docs/results/sam2_memory.json

Equality: random weights of the published architecture (Hiera tiny, 512 pixels, memory of seven), saved under the
original names as the published file is, loaded as `--segmenter medsam2:FILE`, and carried through a stack forward and
backward from the prompted slice; the original's `SAM2VideoPredictor` does the same on the same pixel values. This shows
that every weight arrives where it belongs and that the memory is used alike; how good the published weights are it does
not. Cost: a longer stack that is made on demand; resident memory after twenty slices and at the end, seconds a slice.

The original package imports torchvision, hydra and iopath, which only its loaders use; they are stood in for here.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
import types
from collections import OrderedDict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers  # before the stand-ins: it looks for torchvision itself
from transformers import Sam2VideoModel  # noqa: F401

from ibisagent.geometry import Geometry
from ibisagent.segmenters import medsam2
from ibisagent.types import Image, PixelBox, PixelClick, Prompt

HEIGHT, WIDTH, COUNT, KEY = 160, 200, 8, 3
BOUND = 1e-4
"""Largest difference of a probability. A mask prompt differs most: the original squashes its ±10, transformers cuts."""


def import_original(folder: Path) -> None:
    """Make the original package importable."""
    for name in ("iopath", "iopath.common", "iopath.common.file_io", "torchvision", "torchvision.transforms"):
        sys.modules[name] = types.ModuleType(name)
    for name in ("hydra", "hydra.core", "hydra.core.global_hydra"):
        sys.modules[name] = types.ModuleType(name)
    stand_in: Any = sys.modules["iopath.common.file_io"]
    stand_in.g_pathmgr = None
    stand_in = sys.modules["hydra"]
    stand_in.initialize_config_module = lambda *_, **__: None
    stand_in = sys.modules["hydra.core.global_hydra"]
    ready = types.SimpleNamespace(is_initialized=lambda: True)
    stand_in.GlobalHydra = types.SimpleNamespace(instance=lambda: ready)
    stand_in = sys.modules["torchvision.transforms"]
    stand_in.Normalize = stand_in.Resize = stand_in.ToTensor = object
    sys.path.insert(0, str(folder))


def build_original(size: int) -> Any:
    """The original predictor in MedSAM2's architecture, with random weights; every part of it has a say."""
    from sam2.modeling.backbones.hieradet import Hiera
    from sam2.modeling.backbones.image_encoder import FpnNeck, ImageEncoder
    from sam2.modeling.memory_attention import MemoryAttention, MemoryAttentionLayer
    from sam2.modeling.memory_encoder import CXBlock, Fuser, MaskDownSampler, MemoryEncoder
    from sam2.modeling.position_encoding import PositionEmbeddingSine
    from sam2.modeling.sam.transformer import RoPEAttention
    from sam2.sam2_video_predictor import SAM2VideoPredictor

    def position(features: int) -> Any:
        return PositionEmbeddingSine(num_pos_feats=features, normalize=True, scale=None, temperature=10000)

    def attention(**more: Any) -> Any:
        side = size // 16
        plain = {"rope_theta": 10000.0, "embedding_dim": 256, "num_heads": 1, "downsample_rate": 1, "dropout": 0.1}
        return RoPEAttention(feat_sizes=[side, side], **plain, **more)

    trunk = Hiera(
        embed_dim=96,
        num_heads=1,
        stages=[1, 2, 7, 2],
        global_att_blocks=[5, 7, 9],
        window_pos_embed_bkg_spatial_size=[7, 7],
    )
    neck = FpnNeck(
        position_encoding=position(256),
        d_model=256,
        backbone_channel_list=[768, 384, 192, 96],
        fpn_top_down_levels=[2, 3],
        fpn_interp_model="nearest",
    )
    layer = MemoryAttentionLayer(
        activation="relu",
        dim_feedforward=2048,
        dropout=0.1,
        pos_enc_at_attn=False,
        self_attention=attention(),
        d_model=256,
        pos_enc_at_cross_attn_keys=True,
        pos_enc_at_cross_attn_queries=False,
        cross_attention=attention(rope_k_repeat=True, kv_in_dim=64),
    )
    encoder = MemoryEncoder(
        out_dim=64,
        position_encoding=position(64),
        mask_downsampler=MaskDownSampler(kernel_size=3, stride=2, padding=1),
        fuser=Fuser(CXBlock(dim=256, kernel_size=7, padding=3, layer_scale_init_value=1e-6, use_dwconv=True), 2),
    )
    switches = """use_mask_input_as_output_without_sam directly_add_no_mem_embed no_obj_embed_spatial
        use_high_res_features_in_sam multimask_output_in_sam iou_prediction_use_sigmoid use_obj_ptrs_in_encoder
        add_tpos_enc_to_obj_ptrs proj_tpos_enc_in_obj_ptrs use_signed_tpos_enc_to_obj_ptrs
        only_obj_ptrs_in_the_past_for_eval pred_obj_scores pred_obj_scores_mlp fixed_no_obj_ptr
        multimask_output_for_tracking use_multimask_token_for_obj_ptr use_mlp_for_obj_ptr_proj
        binarize_mask_from_pts_for_mem_enc""".split()
    stability = {"via_stability": True, "stability_delta": 0.05, "stability_thresh": 0.98}
    model = SAM2VideoPredictor(
        image_encoder=ImageEncoder(scalp=1, trunk=trunk, neck=neck),
        memory_attention=MemoryAttention(d_model=256, pos_enc_at_input=True, num_layers=4, layer=layer),
        memory_encoder=encoder,
        num_maskmem=7,
        image_size=size,
        sigmoid_scale_for_mem_enc=20.0,
        sigmoid_bias_for_mem_enc=-10.0,
        multimask_min_pt_num=0,
        multimask_max_pt_num=1,
        sam_mask_decoder_extra_args={f"dynamic_multimask_{name}": value for name, value in stability.items()},
        fill_hole_area=0,
        **dict.fromkeys(switches, True),
    ).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if name.endswith("gamma"):  # one millionth at first
                value.normal_(0, 0.3)
            elif any(part in name for part in ("no_mem", "no_obj", "maskmem_tpos", "pos_embed")):
                value.normal_(0, 0.2)
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(8.0)  # the target is there
    return model


def make_slice(index: int) -> Image:
    """A disc that moves and grows, with noise."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = np.hypot(y - 80, x - 100 - 3 * (index % 20)) < 30 + index % 10
    noise = np.random.default_rng(index).normal(0, 10, disc.shape)
    gray = np.clip(60 + 100 * disc + noise, 0, 255).astype(np.uint8)
    return Image(np.repeat(gray[..., None], 3, axis=2), Geometry.plane_2d())


def forms() -> dict[str, dict[int, Prompt]]:
    """Prompts by slice, under a name."""
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[55:105, 85:140] = True
    click, away = PixelClick(100, 80, True), PixelClick(20, 20, False)
    return {
        "one click": {KEY: Prompt(clicks=(click,))},
        "box and click": {KEY: Prompt(box=PixelBox(60, 40, 150, 120), clicks=(away,))},
        "mask, and a click elsewhere": {KEY: Prompt(prior_mask=mask), 1: Prompt(clicks=(click,))},
    }


def run_original(model: Any, segmenter: Any, prompts: dict[int, Prompt]) -> dict[int, Any]:
    """Logits on the slices' grid, by slice."""
    frame, size = segmenter.frame(HEIGHT, WIDTH), model.image_size
    device = torch.device("cpu")
    state: dict[str, Any] = {
        "images": torch.cat([segmenter.pixel_values(make_slice(i)) for i in range(COUNT)]),
        "num_frames": COUNT,
        "video_height": HEIGHT,
        "video_width": WIDTH,
        "device": device,
        "storage_device": device,
        "obj_ids": [],
    }
    state |= {f"offload_{part}_to_cpu": False for part in ("video", "state")}
    state |= {name: OrderedDict() for name in ("obj_id_to_idx", "obj_idx_to_id")}
    for name in ("point_inputs_per_obj", "mask_inputs_per_obj", "output_dict_per_obj", "temp_output_dict_per_obj"):
        state[name] = {}
    state |= {"cached_features": {}, "constants": {}, "frames_tracked_per_obj": {}}
    found = {}
    with torch.inference_mode():
        for index, prompt in prompts.items():
            if prompt.prior_mask is not None:
                model.add_new_mask(state, index, 1, torch.tensor(prompt.prior_mask))
                continue
            points = [frame.to_input(c.x, c.y) for c in prompt.clicks]
            labels = [int(c.positive) for c in prompt.clicks]
            if (box := prompt.box) is not None:
                points = [frame.to_input(box.x0, box.y0), frame.to_input(box.x1, box.y1), *points]
                labels = [2, 3, *labels]
            model.add_new_points_or_box(
                state,
                index,
                1,
                points=torch.tensor(points) / size,  # the same places: the original's own scaling is half a pixel off
                labels=torch.tensor(labels, dtype=torch.int32),
                normalize_coords=False,
            )
        for reverse in (False, True):
            for index, _, masks in model.propagate_in_video(state, start_frame_idx=KEY, reverse=reverse):
                found[index] = masks[0, 0].clone()
    return found


def compare(model: Any, segmenter: Any) -> dict[str, Any]:
    """Largest difference of probabilities on carried slices, and pixels that changed sides, by form of prompt."""
    answers = {}
    for name, prompts in forms().items():
        wanted = run_original(model, segmenter, prompts)
        track = segmenter.track([make_slice(i) for i in range(COUNT)])
        for index, prompt in prompts.items():
            track.prompt(index, prompt)
        worst, changed, spread = 0.0, 0, []
        for reverse in (False, True):
            for index, prediction in track.carry(KEY, reverse=reverse):
                theirs = wanted[index].sigmoid().numpy()
                worst = max(worst, float(np.abs(theirs - prediction.probability).max()))
                changed += int(((wanted[index] > 0).numpy() != prediction.mask).sum())
                spread.append(theirs)
        moving = float(np.ptp(np.stack(spread), axis=0).max())
        answers[name] = {"largest_difference": worst, "changed_pixels": changed, "change_over_slices": round(moving, 4)}
        print(name, answers[name], flush=True)
    return answers


class OnDemand(Sequence[Image]):
    """A stack whose slices are made when they are asked for."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: Any) -> Any:
        return make_slice(index)


def resident_mib() -> float:
    """Resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def cost(segmenter: Any, count: int) -> dict[str, Any]:
    """Resident memory and seconds of a long carry."""
    track = segmenter.track(OnDemand(count))
    track.prompt(0, forms()["one click"][KEY])
    resident, started = [], time.perf_counter()
    for index, _ in track.carry(0):
        resident.append(resident_mib())
        if index % 20 == 0:
            print(f"slice {index}: {resident[-1]:.0f} MiB", flush=True)
    return {
        "slices": count,
        "resident_mib_after_20": round(resident[19]),
        "resident_mib_at_end": round(resident[-1]),
        "seconds_per_slice": round((time.perf_counter() - started) / (count - 1), 2),
    }


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--original", type=Path, required=True, help="unpacked source of sam2 1.1.0")
    parser.add_argument("--size", type=int, default=medsam2.IMAGE_SIZE, help="side of the input; 512 as published")
    parser.add_argument("--slices", type=int, default=100, help="of the stack whose cost is measured")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    import_original(args.original)
    torch.manual_seed(0)
    model = build_original(args.size)
    medsam2.IMAGE_SIZE = args.size
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "random.pt"
        torch.save({"model": model.state_dict()}, path)
        segmenter = medsam2.make(str(path))
    equality = compare(model, segmenter)
    del model
    result = {
        "size": args.size,
        "versions": {"torch": version("torch"), "transformers": transformers.__version__, "sam2": "1.1.0"},
        "machine": f"{platform.machine()}, {torch.get_num_threads()} thread(s)",
        "bound": BOUND,
        "equality": equality,
        "cost": cost(segmenter, args.slices),
    }
    print(json.dumps(result, indent=1))
    if args.out is not None:
        args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return int(any(entry["largest_difference"] > BOUND for entry in equality.values()))


if __name__ == "__main__":
    raise SystemExit(main())
