#!/usr/bin/env bash
# RESULTS.md's reinforcement-learning results on CPU cores: 2D navigation, and half-cheetah at a
# reduced size.
#
#   experiments/reinforcement_learning.sh [JOBS]
#
# JOBS runs go on side by side, one core each (default 2). Runs live in runs/rl, go on where they
# stopped, and are skipped once their results.json is there.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}
python=${PYTHON:-python}

commands() {
  local seed algorithm goal
  # A meta-step of Gradient-EM has twice the episodes of one of MAML, which gets twice as many.
  local sgd="--config.inner_optimizer=sgd --config.inner_learning_rate=0.1"
  sgd+=" --config.action_std=0.35 --config.later_rate"
  for seed in 0 1 2; do
    for algorithm in gem_bml_plus gem_bml reptile; do
      echo "navigation $algorithm $seed --algorithm=$algorithm --meta_steps=300"
      echo "navigation ${algorithm}_sgd $seed --algorithm=$algorithm --meta_steps=500 $sgd=0.25"
    done
    echo "navigation gem_bml_plus_sgd_later_half $seed --algorithm=gem_bml_plus" \
      "--meta_steps=500 $sgd=0.5"
    echo "navigation maml $seed --algorithm=maml --meta_steps=600"
    echo "navigation maml_sgd $seed --algorithm=maml --meta_steps=1000 $sgd=0.25"
    echo "navigation gem_bml_plus_point $seed --algorithm=gem_bml_plus --meta_steps=300" \
      "--config.log_std_init=-8 --config.meta_log_std_multiplier=0"
  done
  echo "navigation pretrain 0 --algorithm=pretrain --meta_steps=600"
  # Trust regions in the inner loop, and REINFORCE for as many meta-steps; and in MAML's meta-step.
  local trust="--algorithm=gem_bml_plus --meta_steps=100 --config.surrogate=ratio"
  trust+=" --config.action_std=0.35 --config.inner_optimizer"
  echo "navigation gem_bml_plus_trpo 0 $trust=trpo --config.max_kl=0.4 --config.later_rate=0.5"
  echo "navigation gem_bml_plus_trpo_kl_1 0 $trust=trpo --config.max_kl=1.0" \
    "--config.later_rate=0.25"
  echo "navigation gem_bml_plus_sgd_100_steps 0 $trust=sgd --config.inner_learning_rate=0.1" \
    "--config.later_rate=0.25"
  echo "navigation maml_trpo_meta_step 0 --algorithm=maml --meta_steps=150 $sgd=0.25" \
    "--config.meta_optimizer=trpo --config.surrogate=ratio"
  # The paper's reward, and with it the goals of Vuorio et al.
  local squared="--algorithm=gem_bml_plus --meta_steps=300 --config.reward=squared_distance"
  echo "navigation_squared gem_bml_plus 0 $squared"
  echo "navigation_bimodal gem_bml_plus 0 $squared --config.goals=bimodal"
  # Brax's spring physics in rllab's timing, 8 tasks a meta-step in place of 40.
  local small="--backend=spring --timing=rllab --config.meta_batch=8"
  small+=" --config.tasks_at_once=8 --config.test_rollouts=20 --config.validation_tasks=4"
  small+=" --config.steps_per_dispatch=5"
  local reduced="--task=direction $small"
  for seed in 0 1 2; do
    for algorithm in gem_bml_plus maml; do
      echo "half_cheetah $algorithm $seed --algorithm=$algorithm --meta_steps=200 $reduced"
    done
  done
  for algorithm in gem_bml reptile fomaml pretrain; do
    echo "half_cheetah $algorithm 0 --algorithm=$algorithm --meta_steps=200 $reduced"
  done
  # The surrogate whose second derivative keeps MAML from learning.
  echo "half_cheetah maml_log_prob 0 --algorithm=maml --meta_steps=200 $reduced" \
    "--config.surrogate=log_prob --config.inner_learning_rate=0.05"
  for seed in 0 1 2; do
    for algorithm in gem_bml_plus maml; do
      echo "half_cheetah_velocity $algorithm $seed --algorithm=$algorithm --meta_steps=300" \
        "--task=velocity $small --config.validation_tasks=8"
    done
  done
  # Oracles: a policy for each goal alone.
  local alone="--config.meta_batch=2 --config.tasks_at_once=2"
  for goal in 0 1 2; do
    echo "half_cheetah_velocity oracle_$goal 0 --algorithm=pretrain --goal=$goal" \
      "--meta_steps=300 --task=velocity $small $alone"
  done
  for goal in 1 -1; do
    echo "half_cheetah oracle_$goal 0 --algorithm=pretrain --goal=$goal --meta_steps=150 $reduced" \
      "--config.meta_batch=4 --config.tasks_at_once=4 --config.meta_learning_rate=3e-3"
  done
}

directory() { # PROGRAM NAME SEED
  echo "runs/rl/$1/$2/seed_$3"
}

failed=0
commands | while read -r program name seed flags; do
  workdir=$(directory "$program" "$name" "$seed")
  module=${program%_velocity}
  module=${module%_squared}
  [ -f "$workdir/results.json" ] ||
    echo "experiments.${module%_bimodal} $flags --seed=$seed --workdir=$workdir"
done | xargs -P "$jobs" -I{} sh -c "$python -m {}" || failed=1
"$python" -m experiments.exploration_study --run=runs/rl/navigation/gem_bml_plus/seed_0 \
  --tasks=100 --workdir=runs/rl/exploration_study || failed=1
"$python" -m experiments.spread_study --workdir=runs/rl/spread_study \
  --run=runs/rl/navigation/gem_bml_plus/seed_0 --run=runs/rl/navigation/gem_bml_plus/seed_1 \
  --run=runs/rl/navigation/gem_bml_plus/seed_2 || failed=1
"$python" -m experiments.benchmark_rl --cpu_devices=2 --devices=2 --workdir=runs/rl/benchmark || failed=1
"$python" -m experiments.benchmark_rl --environment=half_cheetah --backend=spring --timing=rllab \
  --config.meta_batch=8 --config.tasks_at_once=8 --workdir=runs/rl/benchmark_half_cheetah || failed=1
for results in runs/rl/*/*/seed_*/results.json runs/rl/*/*.json; do
  mkdir -p "experiments/results/rl/$(dirname "${results#runs/rl/}")"
  cp "$results" "experiments/results/rl/${results#runs/rl/}"
done
for figure in runs/rl/*_study/*_study.png; do
  [ ! -f "$figure" ] || cp "$figure" experiments/results/
done
cp runs/rl/navigation/gem_bml_plus/seed_1/trajectories.png \
  experiments/results/navigation_trajectories.png
cp runs/rl/half_cheetah/gem_bml_plus/seed_0/film_strip.png \
  experiments/results/half_cheetah_film_strip.png
"$python" -m experiments.report experiments/results --output=experiments/results --into=RESULTS.md
exit "$failed"
