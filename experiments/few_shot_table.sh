#!/usr/bin/env bash
# The paper's tables 2 and 3 on a GPU: every run, then the tables and figures.
#
#   GEMBML_DATA_DIR=DIR experiments/few_shot_table.sh [SEEDS] [META_STEPS]
#
# SEEDS (default 1) seeds of 60,000 meta-steps each. Runs live in runs/few_shot, go on where they
# stopped, and are skipped once their results.json is there, so that the script may be cut into
# pieces. DIR holds omniglot/ with its two archives (downloaded if there is a network) and, for table
# 3, mini_imagenet/.
set -euo pipefail
cd "$(dirname "$0")/.."
seeds=${1:-1}
meta_steps=${2:-60000}
python=${PYTHON:-python}
common="--meta_steps=$meta_steps --config.precision=tensorfloat32 --config.steps_per_dispatch=500"

run() { # NAME FLAG...
  local directory=runs/few_shot/$1
  shift
  [ -f "$directory/results.json" ] && return 0
  # shellcheck disable=SC2086
  "$python" -m experiments.few_shot $common "$@" --workdir="$directory" || failed=1
}

failed=0
for seed in $(seq 0 $((seeds - 1))); do
  for task in "5 1 32 3" "20 1 16 5" "5 5 32 3" "20 5 16 5"; do
    read -r ways shots batch steps <<<"$task"
    # Posteriors' means alone at 20 ways, taken over from 1-shot GEM-BML+ with 32 filters, for which
    # it was chosen on validation classes (BUILD_NOTES.md).
    mean=""
    [ "$ways" = 5 ] || mean="--config.test_std_multiplier=0"
    for algorithm in gem_bml_plus gem_bml fomaml maml reptile; do
      # Reptile's preset has 5 steps on either set.
      flags="--config.meta_batch=$batch --config.queries=15"
      [ "$algorithm" = reptile ] || flags="$flags --config.inner_steps=$steps"
      [[ "$algorithm" != gem_* ]] || flags="$flags $mean"
      # shellcheck disable=SC2086
      run "omniglot_${ways}_way_${shots}_shot/$algorithm/seed_$seed" --dataset=omniglot \
        --split=random_1200 --ways="$ways" --shots="$shots" --algorithm="$algorithm" \
        --seed="$seed" $flags
    done
    # With the derivative through one inner step, which the second pass has from a small difference.
    for algorithm in gem_bml_plus maml; do
      flags="--config.meta_batch=$batch --config.queries=15 --config.precision=float32"
      [ "$algorithm" = maml ] || flags="$flags $mean"
      # shellcheck disable=SC2086
      run "omniglot_${ways}_way_${shots}_shot_smooth/$algorithm/seed_$seed" --dataset=omniglot \
        --split=random_1200 --ways="$ways" --shots="$shots" --algorithm="$algorithm" \
        --preset=smooth --seed="$seed" $flags
    done
  done
  # What the lower precision costs.
  run "omniglot_5_way_1_shot_float32/gem_bml_plus/seed_$seed" --dataset=omniglot \
    --split=random_1200 --ways=5 --shots=1 --algorithm=gem_bml_plus --seed="$seed" \
    --config.meta_batch=32 --config.queries=15 --config.inner_steps=3 --config.precision=float32
  if [ -d "${GEMBML_DATA_DIR:-}/mini_imagenet" ]; then
    for algorithm in gem_bml_plus gem_bml amortized_bml fomaml maml reptile; do
      run "mini_imagenet_5_way_1_shot/$algorithm/seed_$seed" --dataset=mini_imagenet \
        --data_dir="$GEMBML_DATA_DIR/mini_imagenet" --ways=5 --shots=1 --algorithm="$algorithm" \
        --seed="$seed"
    done
  fi
done
"$python" -m experiments.benchmark_images --workdir=runs/few_shot/benchmark || failed=1
for results in runs/few_shot/*/*/seed_*/results.json; do
  [ -f "$results" ] || continue
  mkdir -p "experiments/results/few_shot/$(dirname "${results#runs/few_shot/}")"
  cp "$results" "experiments/results/few_shot/${results#runs/few_shot/}"
done
"$python" -m experiments.report experiments/results --output=experiments/results --into=RESULTS.md
exit "$failed"
