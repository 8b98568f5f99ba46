"""Signs of a task's regret after adaptation, and how well they tell it."""

from typing import Any

import jax
import numpy as np
from scipy.stats import spearmanr

from experiments.navigation_prior import NavigationPrior
from experiments.rl_experiment import TEST_SEED, adaptation, held_out
from gembml.base import Key, Task
from gembml.gaussian import Gaussian
from gembml.rl import roll_out
from gembml.tasks.navigation import best_return

SIGNS = {
    "drawn_std": "spread of drawn policies",
    "action_std": "spread of the mean's episodes",
    "low_return": "low return of the mean",
}
_RESAMPLES = 1000


def returns(trained: NavigationPrior, num_tasks: int) -> tuple[np.ndarray, ...]:
    """Optimal returns ``[tasks]``, and three batches of returns ``[tasks, updates + 1, episodes]``.

    Two batches are of the posterior's mean, the last of policies drawn from the posterior.
    """
    about, config, experiment, prior = trained
    config, setting = config.on_this_device(), experiment.setting
    adapt, policy, learner = adaptation(about["algorithm"], config, setting)
    environment, number = setting.environment, config.test_rollouts
    keys, goals = held_out(setting, TEST_SEED, num_tasks)

    def judge(key: Key, posterior: Gaussian, task: Task) -> tuple[jax.Array, ...]:
        *mean_keys, draw_key, drawn_key = jax.random.split(key, 4)
        first, second = (
            roll_out(k, environment, policy, posterior.mean, task, number).returns
            for k in mean_keys
        )
        weights = learner.sample(draw_key, posterior, number)
        drawn = jax.vmap(lambda k, w: roll_out(k, environment, policy, w, task, 1).returns[0])(
            jax.random.split(drawn_key, number), weights
        )
        return first, second, drawn

    def one_task(inputs: tuple[Key, Task]) -> tuple[jax.Array, ...]:
        adapt_key, key = jax.random.split(inputs[0])
        posteriors = adapt(prior, adapt_key, inputs[1])
        return jax.vmap(lambda k, posterior: judge(k, posterior, inputs[1]))(
            jax.random.split(key, config.test_steps + 1), posteriors
        )

    best = jax.vmap(lambda goal: best_return(goal, config.reward, config.horizon))(goals)
    batches = jax.jit(lambda: jax.lax.map(one_task, (keys, goals)))()
    return np.asarray(best), *map(np.asarray, batches)


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's."""
    return float(np.asarray(spearmanr(a, b))[0])


def correlations(
    best: np.ndarray, judged: np.ndarray, of_mean: np.ndarray, drawn: np.ndarray
) -> list[dict[str, Any]]:
    """For 1, 2, ... updates: the mean regret, and each sign's rank correlation with it.

    Intervals are 1.96 standard deviations over bootstrap resamples of the tasks.
    """
    resamples = np.random.default_rng(0).integers(0, len(best), (_RESAMPLES, len(best)))
    rows = []
    for updates in range(1, judged.shape[1]):
        regret = best - judged[:, updates].mean(axis=-1)
        row: dict[str, Any] = {"updates": updates, "regret": float(regret.mean())}
        signs = (
            drawn[:, updates].std(axis=-1),
            of_mean[:, updates].std(axis=-1),
            -of_mean[:, updates].mean(axis=-1),
        )
        for name, sign in zip(SIGNS, signs, strict=True):
            row[name] = _rank_correlation(sign, regret)
            again = [_rank_correlation(sign[i], regret[i]) for i in resamples]
            row[f"{name}_ci95"] = 1.96 * float(np.std(again))
        rows.append(row)
    return rows
