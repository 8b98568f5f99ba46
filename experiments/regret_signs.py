"""Signs of a task's regret after adaptation, and how well they tell it."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.stats import spearmanr

from experiments.navigation_prior import NavigationPrior
from experiments.rl_experiment import TEST_SEED, adaptation, drawn_returns, held_out
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


class AdaptedReturns(NamedTuple):
    """Returns of test tasks after 1, 2, ... updates, ``[tasks, updates, episodes]``."""

    judged: np.ndarray
    """Of the posterior's mean."""
    of_mean: np.ndarray
    """Of the posterior's mean, other episodes."""
    drawn: np.ndarray
    """Of policies drawn from the posterior, one for each episode."""


def returns(trained: NavigationPrior, num_tasks: int) -> tuple[np.ndarray, AdaptedReturns]:
    """The optimal returns of test tasks, ``[tasks]``, and those after adaptation.

    Before the first update all tasks have the same policy, and nothing is to be told of it.
    """
    about, config, experiment, prior = trained
    config, setting = config.on_this_device(), experiment.setting
    adapt, policy, learner = adaptation(about["algorithm"], config, setting)
    environment, number = setting.environment, config.test_rollouts
    keys, goals = held_out(setting, TEST_SEED, num_tasks)

    def judge(key: Key, posterior: Gaussian, task: Task) -> tuple[jax.Array, ...]:
        judged_key, mean_key, draw_key, drawn_key = jax.random.split(key, 4)
        judged, of_mean = (
            roll_out(k, environment, policy, posterior.mean, task, number).returns
            for k in (judged_key, mean_key)
        )
        weights = learner.sample(draw_key, posterior, number)
        return judged, of_mean, drawn_returns(drawn_key, environment, policy, weights, task)

    def one_task(inputs: tuple[Key, Task]) -> tuple[jax.Array, ...]:
        adapt_key, key = jax.random.split(inputs[0])
        posteriors = adapt(prior, adapt_key, inputs[1])
        after = jax.tree.map(lambda leaf: leaf[1:], posteriors)
        return jax.vmap(lambda k, posterior: judge(k, posterior, inputs[1]))(
            jax.random.split(key, config.test_steps), after
        )

    best = jax.vmap(lambda goal: best_return(goal, config.reward, config.horizon))(goals)
    batches = jax.jit(lambda: jax.lax.map(one_task, (keys, goals)))()
    return np.asarray(best), AdaptedReturns(*map(np.asarray, batches))


def _rank_correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's; 0 where one of the two is constant, which tells nothing."""
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return 0.0
    return float(np.asarray(spearmanr(a, b))[0])


def correlations(best: np.ndarray, adapted: AdaptedReturns) -> list[dict[str, Any]]:
    """For 1, 2, ... updates: the mean regret, and each sign's rank correlation with it over tasks.

    Also what the spread of the mean's episodes tells more than that of drawn policies, paired.
    Intervals are 1.96 standard deviations over bootstrap resamples of the tasks.
    """
    resamples = np.random.default_rng(0).integers(0, len(best), (_RESAMPLES, len(best)))
    rows = []
    for after, (judged, of_mean, drawn) in enumerate(
        zip(*(np.moveaxis(batch, 1, 0) for batch in adapted), strict=True)
    ):
        regret = best - judged.mean(axis=-1)
        row: dict[str, Any] = {"updates": after + 1, "regret": float(regret.mean())}
        signs = (drawn.std(axis=-1), of_mean.std(axis=-1), -of_mean.mean(axis=-1))
        again = {}
        for name, sign in zip(SIGNS, signs, strict=True):
            row[name] = _rank_correlation(sign, regret)
            again[name] = np.array([_rank_correlation(sign[i], regret[i]) for i in resamples])
            row[f"{name}_ci95"] = 1.96 * float(np.std(again[name]))
        row["action_std_more"] = row["action_std"] - row["drawn_std"]
        row["action_std_more_ci95"] = 1.96 * float(np.std(again["action_std"] - again["drawn_std"]))
        rows.append(row)
    return rows
