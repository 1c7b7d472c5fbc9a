#!/usr/bin/env bash
# GRPO with verl on one node or several. On the first node:
#
#   IBIS_MODEL=/shared/sft/model IBIS_CORPUS=/shared/verl-rl NNODES=4 recipes/verl/launch.sh
#
# and on every other one, beforehand or while the first one waits:
#
#   HEAD=10.0.0.1:6379 recipes/verl/launch.sh join
#
# Further arguments override keys of grpo.yaml (trainer.total_training_steps=400 …). Paths must be the same on all nodes.
# Never run on GPUs by its authors: begin with one node, trainer.total_training_steps=2 and data.train_batch_size=8
# actor_rollout_ref.actor.ppo_mini_batch_size=8, and look at training/rollout_probs_diff_mean (well below 0.01).
set -euo pipefail

export NNODES="${NNODES:-1}" GPUS_PER_NODE="${GPUS_PER_NODE:-8}"

if [ "${1:-}" = join ]; then
    exec ray start --address="${HEAD:?address of the first node, HOST:6379}" --num-gpus="$GPUS_PER_NODE" --block
fi

: "${IBIS_MODEL:?folder or hub id of the model to start from}"
: "${IBIS_CORPUS:?folder that 'ibisagent data convert CORPUS --to verl --out FOLDER' wrote}"
IBIS_RECIPE="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
export IBIS_MODEL IBIS_RECIPE
export IBIS_RUN="${IBIS_RUN:-$PWD/runs/verl}"
export TENSORBOARD_DIR="${TENSORBOARD_DIR:-$IBIS_RUN/tensorboard}"

files() { # the shards of a split as a list for Hydra: [a,b]
    local list=("$IBIS_CORPUS"/rl/"$1"-*.parquet)
    [ -e "${list[0]}" ] || { echo "no shard $1-*.parquet in $IBIS_CORPUS/rl" >&2; exit 2; }
    local IFS=,
    echo "[${list[*]}]"
}
TRAIN="$(files train)"
VAL="$(files "${VAL_SPLIT:-train}")" # a split of its own where the corpus has one

if [ "$NNODES" -gt 1 ]; then
    ray start --head --port="${PORT:-6379}" --num-gpus="$GPUS_PER_NODE"
    trap 'ray stop' EXIT
    python3 - "$NNODES" <<'PY'
import sys, time
import ray

ray.init(address="auto", logging_level="ERROR")
while (alive := sum(node["Alive"] for node in ray.nodes())) < int(sys.argv[1]):
    print(f"{alive} of {sys.argv[1]} nodes are here", flush=True)
    time.sleep(10)
PY
    set -- "+ray_kwargs.ray_init.address=auto" "$@"
fi

python3 -m verl.trainer.main_ppo --config-path "$IBIS_RECIPE" --config-name grpo \
    "data.train_files=$TRAIN" "data.val_files=$VAL" "$@"
