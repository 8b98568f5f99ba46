"""Surrogates of the expected return, whose gradient is the policy gradient (appendix B.1).

All have the same gradient at the policy that collected the data,

    mean over N and t of A_t grad log pi(a_t | s_t).

They differ in their second derivatives there, which MAML's meta-gradient sees, and elsewhere also
in the first: an inner step of a Gaussian posterior takes the gradient at drawn weights, of episodes
that its mean weights made. There ``dice`` weighs an action by the probability of all that led to
it, ``ratio`` by its own alone (so that the states' distribution stays the mean's), and ``log_prob``
by none; the last two are biased by it, the more the wider the posterior.

With discount 1 and exact advantages the mean is the policy gradient, by N and t instead of N. A
discount below 1, GAE's lambda below 1 with an inexact baseline, and a baseline that was fitted to
the same episodes each add the bias that they are known for: A_t carries no factor discount^t.

* ``log_prob``: A_t log pi, the surrogate of MAML's own code. Its Hessian lacks the terms in which
  the distribution of the data moves with the weights.
* ``ratio``: A_t pi / pi_old, with the Hessian of each action's own probability (the surrogate of
  policy optimisation with importance weights; Rothfuss et al. 2019 call it low variance curvature).
* ``dice``: DiCE with advantages (Foerster et al. 2018; Farquhar et al. 2019): an action's advantage
  is weighed by the ratios of all actions up to it. Its Hessian is unbiased where the gradient is,
  if advantages do not depend on the batch (standardised ones do, a little), and of high variance.

The data themselves are constants throughout: how the *support* rollouts' distribution moves with
the prior (the term of E-MAML) is left out, as in MAML's code.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Surrogate = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
"""``(log pi, log pi_old, advantages)`` -> terms, all ``[N, H]``; where an episode is over the
arguments are 0."""


def log_prob(log_pi: jax.Array, log_pi_old: jax.Array, advantages: jax.Array) -> jax.Array:
    """A_t log pi(a_t | s_t)."""
    del log_pi_old
    return advantages * log_pi


def ratio(log_pi: jax.Array, log_pi_old: jax.Array, advantages: jax.Array) -> jax.Array:
    """A_t pi(a_t | s_t) / pi_old(a_t | s_t)."""
    return advantages * jnp.exp(log_pi - log_pi_old)


def dice(log_pi: jax.Array, log_pi_old: jax.Array, advantages: jax.Array) -> jax.Array:
    """A_t (w_{<=t} - w_{<t}), w the product of the ratios pi / pi_old of an episode so far."""
    so_far = jnp.cumsum(log_pi - log_pi_old, axis=-1)
    before = jnp.concatenate([jnp.zeros_like(so_far[..., :1]), so_far[..., :-1]], axis=-1)
    return advantages * (jnp.exp(so_far) - jnp.exp(before))


SURROGATES: dict[str, Surrogate] = {"log_prob": log_prob, "ratio": ratio, "dice": dice}
