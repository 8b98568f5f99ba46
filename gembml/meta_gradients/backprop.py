"""The gradient through the inner loop (equation (3) of the paper): MAML and first-order MAML."""

import jax

from gembml.base import Inference, Key, MetaGradient, Problem, Task
from gembml.delta import Delta
from gembml.inference.loop import infer_differentiably


def backprop(problem: Problem, inference: Inference, num_steps: int) -> MetaGradient:
    """grad_Theta log P(D^val | lambda_tr(Theta)), differentiated through every inner step.

    For a delta posterior, where lambda_tr(Theta) is a point: this is MAML (Section 4 of the paper).
    Whether the inner gradients are constants (first-order MAML) is the inference's choice.
    """

    def meta_gradient(key: Key, prior: Delta, task: Task) -> Delta:
        support_key, query_key = jax.random.split(key)

        def objective(prior: Delta) -> jax.Array:
            posterior = infer_differentiably(
                inference, support_key, prior, lambda k, p: problem.support(k, task, p), num_steps
            )
            params = posterior.mean
            # Data are constants, also when the weights acted to collect them.
            data = problem.query(query_key, task, jax.lax.stop_gradient(params))
            return problem.log_likelihood(params, data)

        return jax.grad(objective)(prior)

    return meta_gradient
