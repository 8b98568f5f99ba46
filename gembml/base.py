"""The types that the parts of the library exchange. Nothing here computes.

Symbols, as in Zou & Lu, *Gradient-EM Bayesian Meta-learning* (NeurIPS 2020):

=================  ===========================  =============================================
paper              here                         meaning
=================  ===========================  =============================================
theta_tau          ``params``                   weights of one task's network (a pytree)
Theta              ``prior``                    the meta-parameters: a distribution of weights
lambda_tau         ``posterior``                one task's approximate posterior
D^tr, D^val        support, query               a task's two data sets
log P(D | theta)   ``log_likelihood``           summed over the data, a scalar
VI(Theta, D)       :class:`Inference`           the inner loop
=================  ===========================  =============================================

Everything is written for one task; :mod:`gembml.learner` holds the ``vmap`` over tasks.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import optax

Key = jax.Array
Params = Any  # a pytree of arrays: the weights of one network
Task = Any  # a pytree that describes one task
Data = Any  # a pytree of one task's data
Distribution = Any  # a pytree of a distribution's parameters: `Gaussian`, `Delta`, `Particles`

Collect = Callable[[Key, Params], Data]
"""Gives a task's data to the inner loop, once per inner step.

Supervised data ignore both arguments; mini-batches use the key; rollouts use the key and the
weights, which are the current policy. What it returns is a constant: no gradient flows through it
into the weights that collected it.
"""


class Problem(NamedTuple):
    """What is learned: a network, its likelihood, and how a task yields data."""

    init: Callable[[Key], Params]
    log_likelihood: Callable[[Params, Data], jax.Array]
    support: Callable[[Key, Task, Params], Data]
    query: Callable[[Key, Task, Params], Data]
    local_log_likelihood: Callable[[Key, Distribution, Data], jax.Array] | None = None
    """``(key, Gaussian over params, data)`` -> log-likelihood of outputs sampled by the local
    reparameterisation, for networks that have one."""
    flipout_log_likelihood: Callable[[Key, Distribution, Data], jax.Array] | None = None
    """The same with weight noise whose signs differ between data points (Flipout)."""
    whitened_outputs: Callable[[Params, Data], jax.Array] | None = None
    """``(params, data)`` -> outputs r, any shape, scaled so that their Jacobian J gives the Fisher
    matrix of the likelihood in the weights as J^T J; for Laplace approximations."""
    divergence: Callable[[Params, Params, Data], jax.Array] | None = None
    """``(params, other, data)`` -> mean KL divergence of what a network with ``params`` predicts
    from what one with ``other`` does, a scalar; for trust regions."""
    objective: Callable[[Data], jax.Array] | None = None
    """``(data)`` -> what the weights that collected the data attain, less the best that there is,
    in the units of the gradient of ``log_likelihood``, where that is a surrogate whose own value
    says nothing; for step sizes that follow from the loss's value."""
    is_surrogate: bool = False
    """Whether ``log_likelihood`` has the gradient of what is sought and not its value."""


class Family(NamedTuple):
    """A family of distributions over weights: how a prior starts, and how weights are drawn."""

    init: Callable[[Key, Callable[[Key], Params]], Distribution]
    """``(key, Problem.init)`` -> the prior at the start of meta-training."""
    sample: Callable[[Key, Distribution, int], Params]
    """``n`` sets of weights from a posterior; leaves are ``[n, ...]``."""
    gem_gradient: Callable[[Distribution, Distribution], Distribution] | None = None
    """``(prior, posterior)`` -> gradient of E_posterior log P(theta | prior) in the prior, where
    it has a closed form."""


class InferenceState(NamedTuple):
    """The carry of the inner loop."""

    posterior: Distribution
    optimizer_state: Any
    """The optimizer's, or whatever else an inference remembers between its steps."""


class StepKeys(NamedTuple):
    """The random keys of one inner step, split beforehand for all steps at once."""

    data: Key
    noise: Key


class Inference(NamedTuple):
    """One way to get a posterior, as a step that the inner loop repeats."""

    init: Callable[[Key, Distribution], InferenceState]
    """``(key, prior)`` -> where the loop starts; its posterior is the one before any data. It may
    be of another type than the prior."""
    step: Callable[[StepKeys, InferenceState, Distribution, Collect], InferenceState]


class MetaGradient(Protocol):
    """One estimator of the meta-gradient, for one task (paper: subroutine Meta-Gradient)."""

    def __call__(self, key: Key, prior: Distribution, task: Task) -> Distribution:
        """The gradient of the meta-objective in the prior: a direction of *ascent*."""
        ...


class LearnerState(NamedTuple):
    """The carry of meta-training."""

    prior: Distribution
    optimizer_state: optax.OptState


class Metrics(NamedTuple):
    """What one meta-step says about itself."""

    meta_gradient_norm: jax.Array
    """Euclidean norm of the meta-gradient, averaged over tasks first."""
    finite: jax.Array
    """Whether the meta-gradient and the new prior are finite."""
    lost_tasks: jax.Array
    """Share of the tasks whose meta-gradient had no finite norm and counted as zero, which is done
    only under a cap of each task's."""
    failed_task: jax.Array | int = -1
    """The first task of the batch, from 0, whose meta-gradient is not finite, if that is looked for
    (of rollouts, without a cap); else -1."""


class MetaLearner(NamedTuple):
    """Algorithm 1 of the paper, as three pure functions."""

    init: Callable[[Key], LearnerState]
    update: Callable[[LearnerState, Key, Task], tuple[LearnerState, Metrics]]
    """``(state, key, tasks)`` with a leading axis ``[tasks, ...]`` on every leaf of ``tasks``."""
    adapt: Callable[[Distribution, Key, Collect, int], Distribution]
    """``(prior, key, collect, steps)`` -> the posteriors after 0, 1, ... steps, ``[steps + 1]``."""
    sample: Callable[[Key, Distribution, int], Params]
    """Weights drawn from a posterior, as ``adapt`` returns them, ``[n, ...]``."""
