#!/usr/bin/env bash
# RESULTS.md's few-shot results on CPU cores: 32 filters, 4 tasks per meta-step.
#
#   GEMBML_DATA_DIR=DIR experiments/few_shot_cpu.sh [JOBS]
#
# JOBS runs go on side by side, one core each (default 2). Runs live in runs/few_shot_cpu and go on
# where they stopped. Training took about twelve hours of one core in all; tests, 20-way GEM-BML+'s
# of over half an hour each, and figures come on top.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}
python=${PYTHON:-python}

commands() {
  local algorithm seed classes="--config.rotations=classes"
  for algorithm in gem_bml_plus fomaml; do
    # The second seed is validated less often, which changes its log and not its results.
    echo "5_way_1_shot $algorithm 0 --meta_steps=40000 $classes"
    echo "5_way_1_shot $algorithm 1 --meta_steps=40000 $classes --config.evaluate_every=20000"
    echo "5_way_1_shot_alphabet $algorithm 0 --split=alphabet --meta_steps=20000 $classes" \
      "--config.evaluate_every=10000"
    echo "20_way_1_shot $algorithm 0 --ways=20 --meta_steps=10000 --config.evaluate_every=10000"
  done
  # By the rotations of published numbers.
  for algorithm in gem_bml_plus maml fomaml; do
    echo "5_way_1_shot_alphabet_10000_steps $algorithm 0 --split=alphabet --meta_steps=10000" \
      "--config.evaluate_every=10000"
  done
  echo "20_way_1_shot maml 0 --ways=20 --meta_steps=10000 --config.evaluate_every=10000"
  # The posteriors' means alone, as chosen by the study on validation classes below.
  local mean="--config.test_std_multiplier=0"
  echo "20_way_1_shot_mean gem_bml_plus 0 --ways=20 --meta_steps=10000" \
    "--config.evaluate_every=10000 $mean"
  for algorithm in gem_bml_plus gem_bml fomaml maml reptile; do
    echo "5_way_1_shot_all_rows $algorithm 0 --meta_steps=10000 --config.evaluate_every=10000"
  done
  # The limit of no variance, which is first-order MAML.
  echo "5_way_1_shot_all_rows fomaml 1 --meta_steps=10000 --config.evaluate_every=10000"
  for seed in 0 1; do
    echo "5_way_1_shot_point gem_bml_plus $seed --meta_steps=10000" \
      "--config.evaluate_every=10000 --config.log_std_init=-12 --config.max_log_std_rise=0.01 $mean"
  done
  for algorithm in gem_bml_plus maml; do
    echo "5_way_1_shot_smooth $algorithm 0 --preset=smooth --meta_steps=10000" \
      "--config.evaluate_every=10000"
    echo "5_way_5_shot_smooth $algorithm 0 --preset=smooth --shots=5 --meta_steps=10000" \
      "--config.evaluate_every=10000"
  done
  echo "5_way_5_shot fomaml 0 --shots=5 --meta_steps=10000 --config.evaluate_every=10000"
  echo "5_way_1_shot_smooth gem_bml_plus 1 --preset=smooth --meta_steps=10000" \
    "--config.evaluate_every=10000"
  # Next to no variance: what the noise is worth, and what the second pass.
  echo "5_way_1_shot_smooth_point gem_bml_plus 0 --preset=smooth --meta_steps=10000" \
    "--config.evaluate_every=10000 --config.log_std_init=-12 $mean"
  # What the smooth network does without the derivative through the inner loop.
  echo "5_way_1_shot_smooth_first_order gem_bml_plus 0 --preset=smooth --meta_steps=10000" \
    "--config.evaluate_every=10000 --config.second_pass=0"
  echo "5_way_1_shot_smooth_first_order fomaml 0 --preset=smooth --meta_steps=10000" \
    "--config.evaluate_every=10000"
  # About half an hour of a core that is not idle.
  echo "5_way_1_shot_40000_steps gem_bml_plus 0 --preset=smooth --meta_steps=40000" \
    "--config.evaluate_every=10000"
  echo "5_way_1_shot_40000_steps fomaml 0 --meta_steps=40000 --config.evaluate_every=10000"
  # The paper's numbers as printed, of which as many tasks as 4,000 of the others' meta-steps have.
  echo "5_way_1_shot_paper gem_bml_plus 0 --preset=paper --meta_steps=500 --config.meta_batch=32" \
    "--config.evaluate_every=250"
  echo "20_way_1_shot_smooth gem_bml_plus 0 --preset=smooth --ways=20 --meta_steps=10000" \
    "--config.evaluate_every=10000 $mean"
  echo "20_way_1_shot_smooth maml 0 --preset=smooth --ways=20 --meta_steps=10000" \
    "--config.evaluate_every=10000"
  echo "20_way_1_shot_narrow gem_bml_plus 0 --preset=smooth --ways=20 --meta_steps=10000" \
    "--config.evaluate_every=10000 --config.log_std_init=-5 $mean"
  # The accuracy that products of bfloat16 factors cost.
  for algorithm in gem_bml_plus fomaml; do
    echo "5_way_1_shot_bfloat16 $algorithm 0 --meta_steps=10000 --config.evaluate_every=10000" \
      "--config.precision=bfloat16"
  done
  # In more time than GEM-BML+'s 10,000 of preset smooth.
  echo "5_way_1_shot_15000_steps fomaml 0 --meta_steps=15000 --config.evaluate_every=15000"
  # In less time than first-order MAML's 10,000.
  echo "5_way_1_shot_4500_steps maml 0 --meta_steps=4500 --config.evaluate_every=4500"
}

