"""How far Gradient-EM's gradient can be from the exact one: the bound of appendix A.3.

With P the exact posterior and Q the one of the inner loop, the error of GEM's L1 gradient is
|E_P f - E_Q f| with f(theta) = grad_Theta log P(theta | Theta). By Cauchy-Schwarz

    |E_P f (1 - q/p)| <= M E_P[(1 - q/p)^2]^1/2 = M chi2(Q || P)^1/2,    M = E_P[|f|^2]^1/2.   (*)

The paper goes on from (15) to (16) by replacing E_P[(1 - q/p)^2]^1/2 with E_P|1 - q/p|, which is
the *smaller* of the two (Jensen), and ends with M (2 KL(Q || P))^1/2. That form holds with
M = sup |f|, which is infinite for a Gaussian prior, and not with M as above. Near Q = P it agrees
with (*), as 2 KL and chi2 are then equal to second order, and it can fail from the third order on.
One weight suffices: prior N(0, sigma^2) with a large sigma, P = N(0, v sigma^2), and Q the prior
itself, as before the first inner step. With v = 1 - e the error is e, and

    M^2 2 KL(Q || P) = e^2 (1 - 2e/3 + O(e^2)),

less than the error's square. With Q = N(0, r v sigma^2) the error grows like r and the printed
bound like r^1/2, so that nothing bounds their quotient; chi2 is infinite from r = 2 on.
"""

import jax
import jax.numpy as jnp

from gembml.gaussian import Gaussian


def _sum(tree: object) -> jax.Array:
    return sum((jnp.sum(leaf) for leaf in jax.tree.leaves(tree)), start=jnp.zeros(()))


def score_norm(prior: Gaussian, posterior: Gaussian) -> jax.Array:
    """M = E_posterior[|grad_Theta log P(theta | Theta)|^2]^1/2 of appendix A.3.

    With z = (theta - mu) / sigma the gradient in (mean, log_std) is (z / sigma, z^2 - 1); under
    N(m, s^2), a = (m - mu) / sigma and v = s^2 / sigma^2:

        E z^2 = a^2 + v,    E (z^2 - 1)^2 = a^4 + 6 a^2 v + 3 v^2 - 2 (a^2 + v) + 1.
    """

    def leaf(mu: jax.Array, lsigma: jax.Array, m: jax.Array, ls: jax.Array) -> jax.Array:
        a2 = ((m - mu) * jnp.exp(-lsigma)) ** 2
        v = jnp.exp(2 * (ls - lsigma))
        of_mean = (a2 + v) * jnp.exp(-2 * lsigma)
        return of_mean + a2**2 + 6 * a2 * v + 3 * v**2 - 2 * (a2 + v) + 1

    return jnp.sqrt(
        _sum(jax.tree.map(leaf, prior.mean, prior.log_std, posterior.mean, posterior.log_std))
    )


def chi_squared(approximation: Gaussian, exact: Gaussian) -> jax.Array:
    """chi2(Q || P) = E_P[(q/p)^2] - 1 of Q = N(m, s^2) and P = N(mu, sigma^2).

    Per weight 1 + chi2 is, if s^2 < 2 sigma^2,

        sigma^2 / (s (2 sigma^2 - s^2)^1/2) * exp((m - mu)^2 / (2 sigma^2 - s^2)),

    and weights multiply. One weight with s^2 >= 2 sigma^2 makes it infinite: q^2 / p then has no
    integral.
    """

    def leaf(m: jax.Array, ls: jax.Array, mu: jax.Array, lsigma: jax.Array) -> jax.Array:
        ratio = jnp.exp(2 * (ls - lsigma))
        exists = ratio < 2
        rest = jnp.where(exists, 2 - ratio, 1.0)
        distance = ((m - mu) * jnp.exp(-lsigma)) ** 2
        log_factor = -0.5 * (jnp.log(ratio) + jnp.log(rest)) + distance / rest
        return jnp.where(exists, log_factor, jnp.inf)

    return jnp.expm1(
        _sum(
            jax.tree.map(leaf, approximation.mean, approximation.log_std, exact.mean, exact.log_std)
        )
    )
