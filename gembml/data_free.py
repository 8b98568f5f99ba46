"""Gradient-EM in two halves: clients hold data and send posteriors, a server holds the prior.

Gradient-EM's meta-gradient is linear in the posterior's expectation parameters (Section 4 of the
paper, "Advantages", and appendix B.5: the meta-update "does not involve with data explicitly").
With d = theta - mu, which keeps the digits that E theta^2 - mu^2 would lose where sigma is small,

    g_mean = E[d] / sigma^2,      g_log_std = E[d^2] / sigma^2 - 1,

so that a client that knows Theta and its own data sends two vectors per task, whatever the
objective: E[d] and E[d^2] under lambda_all for L1, their differences between lambda_all and
lambda_tr for L2. Neither data nor gradients with respect to data's losses are sent.

What this is not: a guarantee of privacy. The vectors are functions of the data, and with L1 they
*are* lambda_all; they can be inverted or attacked for membership as gradients can. No noise is
added and nothing is clipped, so there is no differential privacy; encryption is the transport's
business. As the gradient is linear, clients may add their messages up before the server sees them
(secure aggregation). Theta and each message are as large as the network twice over: for small data
sets that is far more than the data.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Inference, Key, MetaGradient, Params, Problem, Task
from gembml.gaussian import Gaussian
from gembml.meta_gradients.gem import sequential_posteriors
from gembml.options import OptionError

OBJECTIVES = ("L1", "L2")


class Message(NamedTuple):
    """What a client sends for one task; both fields have the network's shape."""

    first: Params
    """E[theta - mu] under lambda_all; for L2 minus that under lambda_tr."""
    second: Params
    """E[(theta - mu)^2] under lambda_all; for L2 minus that under lambda_tr."""


def _check(objective: str) -> None:
    if objective not in OBJECTIVES:
        raise OptionError(f"objective must be 'L1' or 'L2', not {objective!r}.")


def moments(prior: Gaussian, posterior: Gaussian) -> Message:
    """E[d] = m - mu and E[d^2] = s^2 + (m - mu)^2 for d = theta - mu, theta ~ ``posterior``."""
    first = jax.tree.map(jnp.subtract, posterior.mean, prior.mean)
    second = jax.tree.map(lambda d, ls: jnp.exp(2 * ls) + d**2, first, posterior.log_std)
    return Message(first, second)


def client_message(
    problem: Problem,
    inference: Inference,
    num_steps: int,
    *,
    query_steps: int | None = None,
    query_inference: Inference | None = None,
    objective: str,
    second_pass: float | jax.Array = 0.0,
) -> Callable[[Key, Gaussian, Task], Message]:
    """``(key, prior, task)`` -> what the client that owns ``task`` sends.

    The client's half of :func:`gembml.meta_gradients.gem`, with the same arguments: the same key
    gives the same posteriors. Every weight must have a standard deviation of its own.

    Raises:
      OptionError: for another objective, or a negative ``second_pass``.
    """
    _check(objective)
    posteriors = sequential_posteriors(
        problem, inference, num_steps, query_steps, query_inference, second_pass=second_pass
    )

    def message(key: Key, prior: Gaussian, task: Task) -> Message:
        posterior_support, posterior_all = posteriors(key, prior, task)
        of_all = moments(prior, posterior_all)
        if objective == "L1":
            return of_all
        return jax.tree.map(jnp.subtract, of_all, moments(prior, posterior_support))

    return message


def server_gradient(prior: Gaussian, message: Message, *, objective: str) -> Gaussian:
    """The meta-gradient of one task, or of the average of several tasks' messages.

        d/d mean    = first / sigma^2
        d/d log_std = second / sigma^2 - 1        (L2: without the 1, which the difference cancels)

    Equal to what :func:`gembml.meta_gradients.gem` computes with the data at hand.

    Raises:
      OptionError: for another objective.
    """
    _check(objective)
    mass = 1.0 if objective == "L1" else 0.0
    precision = jax.tree.map(lambda ls: jnp.exp(-2 * ls), prior.log_std)
    return Gaussian(
        jax.tree.map(jnp.multiply, message.first, precision),
        jax.tree.map(lambda second, p: second * p - mass, message.second, precision),
    )


def server_meta_gradient(objective: str) -> MetaGradient:
    """:func:`server_gradient` as a meta-gradient whose tasks are messages.

    A :func:`gembml.meta_learner` with it takes the meta-step of Algorithm 1 from a batch of
    messages ``[tasks, ...]``, with the same averaging and the same optimizer as one with the data.
    """
    _check(objective)

    def meta_gradient(key: Key, prior: Gaussian, task: Message) -> Gaussian:
        del key  # what is random happened at the client
        return server_gradient(prior, task, objective=objective)

    return meta_gradient
