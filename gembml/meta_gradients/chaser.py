"""Chaser losses: the posterior of little data is drawn towards the one that saw more."""

from collections.abc import Callable

import jax

from gembml.base import Data, Distribution, Inference, Key, MetaGradient, Params, Problem, Task
from gembml.inference.loop import infer, infer_differentiably


def chaser(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    *,
    leader: Inference,
    leader_steps: int,
    leader_data: Callable[[Key, Task, Params], Data],
    distance: Callable[[Distribution, Distribution], jax.Array],
) -> MetaGradient:
    """The direction that brings the chaser nearer to the leader: in Theta, minus the gradient of

        ``distance``(stop_gradient(leader), chaser), where
        chaser = VI(Theta, D^tr)                         ``inference``, ``num_steps``
        leader = VI(chaser, ``leader_data``)             ``leader``, ``leader_steps``

    Differentiated through the chaser's inner loop only. With KL and D^val this is the KL-chaser of
    Table 1 (appendix B.4: grad KL(sg(lambda_2) || lambda_1(Theta))); with particles, squared
    distances and D^tr u D^val it is BMAML's chaser loss (Yoon et al. 2018, Algorithm 3).
    """

    def meta_gradient(key: Key, prior: Distribution, task: Task) -> Distribution:
        support_key, leader_key = jax.random.split(key)

        def loss(prior: Distribution) -> jax.Array:
            chasing = infer_differentiably(
                inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
            )
            leading = infer(
                leader,
                leader_key,
                jax.lax.stop_gradient(chasing),
                lambda k, p: leader_data(k, task, p),
                leader_steps,
            )
            return -distance(leading, chasing)

        return jax.grad(loss)(prior)

    return meta_gradient
