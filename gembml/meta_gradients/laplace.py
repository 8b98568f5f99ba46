"""The Laplace-approximated evidence, through the inner loop: Grant et al. 2018 (LLAMA)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from gembml.base import Data, Inference, Key, MetaGradient, Params, Problem, Task
from gembml.delta import Delta
from gembml.inference.laplace import diagonal_fisher
from gembml.inference.loop import infer_differentiably


def laplace_evidence(
    problem: Problem,
    point: Inference,
    whitened_outputs: Callable[[Params, Data], jax.Array],
    num_steps: int,
    *,
    prior_log_std: float | jax.Array,
    curvature_weight: float | jax.Array,
) -> MetaGradient:
    """grad_mu [log P(D^val | theta_hat) - eta log det(F + tau I)], their Subroutine 4.

    theta_hat(mu) is the end of ``point``'s path on D^tr, F the diagonal Fisher matrix of D^val
    there, tau = exp(-2 ``prior_log_std``) and eta the ``curvature_weight`` (1/2 in Laplace's
    approximation of the evidence, a tuned 1e-6 in their experiments).
    """

    def meta_gradient(key: Key, prior: Delta, task: Task) -> Delta:
        support_key, query_key = jax.random.split(key)

        def evidence(prior: Delta) -> jax.Array:
            params = infer_differentiably(
                point, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
            ).mean
            query = problem.query(query_key, task, jax.lax.stop_gradient(params))
            fisher: Params = diagonal_fisher(whitened_outputs, params, query)
            log_determinant = sum(
                jnp.sum(jnp.log(f + jnp.exp(-2 * prior_log_std))) for f in jax.tree.leaves(fisher)
            )
            return problem.log_likelihood(params, query) - curvature_weight * log_determinant

        return jax.grad(evidence)(prior)

    return meta_gradient
