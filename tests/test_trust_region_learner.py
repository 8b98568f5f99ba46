"""The meta-step by a trust region: its exact value where that is known, its limit, and rollouts."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import LearnerConfig, OptionError, Problem, delta, make_learner
from gembml.base import Key
from gembml.inference import point
from gembml.models.policy import GaussianPolicy
from gembml.optimizers import trust_region
from gembml.rl import BASELINES, SURROGATES, policy_gradient
from gembml.tasks.navigation import navigation, uniform_goal
from gembml.trust_region_learner import trust_region_learner
from tests.problems import Task, make_task, quadratic_log_likelihood

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
RATE, MAX_KL, TASKS = 0.1, 0.01, 4


def predicted(params: jax.Array, other: jax.Array, data) -> jax.Array:
    return 0.5 * jnp.sum((data.x @ (params - other)) ** 2)


def problem() -> Problem:
    return Problem(
        init=lambda key: jax.random.normal(key, (3,)),
        log_likelihood=quadratic_log_likelihood,
        support=lambda key, task, params: task.support,
        query=lambda key, task, params: task.query,
        divergence=predicted,
    )


def sample_tasks() -> Task:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(make_task, range(TASKS)))


def updated(num_steps: int = 1, tasks_at_once: int = 0, of: Problem | None = None, **options):
    """The prior before and after one meta-step, and its metrics."""
    of = of or problem()
    inference = point(of.log_likelihood, optax.sgd(RATE))
    optimizer = trust_region(MAX_KL, **({"damping": 0.0} | options))
    learner = trust_region_learner(
        of, delta.family(), inference, num_steps, optimizer, tasks_at_once
    )
    state = learner.init(KEY)
    after, metrics = jax.jit(learner.update)(state, KEY, sample_tasks())
    return state.prior.mean, after.prior.mean, metrics


def adapted(start: jax.Array, task: Task, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """theta' and its Jacobian in theta: each step is theta - rate X^T (X theta - y)."""
    theta, x = np.asarray(start), np.asarray(task.support.x)
    hessian = np.eye(3) - RATE * x.T @ x
    jacobian = np.eye(3)
    for _ in range(num_steps):
        theta = hessian @ theta + RATE * x.T @ task.support.y
        jacobian = hessian @ jacobian
    return theta, jacobian


@pytest.mark.parametrize("num_steps", [1, 3])
def test_the_meta_step_is_the_exact_natural_gradient_step_of_a_quadratic_problem(num_steps):
    before, after, metrics = updated(num_steps)
    gradient, fisher = np.zeros(3), np.zeros((3, 3))
    for seed in range(TASKS):
        task = make_task(seed)
        theta, jacobian = adapted(before, task, num_steps)
        x = np.asarray(task.query.x) @ jacobian
        gradient += x.T @ (task.query.x @ theta - task.query.y) / TASKS
        fisher += x.T @ x / TASKS
    natural = np.linalg.solve(fisher, gradient)
    expected = -np.sqrt(2 * MAX_KL / (natural @ fisher @ natural)) * natural
    np.testing.assert_allclose(after - before, expected, rtol=1e-7)
    np.testing.assert_allclose(metrics.meta_gradient_norm, np.linalg.norm(gradient), rtol=1e-9)
    assert metrics.finite
    moved = [
        predicted(*(adapted(p, task, num_steps)[0] for p in (before, after)), task.query)
        for task in map(make_task, range(TASKS))
    ]
    np.testing.assert_allclose(np.mean(moved), MAX_KL, rtol=1e-7)


@pytest.mark.parametrize("tasks_at_once", [1, 2])
def test_groups_of_tasks_take_the_same_step(tasks_at_once):
    # The sum over tasks is in another order.
    np.testing.assert_allclose(updated(2, tasks_at_once)[1], updated(2)[1], rtol=1e-9)


def test_groups_that_do_not_divide_the_tasks_and_problems_without_divergence_are_refused():
    with pytest.raises(OptionError, match="must divide the 4 tasks of a meta-step, and 3 does not"):
        updated(tasks_at_once=3)
    with pytest.raises(OptionError, match="this problem has none"):
        updated(of=problem()._replace(divergence=None))


@pytest.mark.parametrize("part", ["support", "query"])
def test_data_that_are_not_finite_show_in_the_prior_and_are_reported(part):
    bad = lambda key, task, params: getattr(task, part)._replace(y=jnp.nan)  # noqa: E731
    _, after, metrics = updated(of=problem()._replace(**{part: bad}))
    assert np.all(np.isnan(after))
    assert not metrics.finite


def test_a_meta_step_of_navigation_improves_the_surrogate_within_the_limit():
    network = GaussianPolicy(2, hidden=())
    of = policy_gradient(
        navigation(horizon=10),
        network.apply,  # pyright: ignore[reportArgumentType]
        lambda key: network.init(key, jnp.zeros(2)),
        num_rollouts=4,
        surrogate=SURROGATES["ratio"],
        baseline=BASELINES["linear"],
        discount=0.99,
        gae_lambda=1.0,
    )
    config = LearnerConfig(
        inner_optimizer="sgd", inner_steps=2, meta_natural=False, meta_optimizer="trpo"
    )
    learner = make_learner("maml", of, config, 10)
    state = jax.jit(learner.init)(KEY)
    goals = jax.vmap(uniform_goal)(jax.random.split(KEY, TASKS))
    new_state, metrics = jax.jit(learner.update)(state, KEY, goals)
    assert metrics.finite
    before, after = state.prior.mean, new_state.prior.mean

    @jax.jit
    @jax.vmap
    def one(key: Key, goal: jax.Array):
        """The learner's own data: the keys are split as it splits them."""
        inner_key, query_key = jax.random.split(key)
        _, data_key, _ = jax.random.split(inner_key, 3)
        old, new = before, after
        for step_key in jax.random.split(data_key, 2):
            support = of.support(step_key, goal, old)
            old, new = (
                jax.tree.map(lambda p, g: p + RATE * g, p, jax.grad(of.log_likelihood)(p, support))
                for p in (old, new)
            )
        query = of.query(query_key, goal, old)
        gain = of.log_likelihood(new, query) - of.log_likelihood(old, query)
        return gain, of.divergence(old, new, query)

    gain, divergence = one(jax.random.split(KEY, TASKS), goals)
    assert jnp.mean(gain) > 0
    assert 0.1 * MAX_KL < jnp.mean(divergence) <= MAX_KL * (1 + 1e-3)  # float32 weights
