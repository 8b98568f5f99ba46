"""Pre-training: L1 where the prior is a point."""

import jax
import numpy as np
import optax
import pytest

from gembml import Delta, Inference
from gembml.inference import point
from gembml.meta_gradients import backprop, pretrain
from tests.problems import log_likelihood, make_task, make_weights, problem

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)


def test_pretraining_is_the_gradient_of_all_data_at_the_prior_without_an_inner_loop():
    task, weights = make_task(0), make_weights(0)
    expected = sum(jax.grad(log_likelihood)(weights, data) for data in task)
    gradient = pretrain(problem())(KEY, Delta(weights), task)
    np.testing.assert_allclose(gradient.mean, expected, rtol=1e-12)


def test_pretraining_on_the_query_is_maml_with_a_step_of_zero():
    # theta' = mu whatever the support: what is left of MAML is the query's gradient at mu.
    task, prior = make_task(1), Delta(make_weights(1))
    inference: Inference = point(log_likelihood, optax.sgd(0.0))
    maml = backprop(problem(), inference, 2)(KEY, prior, task)
    on_support = jax.grad(log_likelihood)(prior.mean, task.support)
    gradient = pretrain(problem())(KEY, prior, task)
    np.testing.assert_allclose(gradient.mean - on_support, maml.mean, rtol=1e-10)


def test_data_are_constants_also_when_the_prior_collects_them():
    # "Data" that are the weights: d/d mu of <mu, stop_gradient(mu)>, twice, is 2 mu.
    weights = make_weights(2)
    collected = problem(lambda w, data: (w * data).sum())._replace(
        support=lambda key, task, params: params, query=lambda key, task, params: params
    )
    gradient = pretrain(collected)(KEY, Delta(weights), None)
    np.testing.assert_allclose(gradient.mean, 2 * weights, rtol=1e-12)
