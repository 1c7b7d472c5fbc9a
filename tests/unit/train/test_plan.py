"""The plan's formulas against the real classes: counted weights, kept bytes, peaks, operations, caches, tokens."""

from __future__ import annotations

import importlib.util
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from ibisagent.errors import InputError
from ibisagent.train.plan import MACHINES, PUBLISHED, ModelSizes, PlanConfig, main, make_plan, model_sizes
from ibisagent.train.plan.activations import Kept, layer_bytes, logit_bytes
from ibisagent.train.plan.command import build_parser, read_config
from ibisagent.train.plan.config import RlRecipe, TokenCounts, Training
from ibisagent.train.plan.episode import episode_tokens
from ibisagent.train.plan.flops import attention_flops, linear_flops
from ibisagent.train.plan.images import image_size
from ibisagent.train.plan.measure import PeakBytes, SavedBytes, measure_rollout, training_loss, write_episode
from ibisagent.train.plan.memory import GIB, kv_bytes, largest_micro_batch, step_activations, train_state, usable_bytes
from ibisagent.train.plan.models import load_config, measure_model
from ibisagent.train.plan.planner import budget_episode
from ibisagent.train.plan.report import assumptions, render
from ibisagent.train.plan.timing import episode_passes, read_flops, rollout_time, train_step

ROOT = Path(__file__).parents[3]
KINDS = ("qwen2_5_vl", "qwen3_vl")
TOTALS = {
    "qwen2.5-vl-7b": 8_292_166_656,
    "qwen2.5-vl-3b": 3_754_622_976,
    "qwen3-vl-8b": 8_767_123_696,
    "qwen3-vl-4b": 4_437_815_808,
}
"""What the published checkpoints hold: 8.29, 3.75, 8.77 and 4.44 billion."""
PROJECTIONS = r".*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def tiny(kind: str) -> Any:
    """A random bf16 model whose sizes all differ, so that no term of a formula hides behind another."""
    import transformers

    text = {
        "vocab_size": 3000,
        "hidden_size": 96,
        "intermediate_size": 512,
        "num_hidden_layers": 3,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 3, 3], "rope_theta": 1e4},
        "eos_token_id": 1,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    vision = {"depth": 4, "hidden_size": 64, "intermediate_size": 112, "num_heads": 4, "out_hidden_size": 96}
    ids = {"image_token_id": 5, "video_token_id": 6, "vision_start_token_id": 3, "vision_end_token_id": 4}
    torch.manual_seed(0)
    if kind == "qwen2_5_vl":
        vision |= {"patch_size": 14, "window_size": 56, "fullatt_block_indexes": [1, 3]}
        config = transformers.Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids)
        return transformers.Qwen2_5_VLForConditionalGeneration(config).to(torch.bfloat16)
    text["head_dim"] = 16
    vision |= {"patch_size": 16, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 2]}
    config = transformers.Qwen3VLConfig(text_config=text, vision_config=vision, **ids)
    return transformers.Qwen3VLForConditionalGeneration(config).to(torch.bfloat16)


def tiny_plan(**training: Any) -> PlanConfig:
    words = TokenCounts(system=60, instruction=20, reply=40, image_height=140, image_width=200)
    return PlanConfig(tokens=words, training=Training(causal_attention_skips=False, **training))


@cache
def sizes_of(name: str) -> ModelSizes:
    return model_sizes(name)


@pytest.fixture(scope="module")
def seven() -> ModelSizes:
    return sizes_of("qwen2.5-vl-7b")


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_are_the_published_ones(name: str) -> None:
    sizes = sizes_of(name)
    assert sizes.num_parameters == TOTALS[name]
    head = sizes.num_embedding + sizes.num_head
    layers = sizes.layers * sum(linear.num_weights for linear in sizes.linears)
    # Norms and biases are what the matrices leave.
    assert 0 < 1 - (sizes.num_vision + head + layers) / sizes.num_parameters < 1e-3


