"""Pre-training: one network for all tasks together."""

import jax

from gembml.base import Key, MetaGradient, Problem, Task
from gembml.delta import Delta


def pretrain(problem: Problem) -> MetaGradient:
    """grad_mu log P(D^tr u D^val | mu): L1 with a delta prior (Section 4 of the paper).

    With all of the prior's mass on mu the task's posterior is the prior, whatever the data: there
    is no inner loop in training, and at meta-test it starts at mu like any other.
    """

    def meta_gradient(key: Key, prior: Delta, task: Task) -> Delta:
        support_key, query_key = jax.random.split(key)
        acting = jax.lax.stop_gradient(prior.mean)
        support = problem.support(support_key, task, acting)
        query = problem.query(query_key, task, acting)
        return jax.grad(
            lambda prior: (
                problem.log_likelihood(prior.mean, support)
                + problem.log_likelihood(prior.mean, query)
            )
        )(prior)

    return meta_gradient
