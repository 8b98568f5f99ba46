"""Reinforcement-learning experiments as pure functions: what is learned, and how it is judged."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from experiments.rl_presets import RLConfig
from gembml import ALGORITHMS, MetaLearner, Problem, make_learner
from gembml.base import Distribution, Key, Params, Task
from gembml.models.policy import GaussianPolicy
from gembml.options import positive
from gembml.rl import (
    BASELINES,
    SURROGATES,
    Environment,
    Policy,
    policy_gradient,
    roll_out,
)

# Validation and test tasks are the same for every algorithm and seed.
VALIDATION_SEED, TEST_SEED = 1_000_001, 2_000_002


class Setting(NamedTuple):
    """A family of tasks, and how they are drawn."""

    environment: Environment
    sample_tasks: Callable[[Key, int], Task]
    """``(key, number)`` -> that many tasks, leaves ``[number, ...]``."""


def independent(sample_task: Callable[[Key], Task]) -> Callable[[Key, int], Task]:
    """For :class:`Setting`, from a function that draws one task."""
    return lambda key, number: jax.vmap(sample_task)(jax.random.split(key, number))


class Experiment(NamedTuple):
    """Everything that one run computes with, as pure functions."""

    learner: MetaLearner
    sample_tasks: Callable[[Key], Task]
    policy: Policy
    setting: Setting
    env_steps: int
    """Environment steps of one meta-step, with those after an episode's end, which are computed."""


def _problem(config: RLConfig, setting: Setting, num_rollouts: int) -> tuple[Policy, Problem]:
    environment = setting.environment
    network = GaussianPolicy(
        environment.action_size,
        (config.hidden_units,) * config.hidden_layers,
        config.activation,
        config.action_std,
        config.min_action_std,
    )

    def policy(params: Params, observations: jax.Array) -> tuple[jax.Array, jax.Array]:
        return network.apply(params, observations)  # type: ignore[return-value]

    problem = policy_gradient(
        environment,
        policy,
        lambda key: network.init(key, jnp.zeros((1, environment.observation_size))),
        num_rollouts=num_rollouts,
        surrogate=SURROGATES[config.surrogate],
        baseline=BASELINES[config.baseline],
        discount=config.discount,
        gae_lambda=config.gae_lambda,
    )
    return policy, problem


def make_experiment(
    algorithm: str,
    config: RLConfig,
    setting: Setting,
    meta_steps: int,
    mesh: Mesh | None = None,
) -> Experiment:
    """The learner of a setting's tasks; its support and query data are fresh episodes."""
    config = config.on_this_device()
    policy, problem = _problem(config, setting, config.rollouts)
    learner = make_learner(algorithm, problem, config, meta_steps, mesh)

    def sample_tasks(key: Key) -> Task:
        return setting.sample_tasks(key, config.meta_batch)

    steps = config.meta_batch * config.rollouts * config.horizon * _batches(algorithm, config)
    return Experiment(learner, sample_tasks, policy, setting, steps)


def _batches(algorithm: str, config: RLConfig) -> int:
    """How often a meta-step collects a task's ``rollouts`` episodes."""
    if algorithm == "pretrain":
        return 2
    query_steps = config.query_steps or config.inner_steps
    second_pass = config.inner_steps if positive(config.second_pass) else 0
    after_support = {
        "gem_bml": query_steps + second_pass,
        "gem_bml_plus": query_steps + second_pass,
        # Their bounds have episodes of their own, of D^val or of both data sets.
        "pmaml": query_steps + 1,
        "elbo_difference": query_steps + 2,
        "amortized_bml": 2 + (query_steps if config.amortized_posterior == "all" else 0),
    }
    others = query_steps if ALGORITHMS[algorithm].query_loop else 1
    return config.inner_steps + after_support.get(algorithm, others)


class Returns(NamedTuple):
    """Undiscounted returns of test tasks, by number of updates."""

    mean_weights: jax.Array
    """Of the policy with the posterior's mean weights, averaged over its episodes:
    ``[tasks, updates + 1]``."""
    drawn_weights: jax.Array | None
    """Of policies whose weights are drawn from a Gaussian posterior, one set for each episode:
    ``[tasks, updates + 1, episodes]``."""


def held_out(setting: Setting, seed: int, num_tasks: int) -> tuple[Key, Task]:
    """Tasks that depend on ``seed`` alone, and a key for each."""
    root = jax.random.key(seed)
    tasks = setting.sample_tasks(jax.random.fold_in(root, 0), num_tasks)
    return jax.random.split(jax.random.fold_in(root, 1), num_tasks), tasks


Adapt = Callable[[Distribution, Key, Task], Distribution]
"""``(prior, key, task)`` -> the posteriors after 0, 1, ... ``test_steps`` updates."""


