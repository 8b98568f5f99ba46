"""The implicit meta-gradient of iMAML: from the inner problem's optimum, not from its path."""

from collections.abc import Callable

import jax

from gembml.base import Data, Inference, Key, MetaGradient, Params, Problem, Task
from gembml.conjugate_gradients import conjugate_gradients
from gembml.delta import Delta
from gembml.inference.loop import infer
from gembml.options import OptionError

CURVATURES = ("hessian", "gauss_newton")


def implicit(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    *,
    proximal_weight: float | jax.Array,
    cg_steps: int,
    curvature: str = "hessian",
) -> MetaGradient:
    """(I + H / w)^-1 grad log P(D^val | theta*), Rajeswaran et al. 2019, Lemma 1 and Algorithm 2.

    theta* minimises -log P(D^tr | theta) + w/2 |theta - mu|^2, approximately, by ``inference``; H
    is the ``curvature`` of -log P(D^tr | theta) there and enters by products with vectors only, in
    ``cg_steps`` steps of conjugate gradients: the ``"hessian"`` of the paper, which need not be
    positive where theta* is not quite a minimum (then they stop), or ``"gauss_newton"``, J^T J with
    J the Jacobian of ``Problem.whitened_outputs``, which is positive everywhere and equals the
    Hessian for linear outputs. Nothing is stored along the inner loop: memory does not grow with
    ``num_steps``.

    Raises:
      OptionError: for another curvature, or a problem without the outputs that it needs.
    """
    product = _curvature_product(problem, curvature)

    def meta_gradient(key: Key, prior: Delta, task: Task) -> Delta:
        support_key, query_key, data_key = jax.random.split(key, 3)
        params = infer(
            inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
        ).mean
        support = problem.support(data_key, task, params)
        query = problem.query(query_key, task, params)

        def matvec(vector: Params) -> Params:
            return jax.tree.map(
                lambda v, hv: v + hv / proximal_weight, vector, product(params, support, vector)
            )

        gradient = jax.grad(problem.log_likelihood)(params, query)
        return Delta(conjugate_gradients(matvec, gradient, cg_steps))

    return meta_gradient


def _curvature_product(
    problem: Problem, curvature: str
) -> Callable[[Params, Data, Params], Params]:
    """``(params, data, vector)`` -> the curvature of -log P(data | params) times the vector."""
    if curvature not in CURVATURES:
        raise OptionError(f"curvature must be one of {', '.join(CURVATURES)}, not {curvature!r}.")
    outputs = problem.whitened_outputs
    if curvature == "gauss_newton" and outputs is None:
        raise OptionError(
            "curvature=gauss_newton needs the problem's whitened_outputs, and it has none: choose "
            "hessian."
        )

    def hessian(params: Params, data: Data, vector: Params) -> Params:
        # Symmetric, so that reverse mode does, which is all that some networks have.
        descent = jax.grad(lambda p: -problem.log_likelihood(p, data))
        return jax.vjp(descent, params)[1](vector)[0]

    def gauss_newton(params: Params, data: Data, vector: Params) -> Params:
        of_params = lambda p: outputs(p, data)  # noqa: E731  # pyright: ignore
        values, pull = jax.vjp(of_params, params)
        (moved,) = jax.linear_transpose(lambda u: pull(u)[0], values)(vector)
        return pull(moved)[0]

    return hessian if curvature == "hessian" else gauss_newton
