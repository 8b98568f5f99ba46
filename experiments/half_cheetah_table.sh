#!/usr/bin/env bash
# Half-cheetah of the paper's figure 3 at full size, on a GPU: every run, then tables and figures.
#
#   experiments/half_cheetah_table.sh [SEEDS] [META_STEPS]
#
# MuJoCo's physics (mjx), 40 tasks x 20 episodes x 200 actions, twice a meta-step; SEEDS (default 1)
# seeds of META_STEPS (default 300). Runs live in runs/half_cheetah, go on where they stopped, and are
# skipped once their results.json is there, so that the script may be cut into pieces.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-1}
meta_steps=${2:-300}
python=${PYTHON:-python}

run() { # NAME FLAG...
  local directory=runs/half_cheetah/$1
  shift
  [ -f "$directory/results.json" ] && return 0
  "$python" -m experiments.half_cheetah --backend=mjx --meta_steps="$meta_steps" \
    --workdir="$directory" "$@" || failed=1
}

failed=0
for timing in rllab brax; do
  for task in direction velocity; do
    for ((seed = 0; seed < seeds; seed++)); do
      for algorithm in gem_bml_plus maml gem_bml reptile pretrain; do
        run "${timing}_${task}/$algorithm/seed_$seed" --task="$task" --timing="$timing" \
          --algorithm="$algorithm" --seed="$seed"
      done
    done
    # Oracles: a policy for each goal alone.
    goals="-1 1"
    [ "$task" = velocity ] && goals="0 0.5 1 1.5 2"
    for goal in $goals; do
      run "${timing}_${task}/oracle_$goal/seed_0" --task="$task" --timing="$timing" \
        --algorithm=pretrain --goal="$goal"
    done
  done
done
for results in runs/half_cheetah/*/*/seed_*/results.json; do
  mkdir -p "experiments/results/half_cheetah/$(dirname "${results#runs/half_cheetah/}")"
  cp "$results" "experiments/results/half_cheetah/${results#runs/half_cheetah/}"
done
"$python" -m experiments.report experiments/results --output=experiments/results --into=RESULTS.md
exit "$failed"