def test_sizes_of_a_folder(tmp_path: Path, seven: ModelSizes) -> None:
    load_config("qwen2.5-vl-7b").save_pretrained(tmp_path)
    found = model_sizes(tmp_path)
    assert found.to_json() | {"name": ""} == seven.to_json() | {"name": ""}


@pytest.mark.parametrize("text", ["{", '{"model_type": "llama"}'])
def test_other_models_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError):
        model_sizes(tmp_path)


@pytest.mark.parametrize("kind", KINDS)
def test_lora_size_is_pefts(kind: str) -> None:
    from peft import LoraConfig, get_peft_model

    model = tiny(kind)
    sizes = measure_model(model, "tiny")
    net = get_peft_model(model, LoraConfig(r=8, target_modules=PROJECTIONS))
    assert sum(part.numel() for part in net.parameters() if part.requires_grad) == sizes.num_lora(8)


# -- images and episodes -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(512, 512), (640, 427), (45, 90), (300, 1000)])
def test_image_tokens_are_the_processors(kind: str, shape: tuple[int, int]) -> None:
    from transformers import Qwen2VLImageProcessorPil
    from transformers.vision_utils import get_vision_window_index

    sizes = measure_model(tiny(kind), "tiny")
    limit = 512 * 512
    processor = Qwen2VLImageProcessorPil(patch_size=sizes.patch, size={"shortest_edge": 56 * 56, "longest_edge": limit})
    out = processor(images=np.zeros((*shape, 3), np.uint8), return_tensors="pt")
    image = image_size(sizes, *shape, limit)
    _, rows, columns = out["image_grid_thw"][0].tolist()
    assert (image.height, image.width) == (rows * sizes.patch, columns * sizes.patch)
    assert out["pixel_values"].shape == (image.patches, sizes.patch_inputs)
    assert image.tokens == image.patches // 4
    if sizes.window:
        _, ends = get_vision_window_index(
            out["image_grid_thw"], spatial_merge_size=2, window_size=sizes.window, patch_size=sizes.patch, kwargs={}
        )
        assert image.window_pairs == int((ends.diff().long() ** 2).sum())


def test_an_image_of_512_pixels() -> None:
    assert image_size(sizes_of("qwen2.5-vl-7b"), 512, 512, 512**2).tokens == 324
    assert image_size(sizes_of("qwen3-vl-8b"), 512, 512, 512**2).tokens == 256


@pytest.mark.parametrize("actions", [0, 1, 7, 20])
def test_episode_tokens_are_a_walk_through_the_turns(seven: ModelSizes, actions: int) -> None:
    config = PlanConfig()
    image = image_size(seven, 512, 512, 512**2)
    episode = episode_tokens(config, image, actions)
    text = config.tokens
    context = text.system + text.instruction + image.tokens + 2 + 2 * text.message_overhead
    read_again = images_again = written_after = 0
    for turn in range(actions + 1):
        read_again += context
        images_again += turn + 1
        written_after += sum(range(context, context + text.reply))
        context += text.reply + text.message_overhead
        if turn < actions:
            context += text.observation + image.tokens + 2 + text.message_overhead
    assert (episode.context, episode.read_again, episode.images_again) == (context, read_again, images_again)
    assert episode.own == (actions + 1) * text.reply
    assert episode.decode_context == pytest.approx(written_after / episode.own, abs=1)


def test_the_budgets_episode_fills_it(seven: ModelSizes) -> None:
    config = PlanConfig()
    image = image_size(seven, 512, 512, 512**2)
    budget = budget_episode(config, image)
    assert 0 <= config.rl.context - budget.context <= config.rl.max_actions + 1


