#!/bin/sh
# From masks to a trained, evaluated agent at nano scale: 131 minutes on two cores without fast bfloat16, added
# up over three starts (it was interrupted twice).
#
#   runs/speedrun.sh [--dry-run] [--seed K] [--work DIR] [--processes 2] [--device cuda]
#
#   stage         took   what
#   nano        67 min   trajectories of an expert on mini's train masks and phantoms, then NanoVLM on them (SFT, corrections)
#   exam         7 s     held-out phantoms with instructions of held-out templates, as a case list
#   rl          53 min   90 updates, --processes (8.5 GB each), fresh scenes of the same train masks and phantoms
#   evaluate    10 min   the agent before and after RL, on mini's val split and on the held-out phantoms
#
# --device cuda: models and segmenter on one GPU, RL in one process, 6 minutes of SFT instead of 57. Never timed: no GPU was at hand.
# A finished stage is skipped and an interrupted one goes on: the same command again. The interpreter is .venv's
# where `make demo` made one, else python3; PYTHON names another.
set -eu
cd "$(dirname "$0")/.."
[ -n "${PYTHON:-}" ] || { [ -x .venv/bin/python ] && PYTHON=.venv/bin/python || PYTHON=python3; }
python=$PYTHON seed=0 work="" dry="" processes=2 device=cpu
while [ $# -gt 0 ]; do
    case $1 in
        --dry-run) dry=1; shift ;;
        --seed) seed=$2; shift 2 ;;
        --work) work=$2; shift 2 ;;
        --processes) processes=$2; shift 2 ;;
        --device) device=$2; shift 2 ;;
        -h | --help) sed -n '2,/^set /{/^set /!s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
        *) echo "speedrun.sh: unknown option $1 (--help shows all)" >&2; exit 2 ;;
    esac
done
work=${work:-runs/speedrun-seed$seed}
case $device in
    cpu) minutes="--minutes 48" rl_device="--device cpu" ;;
    cuda) minutes="--minutes 5 --read-minutes 1" rl_device="--device auto" processes=1 ;;
    *) echo "speedrun.sh: --device is cpu or cuda, not $device" >&2; exit 2 ;;
esac
cases=data/mini/cases.jsonl

# run COMMAND...: carry it out, or only print it
run() {
    if [ -n "$dry" ]; then echo "$*"; else "$@"; fi
}

# stage NAME: whether it has still to be done
stage() {
    began=$(date +%s)
    if [ -e "$work/done/$1" ]; then echo "speedrun: $1 is done" >&2; return 1; fi
    [ -n "$dry" ] || echo "speedrun: $1" >&2
}

# finished NAME: note it
finished() {
    if [ -z "$dry" ]; then
        mkdir -p "$work/done"
        echo "$(($(date +%s) - began)) s" > "$work/done/$1"
    fi
}

if stage nano; then
    # shellcheck disable=SC2086 # options and their values
    run "$python" -m ibisagent train nano --cases $cases --out "$work/nano" $minutes --device "$device" --seed "$seed"
    finished nano
fi
if stage exam; then
    run "$python" -m ibisagent synthesize "phantoms:40?seed=$((1000 + seed))&split=test" --teacher terse --out "$work/phantoms"
    run rm -rf "$work/cases"
    run "$python" -m ibisagent data convert "$work/phantoms" --to mini --table test --out "$work/cases"
    finished exam
fi
if stage rl; then
    # two processes of one thread each, or one of two
    [ "$processes" = 1 ] && threads=2 || threads=1
    # after Ctrl-C an update is finished and saved: the launcher would kill it after 30 seconds
    # shellcheck disable=SC2086
    run env OMP_NUM_THREADS=$threads TORCH_ELASTIC_SHUTDOWN_TIMEOUT=600 "$python" -m torch.distributed.run --standalone --nproc_per_node "$processes" -m ibisagent train rl \
        --preset nano --model "$work/nano/model" --prompts "scenes:$cases?instances=2&absent_share=0.35" \
        --seed "$seed" --out "$work/rl" $rl_device --resume
    finished rl
fi
for agent in nano rl; do
    for exam in val phantoms; do
        if stage "evaluate-$agent-$exam"; then
            if [ $exam = val ]; then list="$cases --split val"; else list="$work/cases/cases.jsonl"; fi
            # shellcheck disable=SC2086 # the list is a file and perhaps an option
            run "$python" -m ibisagent evaluate $list --policy "nano:$work/$agent/model" --seed "$seed" \
                --device "$device" --out "$work/evaluate/$agent-$exam"
            finished "evaluate-$agent-$exam"
        fi
    done
done
[ -n "$dry" ] || "$python" - "$work" << 'END'
import json, pathlib, sys

work = pathlib.Path(sys.argv[1])
for path in sorted((work / "evaluate").glob("*/summary.json")):
    told = json.loads(path.read_text())
    print(f"{path.parent.name}: IoU {told['mean_iou']:.3f} {told['ci95_iou']}, {told['mean_steps']:.2f} steps, n {told['num_cases']}")
seconds = sum(int(path.read_text().split()[0]) for path in (work / "done").iterdir())
print(f"{seconds / 60:.0f} minutes; the agent: --policy nano:{work}/rl/model")
END