def adaptation(
    algorithm: str, config: RLConfig, setting: Setting
) -> tuple[Adapt, Policy, MetaLearner]:
    """How a test task's posteriors are found, the policy, and the learner with its samples."""
    policy, problem = _problem(config, setting, config.test_rollouts)
    learner = make_learner(algorithm, problem, config, 1)

    def adapt(prior: Distribution, key: Key, task: Task) -> Distribution:
        return learner.adapt(
            prior, key, lambda k, params: problem.support(k, task, params), config.test_steps
        )

    return adapt, policy, learner


def drawn_returns(
    key: Key, environment: Environment, policy: Policy, weights: Params, task: Task
) -> jax.Array:
    """The return of one episode of each of many policies: leaves ``[n, ...]`` -> ``[n]``."""
    keys = jax.random.split(key, len(jax.tree.leaves(weights)[0]))
    return jax.vmap(lambda k, w: roll_out(k, environment, policy, w, task, 1).returns[0])(
        keys, weights
    )


def evaluator(
    algorithm: str, config: RLConfig, setting: Setting
) -> Callable[[Distribution, int, int], Returns]:
    """``(prior, seed, num_tasks)`` -> returns after 0, 1, ... ``test_steps`` updates.

    Each update has ``test_rollouts`` episodes of its own, and what is reported are returns of
    further ones. Tasks and random numbers depend on the seed alone. One program, for as many tasks
    as are validated on, serves all calls: physics takes minutes to compile.
    """
    config = config.on_this_device()
    adapt, policy, learner = adaptation(algorithm, config, setting)
    environment, number = setting.environment, config.test_rollouts

    def judge(key: Key, posterior: Distribution, task: Task) -> Returns:
        mean_key, draw_key, drawn_key = jax.random.split(key, 3)
        of_mean = roll_out(mean_key, environment, policy, posterior.mean, task, number).returns
        if ALGORITHMS[algorithm].family != "gaussian":
            return Returns(jnp.mean(of_mean), None)
        weights = learner.sample(draw_key, posterior, number)
        drawn = drawn_returns(drawn_key, environment, policy, weights, task)
        return Returns(jnp.mean(of_mean), drawn)

    def one_task(prior: Distribution, key: Key, task: Task) -> Returns:
        adapt_key, key = jax.random.split(key)
        posteriors = adapt(prior, adapt_key, task)
        return jax.vmap(lambda k, posterior: judge(k, posterior, task))(
            jax.random.split(key, config.test_steps + 1), posteriors
        )

    @jax.jit
    def group(prior: Distribution, keys: Key, tasks: Task) -> Returns:
        if config.tasks_at_once == 0:
            return jax.vmap(one_task, in_axes=(None, 0, 0))(prior, keys, tasks)
        return jax.lax.map(
            lambda xs: one_task(prior, *xs), (keys, tasks), batch_size=config.tasks_at_once
        )

    def run(prior: Distribution, seed: int, num_tasks: int) -> Returns:
        keys, tasks = held_out(setting, seed, num_tasks)
        size = config.validation_tasks
        groups = []
        for first in range(0, num_tasks, size):
            # The last group is filled with tasks from the start.
            chosen = jnp.arange(first, first + size) % num_tasks
            groups.append(group(prior, *jax.tree.map(lambda a, i=chosen: a[i], (keys, tasks))))
        return jax.tree.map(lambda *a: np.concatenate(a)[:num_tasks], *groups)

    return run


class AdaptedPolicies(NamedTuple):
    """What became of the policy on some test tasks."""

    policy: Policy
    weights: Params
    """The posterior's mean, leaves ``[tasks, updates + 1, ...]``."""
    tasks: Task


def adapted_policies(
    algorithm: str,
    config: RLConfig,
    setting: Setting,
    prior: Distribution,
    choose: Callable[[Task], list[int]],
) -> AdaptedPolicies:
    """The policies of some test tasks before and after each update, for figures.

    ``choose`` takes all test tasks and returns the numbers of those that are wanted.
    """
    config = config.on_this_device()
    adapt, policy, _ = adaptation(algorithm, config, setting)
    keys, tasks = held_out(setting, TEST_SEED, config.test_tasks)
    chosen = jnp.array(choose(tasks))
    keys, tasks = jax.tree.map(lambda leaf: leaf[chosen], (keys, tasks))

    @jax.jit
    def run(prior: Distribution) -> Params:
        def one_task(xs: tuple[Key, Task]) -> Params:
            adapt_key, _ = jax.random.split(xs[0])  # as in the evaluation
            return adapt(prior, adapt_key, xs[1]).mean

        return jax.lax.map(one_task, (keys, tasks))

    return AdaptedPolicies(policy, run(prior), tasks)