# -- activations -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["qwen2.5-vl-7b", "qwen3-vl-8b"])
def test_kept_bytes_of_a_layer_at_full_size(name: str) -> None:
    """The published layer itself, on tensors without memory."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    from transformers import AutoModelForImageTextToText

    config = load_config(name)
    config.text_config.num_hidden_layers = config.vision_config.depth = 1
    if getattr(config.text_config, "layer_types", None):
        config.text_config.layer_types = config.text_config.layer_types[:1]
    with FakeTensorMode():
        model = AutoModelForImageTextToText.from_config(config, dtype=torch.bfloat16)
        sizes = measure_model(model, name)
        rows = torch.empty(1, 1000, sizes.hidden, dtype=torch.bfloat16, requires_grad=True)
        turns = torch.empty(1, 1000, sizes.head_dim, dtype=torch.bfloat16)
        with SavedBytes(model) as saved:
            model.model.language_model.layers[0](rows, position_embeddings=(turns, turns), attention_mask=None)
    assert saved.total / 1000 == pytest.approx(layer_bytes(sizes, Kept()), rel=0.005)


CASES = [
    # kind, method, checkpointing, tower frozen, scored
    ("qwen2_5_vl", "full", False, True, "own"),
    ("qwen2_5_vl", "full", True, True, "own"),
    ("qwen2_5_vl", "full", True, False, "all"),
    ("qwen2_5_vl", "lora", True, True, "own"),
    ("qwen3_vl", "full", False, False, "all"),
    ("qwen3_vl", "full", True, False, "own"),
    ("qwen3_vl", "lora", False, True, "own"),
    ("qwen3_vl", "lora", True, True, "own"),
]


@pytest.mark.parametrize(("kind", "method", "checkpointing", "frozen", "scored"), CASES)
def test_bytes_and_operations_of_a_training_step(
    kind: str, method: Any, checkpointing: bool, frozen: bool, scored: Any
) -> None:
    """Kept bytes within 3 %, the peak within -14 % to +5 %, operations within 1 %."""
    config = tiny_plan(freeze_vision=frozen, gradient_checkpointing=checkpointing, scored=scored)
    model = tiny(kind).train()
    sizes = measure_model(model, "tiny")
    net = prepare(model, method, config)
    image = image_size(sizes, 140, 200, 512**2)
    episode = write_episode(model, sizes, config, image, 2, "cpu", torch.bfloat16)
    planned_tokens = episode_tokens(config, image, 2)
    planned = step_activations(sizes, config, method, image, planned_tokens)
    own = scored == "own"
    with torch.autocast("cpu", torch.bfloat16, enabled=method == "lora"):
        training_loss(net, episode, own_only=own)[0].backward()  # gradients are there from now on
        with PeakBytes() as peak:
            loss, _logits = training_loss(net, episode, own_only=own)  # a trainer holds the logits, too
            loss.backward()
        if checkpointing:  # a frozen block's inputs are only passed by: do not count them as kept
            for part in model.model.visual.modules() if frozen else ():
                part.gradient_checkpointing = False
        with SavedBytes(net) as saved:
            training_loss(net, episode, own_only=own)
        model.set_attn_implementation("eager")  # torch has no count for the CPU's fused attention
        with FlopCounterMode(display=False) as counted:
            training_loss(net, episode, own_only=own)[0].backward()
    num_scored = planned_tokens.own if own else planned_tokens.context
    kept = planned.text + planned.vision + planned.ends + 4 * sizes.vocabulary * num_scored
    assert saved.total == pytest.approx(kept, rel=0.03)
    # A fresh gradient of the head is there after the loss's peak, not at it: the plan counts it on the safe side.
    fresh = train_state(sizes, config, method, 1).gathered
    assert 0.86 * planned.peak < peak.peak < 1.05 * (planned.peak + fresh)
    passes = episode_passes(sizes, config, method, image, planned_tokens)
    assert counted.get_total_flops() == pytest.approx(passes.total, rel=0.01)


def prepare(model: Any, method: str, config: PlanConfig, *, hooks: bool = False) -> Any:
    """Freeze, checkpoint and adapt as the configuration says."""
    if config.training.freeze_vision:
        model.model.visual.requires_grad_(False)
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if not hooks:  # before peft, which would hang up hooks of its own and forget these
            model.disable_input_require_grads()
    net = model
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        net = get_peft_model(model, LoraConfig(r=config.training.lora_rank, target_modules=PROJECTIONS))
    if config.training.gradient_checkpointing and not hooks:
        model.disable_input_require_grads()
    return net


def test_checkpointing_goes_back_through_a_frozen_tower() -> None:
    """What `tower_graph` plans for: Qwen2.5-VL's tower costs three passes, not one, until the hooks are removed."""
    config = tiny_plan(gradient_checkpointing=True, tower_graph=True)
    model = tiny("qwen2_5_vl").train()
    sizes = measure_model(model, "tiny")
    assert sizes.vision_hooked and not measure_model(tiny("qwen3_vl"), "tiny").vision_hooked
    net = prepare(model, "full", config, hooks=True)
    image = image_size(sizes, 140, 200, 512**2)
    episode = write_episode(model, sizes, config, image, 2, "cpu", torch.bfloat16)
    model.set_attn_implementation("eager")
    counts = []
    for hooked in (True, False):
        with FlopCounterMode(display=False) as counted:
            training_loss(net, episode, own_only=True)[0].backward()
        counts.append(counted.get_total_flops())
        training = config.training.model_copy(update={"tower_graph": hooked})
        changed = config.model_copy(update={"training": training})
        passes = episode_passes(sizes, changed, "full", image, episode_tokens(config, image, 2))
        assert counts[-1] == pytest.approx(passes.total, rel=0.02)
        model.disable_input_require_grads()
    assert counts[0] > 1.1 * counts[1]


