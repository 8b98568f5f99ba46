"""A client's message gives the server Gradient-EM's meta-gradient, and nothing else is needed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml import OptionError, gaussian, meta_learner
from gembml.algorithms import gaussian_posterior
from gembml.builders import meta_optimizer
from gembml.data_free import Message, client_message, server_gradient, server_meta_gradient
from gembml.meta_gradients import gem
from tests import toy

KEY = jax.random.key(0)
OBJECTIVES = {"L1": gaussian_posterior.gem_bml, "L2": gaussian_posterior.gem_bml_plus}
CONFIG = toy.CONFIGS["gem_bml_plus"]
either_objective = pytest.mark.parametrize("objective", OBJECTIVES)


def parts_and_message(objective: str):
    problem = toy.problem()
    parts = OBJECTIVES[objective](problem, CONFIG)
    send = client_message(problem, parts.inference, CONFIG.inner_steps, objective=objective)
    return parts, send


@either_objective
def test_the_server_s_gradient_is_that_of_gradient_em_with_the_data_at_hand(objective):
    problem = toy.problem()
    parts, send = parts_and_message(objective)
    prior = parts.family.init(KEY, problem.init)
    task = jax.tree.map(lambda a: a[0], toy.sample_tasks(KEY))
    message = jax.jit(send)(KEY, prior, task)
    estimator = gem(problem, parts.family, parts.inference, CONFIG.inner_steps, objective=objective)
    expected = jax.jit(estimator)(KEY, prior, task)
    found = server_gradient(prior, message, objective=objective)
    for name in ("mean", "log_std"):
        scale = float(jnp.abs(getattr(expected, name)).max())
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-5 * scale
        )


@pytest.mark.parametrize("second_pass", [0.0, 0.1])
def test_clients_may_take_other_steps_on_their_query_data_and_a_second_pass(second_pass):
    problem = toy.problem()
    parts = OBJECTIVES["L2"](problem, CONFIG)
    short = OBJECTIVES["L2"](problem, dataclasses.replace(CONFIG, inner_learning_rate=0.03))
    options = {"query_steps": 2, "query_inference": short.inference, "objective": "L2"}
    options["second_pass"] = second_pass
    prior = parts.family.init(KEY, problem.init)
    task = jax.tree.map(lambda a: a[0], toy.sample_tasks(KEY))
    send = client_message(problem, parts.inference, CONFIG.inner_steps, **options)
    found = server_gradient(prior, jax.jit(send)(KEY, prior, task), objective="L2").mean
    estimator = gem(problem, parts.family, parts.inference, CONFIG.inner_steps, **options)
    expected = jax.jit(estimator)(KEY, prior, task).mean
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * jnp.abs(expected).max())


@either_objective
def test_the_gradient_of_the_average_message_is_the_average_gradient(objective):
    prior = gaussian.around(jnp.zeros(3), -1.0)
    messages = Message(*jax.random.normal(KEY, (2, toy.META_BATCH, 3)))
    average = jax.tree.map(lambda a: a.mean(axis=0), messages)
    together = server_gradient(prior, average, objective=objective)
    each = jax.vmap(lambda m: server_gradient(prior, m, objective=objective))(messages)
    for left, right in zip(*map(jax.tree.leaves, (together, each)), strict=True):
        np.testing.assert_allclose(left, right.mean(axis=0), rtol=1e-5, atol=1e-5)


@either_objective
def test_a_learner_of_messages_takes_the_meta_steps_of_a_learner_of_data(objective):
    problem = toy.problem()
    parts, send = parts_and_message(objective)
    optimizer = meta_optimizer("gaussian", CONFIG, 10)
    with_data = meta_learner(problem, *parts, optimizer)
    server = meta_learner(
        problem, parts.family, parts.inference, server_meta_gradient(objective), optimizer
    )

    @jax.jit
    def both(of_data, of_messages, key):
        tasks = toy.sample_tasks(key)
        keys = jax.random.split(key, toy.META_BATCH)  # as the learner splits it
        messages = jax.vmap(send, in_axes=(0, None, 0))(keys, of_messages.prior, tasks)
        return with_data.update(of_data, key, tasks)[0], server.update(of_messages, key, messages)[
            0
        ]

    states = with_data.init(KEY), server.init(KEY)
    for step in range(5):
        states = both(*states, jax.random.fold_in(KEY, step))
    for left, right in zip(*map(jax.tree.leaves, states), strict=True):
        # Adam divides by the gradient's size: rounding of small gradients is felt in full.
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4)


@either_objective
def test_a_message_is_two_vectors_of_the_network_s_size_and_depends_on_the_data(objective):
    parts, send = parts_and_message(objective)
    prior = parts.family.init(KEY, toy.problem().init)
    keys = jnp.broadcast_to(KEY, toy.META_BATCH)  # so that only the data differ
    sent = jax.jit(jax.vmap(send, in_axes=(0, None, 0)))(keys, prior, toy.sample_tasks(KEY))
    assert isinstance(sent, Message)
    assert [leaf.shape for leaf in jax.tree.leaves(sent)] == [(4, *prior.mean.shape)] * 2
    assert bool(jnp.any(sent.first[0] != sent.first[1]))


@either_objective
def test_a_posterior_equal_to_the_prior_moves_nothing(objective):
    problem = toy.problem()._replace(log_likelihood=lambda params, data: jnp.zeros(()))
    parts = OBJECTIVES[objective](problem, CONFIG)
    send = client_message(problem, parts.inference, CONFIG.inner_steps, objective=objective)
    prior = parts.family.init(KEY, problem.init)
    task = jax.tree.map(lambda a: a[0], toy.sample_tasks(KEY))
    gradient = server_gradient(prior, jax.jit(send)(KEY, prior, task), objective=objective)
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_allclose(leaf, 0.0, atol=1e-5)


def test_another_objective_is_refused():
    parts, _ = parts_and_message("L1")
    prior = parts.family.init(KEY, toy.problem().init)
    message = Message(prior.mean, prior.mean)
    for build in (
        lambda: client_message(toy.problem(), parts.inference, 1, objective="L3"),
        lambda: server_gradient(prior, message, objective="L3"),
        lambda: server_meta_gradient("L3"),
    ):
        with pytest.raises(OptionError, match="objective must be 'L1' or 'L2', not 'L3'"):
            build()
