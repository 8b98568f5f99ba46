"""The implicit meta-gradient of iMAML: from the inner problem's optimum, not from its path."""

import jax
from jax.scipy.sparse.linalg import cg

from gembml.base import Inference, Key, MetaGradient, Params, Problem, Task
from gembml.delta import Delta
from gembml.inference.loop import infer


def implicit(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    *,
    proximal_weight: float | jax.Array,
    cg_steps: int,
) -> MetaGradient:
    """(I + H / w)^-1 grad log P(D^val | theta*), Rajeswaran et al. 2019, Lemma 1 and Algorithm 2.

    theta* minimises -log P(D^tr | theta) + w/2 |theta - mu|^2, approximately, by ``inference``; H
    is the Hessian of -log P(D^tr | theta) there and enters by products with vectors only, in
    ``cg_steps`` steps of conjugate gradients. Nothing is stored along the inner loop: memory does
    not grow with ``num_steps``.
    """

    def meta_gradient(key: Key, prior: Delta, task: Task) -> Delta:
        support_key, query_key, data_key = jax.random.split(key, 3)
        params = infer(
            inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
        ).mean
        support = problem.support(data_key, task, params)
        query = problem.query(query_key, task, params)
        gradient_of = jax.grad(problem.log_likelihood)

        def matvec(vector: Params) -> Params:
            # log P and not -log P is differentiated, hence the minus sign.
            _, product = jax.jvp(lambda p: gradient_of(p, support), (params,), (vector,))
            return jax.tree.map(lambda v, hv: v - hv / proximal_weight, vector, product)

        # tol=0: always cg_steps steps, so that the work does not depend on the task.
        solution, _ = cg(matvec, gradient_of(params, query), maxiter=cg_steps, tol=0.0)
        return Delta(solution)

    return meta_gradient