# -- rollouts ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_keys_and_values_are_the_caches(kind: str) -> None:
    config = tiny_plan().model_copy(update={"tokens": TokenCounts(system=9, reply=4, image_height=84, image_width=84)})
    model = tiny(kind).eval()
    sizes = measure_model(model, "tiny")
    image = image_size(sizes, 84, 84, 512**2)
    episode = write_episode(model, sizes, config, image, 2, "cpu", torch.bfloat16)
    measured = measure_rollout(model, episode, live=3)
    planned = episode_tokens(config, image, 2)
    assert measured.tokens == planned.context - config.tokens.message_overhead  # nothing follows the last reply
    assert measured.cache_bytes == 3 * measured.tokens * kv_bytes(sizes)


@pytest.mark.parametrize("reuse", [True, False])
def test_operations_of_reading(reuse: bool) -> None:
    """Against a sum over turns, and (with reuse) the whole sequence as one pass."""
    config = PlanConfig(rl=RlRecipe(reuse=reuse, share_prompt=False))
    sizes = sizes_of("qwen2.5-vl-7b")
    image = image_size(sizes, 512, 512, 512**2)
    episode = episode_tokens(config, image, 8)
    read, images = read_flops(sizes, config, episode)
    turn = (episode.context - episode.prompt - config.tokens.reply - config.tokens.message_overhead) / 8
    total = 9 * 2.0 * sizes.hidden * sizes.vocabulary
    if reuse:
        total += linear_flops(sizes) * episode.read
        total += attention_flops(sizes, episode.context) * episode.read / episode.context
    else:
        for index in range(9):
            length = episode.prompt + index * turn
            total += linear_flops(sizes) * length + attention_flops(sizes, length)
    assert read == pytest.approx(total, rel=0.01)
    assert images == (9 if reuse else 45)


# -- memory and time ---------------------------------------------------------------------------------------------------


