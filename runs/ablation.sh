#!/bin/sh
# The ablation at gym scale: stages and rewards, three seeds, one JSON file a cell in docs/results/ablation.
#
#   runs/ablation.sh [--dry-run] [--only stages|rewards|ROW ...] [--seeds 0 1 2] [--work DIR] [--help]
#
# Finished cells are skipped: stop it at any time, the same command goes on. PYTHON names another interpreter.
set -eu
cd "$(dirname "$0")/.."
exec "${PYTHON:-python3}" -m ibisagent.train.course.grid "$@"
