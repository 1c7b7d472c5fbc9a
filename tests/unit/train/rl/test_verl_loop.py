"""verl's agent loop: what it plays is what the other path plays, token for token.

Where verl is installed its own base classes are used (and its worker makes the model's inputs of our output); elsewhere
a stand-in of the parts that are touched.
"""

from __future__ import annotations

import asyncio
import importlib
import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import sample_corpus
import verl_stand_in
from ibisagent.actions import DIALECTS, Click, ClickAction, TerminateAction, Turn, UndoAction
from ibisagent.config import RolloutConfig
from ibisagent.engine.corpus.converters import convert
from ibisagent.episode import Outcome
from ibisagent.errors import InputError
from ibisagent.rewards import load_rubric
from ibisagent.segmenters.rules import RulesSegmenter
from ibisagent.train.rl import verl_worker
from ibisagent.train.rl.play import Player, Rollout
from ibisagent.train.rl.prompts import CorpusPrompts
from ibisagent.train.rl.run_state import Run
from ibisagent.train.rl.verl_rows import prompt_of_row
from sample_rl import CountingSegmenter, ScriptedSampler

verl_stand_in.install()
verl_loop: Any = importlib.import_module("ibisagent.train.rl.verl_loop")
AGENT_NAME, SegmentationAgentLoop = verl_loop.AGENT_NAME, verl_loop.SegmentationAgentLoop

SAMPLING = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "repetition_penalty": 1.0, "logprobs": True}


class Config(dict):  # type: ignore[type-arg]
    """As much of a DictConfig as is touched."""

    __getattr__ = dict.__getitem__