def test_state_is_what_adamw_holds() -> None:
    model = tiny("qwen2_5_vl").float()
    sizes = measure_model(model, "tiny")
    model.model.visual.requires_grad_(False)
    trained = [part for part in model.parameters() if part.requires_grad]
    optimizer = torch.optim.AdamW(trained)
    for part in trained:
        part.grad = torch.zeros_like(part)
    optimizer.step()
    moments = sum(value.nbytes for state in optimizer.state.values() for value in state.values() if value.ndim)
    state = train_state(sizes, PlanConfig(training=Training(compute_bytes=4)), "full", 1)
    assert state.trained == sum(part.numel() for part in trained)
    assert state.optimizer == moments
    assert state.weights == sum(part.nbytes for part in model.parameters())
    assert state.gradients == sum(part.grad.nbytes for part in trained)


@pytest.mark.parametrize(("sharding", "each"), [("none", 18), ("zero1", 2 + 4 + 12 / 8), ("zero2", 2 + 16 / 8)])
def test_bytes_of_a_trained_parameter(seven: ModelSizes, sharding: Any, each: float) -> None:
    config = PlanConfig(training=Training(sharding={"full": sharding, "lora": "none"}, freeze_vision=False))
    state = train_state(seven, config, "full", 8)
    assert (state.total - state.gathered) / seven.num_parameters == pytest.approx(each)


def test_full_sharding_splits_everything(seven: ModelSizes) -> None:
    config = PlanConfig(training=Training(freeze_vision=False))
    eight, sixteen = (train_state(seven, config, "full", gpus) for gpus in (8, 16))
    assert (eight.total - eight.gathered) * 8 == pytest.approx(16 * seven.num_parameters)
    assert (sixteen.total - sixteen.gathered) * 2 == pytest.approx(eight.total - eight.gathered)
    away = train_state(seven, PlanConfig(training=Training(offload_optimizer=True)), "full", 8)
    assert away.optimizer == 0 and away.host > 0


def test_the_largest_micro_batch_fits_and_one_more_does_not(seven: ModelSizes) -> None:
    config = PlanConfig()
    image = image_size(seven, 512, 512, 512**2)
    episode = episode_tokens(config, image, 20)
    most = largest_micro_batch(seven, config, "full", 8, image, episode, 0.0)
    state = train_state(seven, config, "full", 8).total
    assert state + step_activations(seven, config, "full", image, episode, most).peak <= usable_bytes(config)
    assert state + step_activations(seven, config, "full", image, episode, most + 1).peak > usable_bytes(config)


def test_scoring_all_tokens_costs_their_logits(seven: ModelSizes) -> None:
    image = image_size(seven, 512, 512, 512**2)
    episode = episode_tokens(PlanConfig(), image, 20)
    every = step_activations(seven, PlanConfig(training=Training(scored="all")), "full", image, episode)
    assert every.logits == logit_bytes(seven, episode.context, 2) == episode.context * 152064 * 14


def test_time_of_a_step_by_hand(seven: ModelSizes) -> None:
    """6 N D and the recomputed 2 N D, over the peak: within what attention, images and the head add."""
    config = PlanConfig()
    image = image_size(seven, 512, 512, 512**2)
    episode = episode_tokens(config, image, 8.69)
    step = train_step(seven, config, "full", 16, image, episode, 256, 8)
    matrices = seven.layers * sum(linear.num_weights for linear in seven.linears)
    floor = 8 * matrices * episode.context * 256 / (16 * 312e12 * 0.40)
    assert floor < step.seconds < 1.2 * floor
    assert 0.25 < step.mfu < 0.40
    half = train_step(seven, config, "full", 8, image, episode, 256, 8)
    assert half.seconds == pytest.approx(2 * step.seconds)


def test_writing_is_bound_by_bandwidth(seven: ModelSizes) -> None:
    config = PlanConfig()
    image = image_size(seven, 512, 512, 512**2)
    episode = episode_tokens(config, image, 8.69)
    one = rollout_time(seven, config, 1, image, episode, 1, 1)
    weights = 2 * (seven.num_text - seven.num_embedding)
    least = episode.own * weights / (2.039e12 * 0.60) * config.speeds.straggler
    assert least < one.write_seconds < 1.05 * least
    many = rollout_time(seven, config, 1, image, episode, 64, 64)
    assert many.write_seconds < 4 * one.write_seconds  # 64 episodes share each reading of the weights
    assert rollout_time(seven, config, 1, image, episode, 64, 20).waves == 4


