"""Processes that share a model out play unlike numbers of turns."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from ibisagent.train.rl.sharded import whole  # noqa: E402

SCRIPT = """
import faulthandler
faulthandler.dump_traceback_later(120, exit=True)  # in place of waiting for ever
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from transformers import LlamaConfig, LlamaForCausalLM
from ibisagent.train.rl.sharded import whole
from ibisagent.train.runs import disband

torch.set_num_threads(1)
dist.init_process_group("gloo")
torch.manual_seed(0)
model = LlamaForCausalLM(LlamaConfig(vocab_size=64, hidden_size=32, num_hidden_layers=2, num_attention_heads=2,
                                     intermediate_size=64, max_position_embeddings=128))
ids = torch.tensor([[1, 2, 3, 4]])
with torch.no_grad():
    alone = model(ids).logits
mesh = init_device_mesh("cpu", (2,))
for layer in model.model.layers:
    fully_shard(layer, mesh=mesh)
fully_shard(model, mesh=mesh)
for update in range(2):
    with whole(model), torch.no_grad():
        for turn in range(1 + 3 * dist.get_rank()):
            assert torch.equal(model(ids).logits, alone)
            assert model.generate(ids, max_new_tokens=4, synced_gpus=False, pad_token_id=0).shape[1] > 4
    model(input_ids=ids, labels=ids).loss.backward()  # all together again
    assert type(next(model.parameters())).__name__ == "DTensor"
dist.barrier()
print("whole", flush=True)
disband()  # without this, a process is aborted as it ends, once in some twenty runs
"""


def test_a_model_that_is_not_shared_out_is_left_alone() -> None:
    model = torch.nn.Linear(2, 2)
    with whole(model):
        assert model(torch.zeros(1, 2)).shape == (1, 2)


@pytest.mark.slow
def test_processes_play_unlike_numbers_of_turns(tmp_path: Path) -> None:
    (tmp_path / "play.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, str(tmp_path / "play.py")], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("whole") == 2