class FakeServer:
    """Answers with the tokens of a script; a reply that ends with ``"…"`` is cut off there."""

    def __init__(self, renderer: Any, replies: Sequence[str], logs: bool = True, version: int = 7) -> None:
        self.renderer, self.replies, self.logs, self.version = renderer, list(replies), logs, version
        self.asked: list[dict[str, Any]] = []

    async def generate(
        self, request_id: str, *, prompt_ids: list[int], sampling_params: dict[str, Any], image_data: Any, **rest: Any
    ) -> Any:
        await asyncio.sleep(0)
        self.asked.append({"request": request_id, "ids": prompt_ids, "params": dict(sampling_params), **rest})
        self.asked[-1]["images"] = image_data
        sampling_params.clear()  # as verl's vLLM server takes them apart
        text = self.replies.pop(0)
        ids = [int(i) for i in self.renderer.reply(text.removesuffix("…"))]
        ids = ids[:-1] if text.endswith("…") else ids
        self.version += 1
        return SimpleNamespace(
            token_ids=ids,
            log_probs=[-0.5 - k for k in range(len(ids))] if self.logs else None,
            num_preempted=1,
            extra_fields={"min_global_steps": self.version, "max_global_steps": self.version},
        )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    sample_corpus.write_sample_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def rows(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """As verl's dataset gives them: read by ``datasets``, without the pictures of the prompt."""
    datasets = pytest.importorskip("datasets")
    out = tmp_path_factory.mktemp("verl")
    done = convert(corpus, "verl", out)
    datasets.disable_progress_bars()
    files = [str(path) for path in done.files]
    loaded = datasets.load_dataset("parquet", data_files=files, cache_dir=str(out / "cache"))["train"]
    return [{k: v for k, v in row.items() if k not in ("images", "prompt")} for row in loaded]


@pytest.fixture(params=["qwen2_5_vl", "nano"])
def processor(request: pytest.FixtureRequest) -> Any:
    return load(request, request.param)


def load(request: pytest.FixtureRequest, kind: str) -> Any:
    if kind == "nano":
        return request.getfixturevalue("vocabulary")
    from ibisagent.policies.processors import load_processor

    return load_processor(request.getfixturevalue("tiny")(kind), kind)


@pytest.fixture(autouse=True)
def segmenter(monkeypatch: pytest.MonkeyPatch) -> Iterator[CountingSegmenter]:
    """The tool of the workers, which live no longer than a test."""
    counting = CountingSegmenter()
    monkeypatch.setattr("ibisagent.registry.make_segmenter", lambda spec, device: counting)
    monkeypatch.setattr(verl_worker, "_WORKERS", {})
    yield counting


Make = Callable[..., Any]


@pytest.fixture
def make_loop() -> Make:
    def make(processor: Any, server: Any = None, response_length: int = 8192, **options: Any) -> Any:
        rollout = Config(name="vllm", prompt_length=4096, response_length=response_length)
        model = Config(path="org/model")
        config = Config(trainer=Config(use_v1=True), actor_rollout_ref=Config(rollout=rollout, model=model))
        return SegmentationAgentLoop(
            trainer_config=SimpleNamespace(config=config),
            server_manager=server,
            tokenizer=processor.tokenizer,
            processor=processor,
            dataset_cls=None,
            data_config=SimpleNamespace(config=Config()),
            hf_model_type=None,
            tools=None,
            name=AGENT_NAME,
            options={
                "segmenter": "rules",
                "reward": "ibis",
                "dialect": "plain",
                "max_steps": 4,
                "threads": None,
                **options,
            },
        )

    return make


def script(name: str) -> list[str]:
    """A run in a dialect: a click, one beside, something unreadable, the end."""
    dialect = DIALECTS[name]

    def click(x: float, y: float) -> str:
        return dialect.format(Turn(thought="t", action=ClickAction(clicks=(Click(x=x, y=y, positive=True),))))

    back = dialect.format(Turn(thought="t", action=UndoAction())) if "undo" in dialect.kinds else "nonsense"
    end = dialect.format(Turn(thought="t", action=TerminateAction(verdict="found", answer="it")))
    # Centres of nano's cells, so that it can say them, on the liver of the sample corpus and beside it.
    return [click(0.3438, 0.4688), click(0.9688, 0.9688), back, "cut…", end]


def play(loop: Any, row: dict[str, Any], **more: Any) -> Any:
    return asyncio.run(loop.run(dict(SAMPLING), priority=3, raw_prompt=[], index=0, **{**row, **more}))


def kept(monkeypatch: pytest.MonkeyPatch) -> list[Rollout]:
    """The runs that loops finish from now on."""
    found: list[Rollout] = []
    finish = Run.finish

    def note(self: Run, rubric: Any) -> Rollout:
        found.append(finish(self, rubric))
        return found[-1]

    monkeypatch.setattr(Run, "finish", note)
    return found


def record(episode: Any) -> dict[str, Any]:
    plain = episode.model_dump(mode="json", exclude={"seconds_total"})
    for step in plain["steps"]:
        step.pop("seconds")
    return plain


@pytest.mark.parametrize(
    ("kind", "dialect"),
    [("qwen2_5_vl", "plain"), ("qwen2_5_vl", "json"), ("qwen2_5_vl", "ibis-paper"), ("nano", "plain")],
)
def test_a_run_equals_the_player_s(
    kind: str,
    dialect: str,
    request: pytest.FixtureRequest,
    corpus: Path,
    rows: list[dict[str, Any]],
    make_loop: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    processor = load(request, kind)
    loop = make_loop(processor, dialect=dialect)
    renderer = loop._worker.renderer
    loop.server_manager = server = FakeServer(renderer, script(dialect))
    finished = kept(monkeypatch)
    output = play(loop, rows[0], session_id=1, global_steps=5)
    (mine,) = finished

    config = RolloutConfig(max_steps=4)
    player = Player(RulesSegmenter(), renderer, load_rubric("ibis"), config, DIALECTS[dialect], name="org/model")
    sampler = ScriptedSampler(renderer, {"0/0": script(dialect), "0/1": script(dialect)})
    _, theirs = player.play([CorpusPrompts(corpus)[0]], 2, sampler, seed=0)

    context = theirs.context
    assert output.prompt_ids == context.ids[: context.num_prompt]
    assert output.response_ids == context.ids[context.num_prompt :]
    assert output.response_mask == [int(own) for own in context.own[context.num_prompt :]]
    assert 0 < sum(output.response_mask) < len(output.response_mask)
    assert record(mine.episode) == record(theirs.episode)
    assert mine.breakdown == theirs.breakdown and output.reward_score == theirs.breakdown.total
    assert [step.invalid is None for step in theirs.episode.steps].count(True) >= 3
    pictures = output.multi_modal_data["images"]
    assert len(pictures) == len(context.images) > 1
    for shown, expected in zip(pictures, context.images, strict=True):
        np.testing.assert_array_equal(np.asarray(shown), expected)
    assert output.num_turns == 10 and output.extra_fields["turn_scores"] == list(
        load_rubric("ibis").turn_rewards(theirs.breakdown)
    )
    info = output.extra_fields["reward_extra_info"]
    assert info["steps"] == 4 and info["reward/format"] == theirs.breakdown.parts["format"]
    # Every request is the conversation so far, with its pictures, under one id.
    assert [a["ids"] for a in server.asked] == [ids for key, ids, _ in sampler.asked if key == "0/1"]
    assert [len(a["images"]) for a in server.asked] == [n for key, _, n in sampler.asked if key == "0/1"]
    assert len({a["request"] for a in server.asked}) == 1 and all(a["priority"] == 3 for a in server.asked)
    # Of the version that began and the one that ended; preemptions add up.
    assert (output.extra_fields["min_global_steps"], output.extra_fields["max_global_steps"]) == (8, 12)
    assert output.metrics.num_preempted == 5 and output.metrics.tool_calls > 0


def test_log_probs_stand_where_the_model_wrote(processor: Any, rows: list[dict[str, Any]], make_loop: Make) -> None:
    loop = make_loop(processor)
    loop.server_manager = FakeServer(loop._worker.renderer, script("plain"))
    output = play(loop, rows[0])
    own = np.array(output.response_mask, bool)
    values = np.array(output.response_logprobs)
    assert len(values) == len(own) and (values[own] < 0).all() and (values[~own] == 0).all()
    starts = own & ~np.concatenate([[False], own[:-1]])
    assert (values[starts] == -0.5).all() and starts.sum() == 5
    loop.server_manager = FakeServer(loop._worker.renderer, script("plain"), logs=False)
    assert play(loop, rows[0]).response_logprobs is None


def test_what_servers_are_told(request: pytest.FixtureRequest, rows: list[dict[str, Any]], make_loop: Make) -> None:
    loop = make_loop(load(request, "qwen2_5_vl"), max_new_tokens=33)
    renderer = loop._worker.renderer
    loop.server_manager = server = FakeServer(renderer, script("plain"))
    play(loop, rows[0])
    for asked in server.asked:
        assert asked["params"].items() >= SAMPLING.items()
        assert asked["params"]["max_tokens"] == 33 and asked["params"]["stop_token_ids"] == [renderer.end_id]
        assert set(asked["params"]["logit_bias"]) == set(renderer.forbidden_ids)
    loop.rollout_config["name"] = "sglang"
    assert "logit_bias" not in loop._params(SAMPLING)


def test_a_control_token_ends_a_reply(
    request: pytest.FixtureRequest, rows: list[dict[str, Any]], make_loop: Make
) -> None:
    """An image's placeholder that the model wrote would be taken for an image."""
    loop = make_loop(load(request, "qwen2_5_vl"))
    renderer = loop._worker.renderer

    class Rogue(FakeServer):
        async def generate(self, *args: Any, **rest: Any) -> Any:
            output = await super().generate(*args, **rest)
            if len(self.asked) == 1:
                output.token_ids.insert(2, renderer.image_id)
                output.log_probs.insert(2, -9.0)
            return output

    loop.server_manager = Rogue(renderer, script("plain"))
    output = play(loop, rows[0])
    ids = output.prompt_ids + output.response_ids
    pictures = [np.asarray(picture) for picture in output.multi_modal_data["images"]]
    assert ids.count(renderer.image_id) == sum(renderer.image_lengths(pictures))
    assert output.response_mask[:3] == [1, 1, 0] and output.response_ids[2] == renderer.end_id
    assert output.response_logprobs[:3] == [-0.5, -1.5, 0.0]


def test_siblings_beside_one_another_share_a_segmenter_and_an_embedding(
    processor: Any, rows: list[dict[str, Any]], make_loop: Make, segmenter: CountingSegmenter, tmp_path: Path
) -> None:
    loops = [make_loop(processor, log_folder=tmp_path / "log") for _ in range(3)]
    assert len({id(loop._worker) for loop in loops}) == 1
    for loop in loops:
        loop.server_manager = FakeServer(loop._worker.renderer, script("plain"))

    async def together() -> list[Any]:
        runs = [loop.run(dict(SAMPLING), session_id=i, global_steps=2, **rows[0]) for i, loop in enumerate(loops)]
        return await asyncio.gather(*runs)

    outputs = asyncio.run(together())
    assert segmenter.num_encoded == 1
    assert len({(tuple(o.response_ids), o.reward_score) for o in outputs}) == 1
    (file,) = (tmp_path / "log").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert sorted(line["sibling"] for line in lines) == [0, 1, 2]
    for line in lines:
        assert (line["update"], line["ended"], line["excluded"]) == (2, "done", None)
        assert line["reward"] == outputs[0].reward_score and line["own_tokens"] == sum(outputs[0].response_mask)


def test_a_failed_tool_gives_no_output(
    processor: Any, rows: list[dict[str, Any]], make_loop: Make, segmenter: CountingSegmenter, tmp_path: Path
) -> None:
    segmenter.broken_row = 18  # where the first click lies
    loop = make_loop(processor, log_folder=tmp_path / "log")
    loop.server_manager = server = FakeServer(loop._worker.renderer, script("plain"))
    assert play(loop, rows[0]) == []
    assert len(server.asked) == 1
    (file,) = (tmp_path / "log").iterdir()
    line = json.loads(file.read_text())
    assert line["excluded"] == "tool_error" and line["reward"] is None and line["ended"] == "error"


def test_a_run_ends_before_verl_would_cut_it(
    processor: Any, rows: list[dict[str, Any]], make_loop: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_loop(processor, max_new_tokens=64)
    whole.server_manager = FakeServer(whole._worker.renderer, script("plain"))
    full = play(whole, rows[0])
    own = np.array(full.response_mask)
    second = int(np.flatnonzero(np.diff(own) == 1)[0]) + 1  # where the second reply begins
    finished = kept(monkeypatch)
    loop = make_loop(processor, response_length=second + 64 + 1, max_new_tokens=64)
    loop.server_manager = FakeServer(loop._worker.renderer, script("plain"))
    output = play(loop, rows[0])
    assert finished[-1].episode.outcome is Outcome.OUT_OF_STEPS and finished[-1].context.num_turns == 2
    assert (
        len(output.response_ids) <= second + 65 and output.response_ids == full.response_ids[: len(output.response_ids)]
    )
    loop = make_loop(processor, response_length=second + 64, max_new_tokens=64)
    loop.server_manager = FakeServer(loop._worker.renderer, script("plain"))
    play(loop, rows[0])
    assert finished[-1].context.num_turns == 1


# -- rows and settings -----------------------------------------------------------------------


def test_rows_are_the_corpus_s_prompts(corpus: Path, rows: list[dict[str, Any]]) -> None:
    prompts = CorpusPrompts(corpus)
    assert len(rows) == len(prompts) and {row["agent_name"] for row in rows} == {AGENT_NAME}
    assert any(row["extra_info"]["initial_mask"] for row in rows)
    for index, row in enumerate(rows):
        found, wanted = prompt_of_row(row), prompts[index]
        assert found.key == wanted.key
        for name in ("instruction", "case_id", "target", "group"):
            assert getattr(found.case, name) == getattr(wanted.case, name), name
        for name in ("sha256", "source", "modality", "geometry"):
            assert getattr(found.case.image, name) == getattr(wanted.case.image, name), name
        for mine, theirs in (
            (found.target, wanted.target),
            (found.case.initial_mask, wanted.case.initial_mask),
            (found.case.image.pixels, wanted.case.image.pixels),
        ):
            assert (mine is None) == (theirs is None)
            if mine is not None and theirs is not None:
                np.testing.assert_array_equal(mine, theirs)


def test_rows_that_cannot_be_played(rows: list[dict[str, Any]]) -> None:
    row = rows[0]

    def changed(**info: Any) -> dict[str, Any]:
        return {**row, "extra_info": {**row["extra_info"], **info}}

    def truth(text: str) -> dict[str, Any]:
        return {**row, "reward_model": {"style": "rule", "ground_truth": text}}

    small = '{"kind": "mask", "mask": {"size": [2, 2], "counts": "04"}}'
    for damaged, words in (
        ({}, "a row: no row of"),
        (truth('{"kind": "answer", "answer": "yes", "closed": true}'), "visual questions"),
        (truth("no json"), "no row of 'ibisagent data convert"),
        (truth(small), "the target is not of the image's size"),
        (changed(image_id="0" * 64), "not the one that it names"),
        (changed(initial_mask="{}"), "no row of"),
        ({**row, "source_image": {"bytes": b"junk", "path": None}}, "no row of"),
        ({**row, "source_image": None}, "no row of"),
    ):
        with pytest.raises(InputError, match=words):
            prompt_of_row(damaged)


def test_questions_go_to_verl_s_own_loop(corpus: Path, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    done = convert(corpus, "verl", tmp_path, table="vqa")
    assert set(pq.read_table(done.files[0])["agent_name"].to_pylist()) == {"single_turn_agent"}


def test_wrong_settings_are_refused(
    request: pytest.FixtureRequest, rows: list[dict[str, Any]], make_loop: Make
) -> None:
    processor = load(request, "nano")
    with pytest.raises(InputError, match="option 'segmentor'"):
        make_loop(processor, segmentor="rules")
    with pytest.raises(InputError, match="option 'max_steps'"):
        make_loop(processor, max_steps=0)
    with pytest.raises(InputError, match="no dialect"):
        make_loop(processor, dialect="latin")
    with pytest.raises(InputError, match="max_response_length"):
        make_loop(processor, response_length=512)
    with pytest.raises(InputError, match="cannot read the system prompt"):
        make_loop(processor, system_prompt="/nowhere/prompt.txt")
    loop = make_loop(processor)
    loop.rollout_config["prompt_length"] = 10
    with pytest.raises(InputError, match=r"data\.max_prompt_length is 10"):
        play(loop, rows[0])
    loop.config["trainer"]["use_v1"] = False
    config = SimpleNamespace(config=loop.config)
    with pytest.raises(InputError, match="use_v1"):
        SegmentationAgentLoop(
            trainer_config=config, server_manager=None, tokenizer=processor.tokenizer, processor=processor,
            dataset_cls=None, data_config=SimpleNamespace(config=Config()),
        )  # fmt: skip


def test_the_prompt_of_the_model_s_folder_is_told(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    processor = load(request, "nano")
    (tmp_path / "system_prompt.txt").write_text("Segment well.\n", encoding="utf-8")
    options = verl_worker.VerlOptions(segmenter="rules", threads=None)
    assert verl_worker.worker_for(options, processor, str(tmp_path)).rules.system_prompt == "Segment well."
    assert verl_worker.worker_for(options, processor, "org/model").rules.system_prompt is None


# -- the recipe ------------------------------------------------------------------------------

RECIPE = Path(__file__).parents[4] / "recipes" / "verl"


def test_the_recipe_is_the_paper_s() -> None:
    import yaml

    from ibisagent.train.rl.config import RlConfig

    (agent,) = yaml.safe_load((RECIPE / "agent.yaml").read_text(encoding="utf-8"))
    assert agent["name"] == AGENT_NAME
    assert agent["_target_"] == f"{SegmentationAgentLoop.__module__}.{SegmentationAgentLoop.__qualname__}"
    options = verl_worker.VerlOptions.of(agent["options"])
    paper = RlConfig.PRESETS["paper"]
    for name in ("reward", "dialect", "max_steps", "max_context", "max_new_tokens"):
        assert getattr(options, name) == paper[name], name
    config = yaml.safe_load((RECIPE / "grpo.yaml").read_text(encoding="utf-8"))
    data, model = config["data"], config["actor_rollout_ref"]
    actor, rollout = model["actor"], model["rollout"]
    assert data["max_prompt_length"] + data["max_response_length"] == paper["max_context"] == rollout["max_model_len"]
    assert data["train_batch_size"] == actor["ppo_mini_batch_size"] == paper["prompts_per_update"]
    assert rollout["n"] == paper["group_size"] and actor["optim"]["lr"] == paper["learning_rate"]
    assert not actor["use_kl_loss"] and not config["algorithm"]["use_kl_in_reward"] and config["trainer"]["use_v1"]
    assert actor["ppo_max_token_len_per_gpu"] >= paper["max_context"]
    assert rollout["limit_images"] >= options.max_steps + 2
    assert rollout["agent"]["default_agent_loop"] == AGENT_NAME


@pytest.mark.skipif(not verl_stand_in.HAS_VERL, reason="verl is not installed")
def test_verl_takes_the_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf
    from verl.utils.config import omega_conf_to_dataclass, validate_config

    for name, value in {"IBIS_RECIPE": str(RECIPE), "IBIS_MODEL": "org/model", "NNODES": "4", "IBIS_RUN": "/r"}.items():
        monkeypatch.setenv(name, value)
    files = ["data.train_files=[/a.parquet,/b.parquet]", "data.val_files=[/c.parquet]"]
    with initialize_config_dir(str(RECIPE), version_base=None):
        config = compose("grpo", overrides=[*files, "+ray_kwargs.ray_init.address=auto"])
    OmegaConf.resolve(config)
    validate_config(config, use_reference_policy=False, use_critic=False)
    assert config.trainer.nnodes == 4 and config.ray_kwargs.ray_init.runtime_env.env_vars.IBIS_RUN == "/r"
    for part in (config.actor_rollout_ref.rollout, config.actor_rollout_ref.actor, config.algorithm):
        omega_conf_to_dataclass(part)  # unknown keys raise


@pytest.mark.skipif(not verl_stand_in.HAS_VERL, reason="verl is not installed")
def test_verl_s_worker_makes_the_loop_from_the_recipe(
    request: pytest.FixtureRequest, rows: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from omegaconf import OmegaConf
    from verl.experimental.agent_loop import agent_loop as verl

    monkeypatch.setenv("IBIS_RUN", str(tmp_path))
    processor = load(request, "qwen2_5_vl")
    (entry,) = OmegaConf.load(RECIPE / "agent.yaml")
    entry.options.update({"segmenter": "rules", "threads": None})
    monkeypatch.setitem(verl._agent_loop_registry, AGENT_NAME, entry)

    async def whole(self: Any, output: Any, validate: bool, **row: Any) -> Any:
        return output

    monkeypatch.setattr(verl.AgentLoopWorker, "_agent_loop_postprocess", whole)
    worker = object.__new__(verl.AgentLoopWorker)
    rollout = {"name": "vllm", "prompt_length": 2048, "response_length": 30720}
    worker.config = OmegaConf.create(
        {"data": {}, "trainer": {"use_v1": True}, "actor_rollout_ref": {"rollout": rollout, "model": {"path": "x"}}}
    )
    worker.tokenizer, worker.processor, worker.hf_model_type = processor.tokenizer, processor, "qwen2_5_vl"
    worker.dataset_cls, worker.tools = None, []
    from ibisagent.train.tokens import Renderer

    worker.llm_client = FakeServer(Renderer(processor), script("ibis-paper"))
    where = {"step": 1, "sample_index": 0, "rollout_n": 0, "validate": False}
    row = {k: v for k, v in rows[0].items() if k != "agent_name"}
    done = worker._run_agent_loop(dict(SAMPLING), where, agent_name=AGENT_NAME, trace=False, session_id=0, **row)
    output = asyncio.run(done)
    assert output.reward_score is not None and output.extra_fields["reward_extra_info"]["steps"] == 4
    assert len(list((tmp_path / "rollouts").glob("*.jsonl"))) == 1


# -- the real verl ---------------------------------------------------------------------------


@pytest.mark.skipif(not verl_stand_in.HAS_VERL, reason="verl is not installed")
def test_verl_makes_the_model_s_inputs_of_it(
    request: pytest.FixtureRequest, rows: list[dict[str, Any]], make_loop: Make
) -> None:
    """verl decodes ids and processes pictures anew: the features must be those that the placeholders stand for."""
    import torch
    from verl.experimental.agent_loop import agent_loop as verl
    from verl.utils.tensordict_utils import list_of_dict_to_tensordict

    processor = load(request, "qwen2_5_vl")
    loop = make_loop(processor)
    assert isinstance(loop, verl.AgentLoopBase)
    assert verl._agent_loop_registry[AGENT_NAME]["_target_"].endswith("verl_loop.SegmentationAgentLoop")
    renderer = loop._worker.renderer
    loop.server_manager = FakeServer(renderer, script("plain"))
    output = play(loop, rows[0])
    assert isinstance(output, verl.AgentLoopOutput)
    ids = torch.tensor(output.prompt_ids + output.response_ids)
    worker: Any = SimpleNamespace(
        processor=processor, tokenizer=processor.tokenizer, _get_mm_processor_kwargs=lambda audio=None: {}
    )
    made = verl.AgentLoopWorker._compute_multi_modal_inputs(worker, output, ids)
    expected = renderer.image_inputs([np.asarray(p) for p in output.multi_modal_data["images"]])
    torch.testing.assert_close(made["pixel_values"], expected["pixel_values"])
    features = made["image_grid_thw"].prod(-1).sum() // processor.image_processor.merge_size**2
    assert int((ids == renderer.image_id).sum()) == int(features)
    fields = output.as_dict()
    assert float(fields["rm_scores"].sum()) == pytest.approx(output.reward_score)
    assert fields["rollout_log_probs"].shape == fields["response_mask"].shape == fields["responses"].shape
    fields.pop("multi_modal_data")
    table = list_of_dict_to_tensordict([{**fields, **rows[0]}])  # as it goes into the transfer queue
    assert table["extra_info"][0] == rows[0]["extra_info"]