def test_plan_of_the_papers_recipe(seven: ModelSizes) -> None:
    plan = make_plan(PlanConfig(), seven)
    cases = {(case.method, case.gpus): case for case in plan.cases}
    assert cases["full", 1].short_bytes > 40 * GIB and cases["full", 1].rl_hours is None
    paper = cases["full", 16]
    assert paper.micro_batch_budget >= 1 and paper.rl_updates == 2852 and paper.sft_updates == 1842
    assert paper.rl_hours < paper.rl_hours_no_reuse < paper.rl_hours_longest
    assert cases["lora", 1].rl_hours > 10 * cases["lora", 16].rl_hours
    faster = make_plan(PlanConfig(machine=MACHINES["h200"], gpus=(16,), methods=("full",)), seven).cases[0]
    assert faster.rl_hours < paper.rl_hours and faster.micro_batch_longest > paper.micro_batch_longest


# -- the command -------------------------------------------------------------------------------------------------------


def test_json_round_trips_through_its_own_config(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["--json", "--gpus", "8", "--gpu", "h100-80g", "--set", "training.lora_rank=16"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["config"]["training"]["lora_rank"] == 16 and first["config"]["machine"]["name"] == "h100-80g"
    assert [case["gpus"] for case in first["cases"]] == [8, 8]
    (tmp_path / "plan.yaml").write_text(json.dumps(first["config"]))
    assert main(["--json", "--config", str(tmp_path / "plan.yaml")]) == 0
    assert json.loads(capsys.readouterr().out) == first


@pytest.mark.parametrize(
    "words",
    [
        ["--set", "training.speed=3"],
        ["--set", "training"],
        ["--set", "nothing.here=1"],
        ["--set", "training.lora_rank=-1"],
        ["--gpus", "0"],
        ["--gpus", "x"],
        ["--model", "no-such-model"],
        ["--config", "/no/such/file.yaml"],
    ],
)
def test_what_cannot_be_used_ends_with_one_line(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_set_keeps_what_it_does_not_name() -> None:
    config = read_config(build_parser().parse_args(["--set", "rl.group=8", "--set", "rl.reuse=no"]))
    assert config == PlanConfig(rl=RlRecipe(group=8, reuse=False))


def test_every_assumption_is_printed_with_its_meaning(seven: ModelSizes) -> None:
    rows = list(assumptions(PlanConfig()))
    assert len(rows) > 50
    assert [name for name, _, meaning in rows if not meaning] == []
    text = render(make_plan(PlanConfig(gpus=(8,)), seven))
    assert all(name in text for name, _, _ in rows)


def test_the_page_is_current(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--markdown"]) == 0
    page = (ROOT / "docs" / "plan-7b.md").read_text(encoding="utf-8")
    assert page == capsys.readouterr().out, "run: ibisagent train plan --markdown --out docs/plan-7b.md"


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_benchmark_runs_on_a_tiny_model(method: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = importlib.util.spec_from_file_location("plan_check", ROOT / "benchmarks" / "plan_check.py")
    assert spec is not None and spec.loader is not None
    plan_check = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(plan_check)
    tiny("qwen2_5_vl").config.save_pretrained(tmp_path)
    words = ["--model", str(tmp_path), "--method", method, "--device", "cpu", "--actions", "1", "--live", "2"]
    assert plan_check.main([*words, "--image", "112", "--reply", "6"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert 0.9 < out["training"]["memory_gib"]["measured_over_planned"] < 1.1
    assert out["rollout"]["cache_gib"]["measured_over_planned"] == 1
    assert out["rollout"]["tokens_a_second"] > 0
