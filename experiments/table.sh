#!/usr/bin/env bash
# Every run of RESULTS.md's results table and of appendix C, then the tables and figures.
#
#   experiments/table.sh [JOBS]
#
# JOBS runs go on side by side (default 2). Runs live in runs/table and go on where they stopped;
# their results.json are kept in experiments/results. About four hours on 2 CPU cores.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}
python=${PYTHON:-python}

commands() {
  local setting seed base
  for setting in default challenging; do
    for seed in 0 1 2; do
      base="--setting=$setting --seed=$seed --workdir=runs/table/$setting"
      for algorithm in gem_bml_plus gem_bml reptile fomaml; do
        echo "--algorithm=$algorithm $base/$algorithm/seed_$seed"
      done
      for steps in 1 5; do
        # Meta rates by validation in the default setting; 3e-3 diverges with 5 steps at 0.01.
        for rates in "0.001 0.003" "0.01 0.001"; do
          read -r inner meta <<<"$rates"
          echo "--algorithm=maml --config.inner_learning_rate=$inner --config.inner_steps=$steps" \
            "--config.meta_learning_rate=$meta $base/maml_${steps}_steps_at_$inner/seed_$seed"
        done
      done
      for algorithm in gem_bml_plus gem_bml; do
        echo "--algorithm=$algorithm --preset=paper $base/${algorithm}_paper/seed_$seed"
      done
    done
    # Three seeds in one program, most at the rates that experiments.search chose.
    base="--setting=$setting --seeds=3 --workdir=runs/table/$setting"
    for algorithm in amortized_bml pmaml elbo_difference kl_chaser platipus bmaml emaml llama imaml \
      meta_sgd pretrain; do
      echo "--algorithm=$algorithm $base/$algorithm"
    done
    [ "$setting" = default ] && inner=0.003 || inner=0.01
    for algorithm in maml fomaml; do
      echo "--algorithm=$algorithm --config.inner_learning_rate=$inner" \
        "--config.meta_learning_rate=0.003 $base/${algorithm}_search"
    done
    echo "--algorithm=reptile --config.inner_learning_rate=0.01 --config.meta_learning_rate=1.0" \
      "$base/reptile_search"
    echo "--algorithm=gem_bml_plus --config.meta_learning_rate=0.003 $base/gem_bml_plus_search"
    echo "--algorithm=gem_bml --config.inner_learning_rate=0.3" \
      "--config.meta_learning_rate=0.003 $base/gem_bml_search"
    [ "$setting" = default ] && inner=0.0006 || inner=0.002
    echo "--algorithm=bmaml --config.inner_learning_rate=$inner $base/bmaml_search"
    [ "$setting" = default ] || echo "--algorithm=kl_chaser" \
      "--config.meta_learning_rate=0.003 $base/kl_chaser_search"
    [ "$setting" = default ] || echo "--algorithm=gem_bml_plus" \
      "--config.meta_log_std_multiplier=0.03 $base/gem_bml_plus_slow_std"
  done
}

# xargs goes on after a run that fails; one that diverged has its place in the table.
failed=0
commands | xargs -P "$jobs" -I{} sh -c "$python -m experiments.sinusoid {}" || failed=1
"$python" -m experiments.meta_gradient_error --workdir=runs/table/meta_gradient_error
"$python" -m experiments.inner_steps --workdir=runs/table/inner_steps
"$python" -m experiments.convex_combinations --workdir=runs/table/convex_combinations
# Of the appendix's programs the gathered results, not their single runs.
for results in runs/table/*/results.json runs/table/*/*/seed_*/results.json; do
  case $results in runs/table/inner_steps/steps_*) continue ;; esac
  mkdir -p "experiments/results/$(dirname "${results#runs/table/}")"
  cp "$results" "experiments/results/${results#runs/table/}"
done
"$python" -m experiments.report experiments/results --output=experiments/results --into=RESULTS.md
cp runs/table/challenging/gem_bml_plus/seed_0/predictions.png experiments/results/predictions.png
exit "$failed"