failed=0
commands | while read -r task algorithm seed flags; do
  echo "--algorithm=$algorithm --seed=$seed --config.filters=32 --config.meta_batch=4 $flags" \
    "--workdir=runs/few_shot_cpu/omniglot_$task/$algorithm/seed_$seed"
done | xargs -P "$jobs" -I{} sh -c "$python -m experiments.few_shot {}" || failed=1
run=runs/few_shot_cpu/omniglot_5_way_1_shot/gem_bml_plus/seed_0
"$python" -m experiments.variance_study --run="$run" --tasks=150 \
  --workdir=runs/few_shot_cpu/variance_study || failed=1
run_alphabet=runs/few_shot_cpu/omniglot_5_way_1_shot_alphabet_10000_steps/gem_bml_plus/seed_0
"$python" -m experiments.variance_study --run="$run_alphabet" --tasks=150 \
  --workdir=runs/few_shot_cpu/variance_study_alphabet || failed=1
run_20_way=runs/few_shot_cpu/omniglot_20_way_1_shot/gem_bml_plus/seed_0
"$python" -m experiments.variance_study --tasks=60 --run="$run_20_way" \
  --workdir=runs/few_shot_cpu/variance_study_20_way || failed=1
"$python" -m experiments.variance_study --tasks=60 --run="$run_20_way" --classes=validation \
  --as_trained --workdir=runs/few_shot_cpu/variance_study_20_way_validation || failed=1
"$python" -m experiments.second_pass_study --workdir=runs/few_shot_cpu/second_pass_study \
  --run=runs/few_shot_cpu/omniglot_5_way_1_shot_all_rows/maml/seed_0 \
  --run=runs/few_shot_cpu/omniglot_5_way_1_shot_smooth/maml/seed_0 || failed=1
for results in runs/few_shot_cpu/*/*/seed_*/results.json; do
  [ -f "$results" ] || continue
  mkdir -p "experiments/results/few_shot_cpu/$(dirname "${results#runs/few_shot_cpu/}")"
  cp "$results" "experiments/results/few_shot_cpu/${results#runs/few_shot_cpu/}"
done
studies="variance_study variance_study_alphabet variance_study_20_way"
for study in $studies variance_study_20_way_validation second_pass_study; do
  for numbers in runs/few_shot_cpu/"$study"/*_study.json; do
    [ -f "$numbers" ] || continue
    mkdir -p "experiments/results/few_shot_cpu/$study"
    cp "$numbers" "experiments/results/few_shot_cpu/$study/"
    [ ! -f "${numbers%.json}.png" ] || cp "${numbers%.json}.png" "experiments/results/$study.png"
  done
done
episodes=runs/few_shot_cpu/omniglot_20_way_1_shot_smooth/gem_bml_plus/seed_0/episodes.png
[ ! -f "$episodes" ] || cp "$episodes" experiments/results/episodes.png
"$python" -m experiments.report experiments/results --output=experiments/results --into=RESULTS.md
exit "$failed"
