#!/bin/sh
# The ablation at gym scale: stages and rewards, three seeds, one JSON file a cell in docs/results/ablation.
#
#   runs/ablation.sh [--dry-run] [--only stages|rewards|ROW ...] [--seeds 0 1 2] [--work DIR] [--help]
#
# Finished cells are skipped: stop it at any time, the same command goes on. The interpreter is .venv's
# where `make demo` made one, else python3; PYTHON names another. --preset mini: the same on mini's real images.
set -eu
cd "$(dirname "$0")/.."
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=.venv/bin/python || PYTHON=python3; }
exec "$PYTHON" -m ibisagent.train.course.grid "$@"
