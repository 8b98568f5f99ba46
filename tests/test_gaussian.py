"""Mean-field Gaussians against distrax, autodiff, and each other."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given

from gembml import Gaussian, gaussian, gem_gradient
from tests import conjugate
from tests.strategies import gaussians, vectors

pytestmark = pytest.mark.usefixtures("float64")


def as_distrax(q: Gaussian) -> distrax.Distribution:
    return distrax.Independent(distrax.Normal(q.mean, jnp.exp(q.log_std)), 1)


def expected_log_prior(prior: Gaussian, posterior: Gaussian) -> jax.Array:
    """E_posterior log P(theta | prior), by hand: -(s^2 + (m - mu)^2) / (2 sigma^2) - log sigma."""
    m, s = posterior.mean, jnp.exp(posterior.log_std)
    mu, sigma = prior.mean, jnp.exp(prior.log_std)
    return jnp.sum(
        -(s**2 + (m - mu) ** 2) / (2 * sigma**2) - prior.log_std - 0.5 * jnp.log(2 * jnp.pi)
    )


def assert_close(left: Gaussian, right: Gaussian, rtol: float = 1e-10, atol: float = 1e-10) -> None:
    # Rounding in float64 over a handful of operations on numbers up to e^8.
    np.testing.assert_allclose(left.mean, right.mean, rtol, atol)
    np.testing.assert_allclose(left.log_std, right.log_std, rtol, atol)


@given(gaussians, vectors(-5, 5))
def test_log_prob_equals_distrax(q, x):
    np.testing.assert_allclose(gaussian.log_prob(q, x), as_distrax(q).log_prob(x), rtol=1e-12)


@given(gaussians, gaussians)
def test_kl_divergence_equals_distrax(posterior, prior):
    expected = as_distrax(posterior).kl_divergence(as_distrax(prior))
    # distrax takes log(exp(.)), which costs digits when the divergence is near 0.
    np.testing.assert_allclose(
        gaussian.kl_divergence(posterior, prior), expected, rtol=1e-10, atol=1e-12
    )


@given(gaussians)
def test_kl_divergence_of_a_gaussian_to_itself_is_zero(q):
    assert gaussian.kl_divergence(q, q) == 0


@given(gaussians, gaussians)
def test_kl_divergence_is_not_negative(posterior, prior):
    assert gaussian.kl_divergence(posterior, prior) >= -1e-12  # up to rounding


@given(gaussians, gaussians)
def test_gem_gradient_equals_autodiff_of_the_expected_log_prior(prior, posterior):
    assert_close(gem_gradient(prior, posterior), jax.grad(expected_log_prior)(prior, posterior))


@given(gaussians, gaussians)
def test_gem_gradient_is_minus_the_gradient_of_kl_in_the_prior(prior, posterior):
    kl_gradient = jax.grad(gaussian.kl_divergence, argnums=1)(posterior, prior)
    assert_close(gem_gradient(prior, posterior), jax.tree.map(jnp.negative, kl_gradient))


def test_gem_gradient_is_the_monte_carlo_average_of_the_score():
    prior = conjugate.make_prior(0)
    posterior = conjugate.make_prior(1)
    num = 20_000
    thetas = gaussian.sample(jax.random.key(0), posterior, num)
    scores = jax.vmap(jax.grad(gaussian.log_prob), in_axes=(None, 0))(prior, thetas)
    for exact, draws in zip(gem_gradient(prior, posterior), scores, strict=True):
        standard_error = np.std(draws, axis=0) / np.sqrt(num)
        assert np.all(np.abs(np.mean(draws, axis=0) - exact) < 5 * standard_error)


def test_gem_gradient_vanishes_at_the_prior():
    prior = conjugate.make_prior(0)
    assert_close(gem_gradient(prior, prior), jax.tree.map(jnp.zeros_like, prior))


@given(gaussians, gaussians)
def test_precision_form_of_equation_21_is_the_log_std_gradient_by_the_chain_rule(prior, posterior):
    # With Lambda = sigma^-2, d log_std / d Lambda = -1 / (2 Lambda).
    sigma, s = jnp.exp(prior.log_std), jnp.exp(posterior.log_std)
    squared_distance = (posterior.mean - prior.mean) ** 2
    by_chain_rule = gem_gradient(prior, posterior).log_std * (-0.5 * sigma**2)
    np.testing.assert_allclose(
        by_chain_rule, 0.5 * (sigma**2 - s**2 - squared_distance), rtol=1e-10, atol=1e-10
    )


@given(gaussians, gaussians, gaussians)
def test_precision_form_of_equation_21_for_the_difference_of_two_posteriors(prior, tr, all_):
    to_precision = -0.5 * jnp.exp(2 * prior.log_std)
    difference = gem_gradient(prior, all_).log_std - gem_gradient(prior, tr).log_std
    s2_all, s2_tr = jnp.exp(2 * all_.log_std), jnp.exp(2 * tr.log_std)
    closed_form = -0.5 * (
        (s2_all - s2_tr) + (all_.mean - tr.mean) * (all_.mean + tr.mean - 2 * prior.mean)
    )
    np.testing.assert_allclose(to_precision * difference, closed_form, rtol=1e-9, atol=1e-9)


def test_equation_21_with_covariances_and_precisions_exchanged_is_wrong():
    prior, posterior = conjugate.make_prior(0), conjugate.make_prior(1)

    def expected(precision: jax.Array) -> jax.Array:
        return expected_log_prior(Gaussian(prior.mean, -0.5 * jnp.log(precision)), posterior)

    precision, posterior_precision = jnp.exp(-2 * prior.log_std), jnp.exp(-2 * posterior.log_std)
    squared_distance = (posterior.mean - prior.mean) ** 2
    truth = jax.grad(expected)(precision)
    corrected = 0.5 * (1 / precision - 1 / posterior_precision - squared_distance)
    exchanged = 0.5 * (precision - posterior_precision - squared_distance)
    np.testing.assert_allclose(corrected, truth, rtol=1e-10)
    assert np.abs(exchanged - truth).max() > 0.1


def test_samples_have_the_mean_and_the_standard_deviation():
    q = Gaussian({"a": jnp.array([1.0, -2.0]), "b": jnp.array(0.5)}, None)
    q = q._replace(log_std={"a": jnp.array([-1.0, 0.5]), "b": jnp.array(0.0)})
    num = 20_000
    draws = gaussian.sample(jax.random.key(0), q, num)
    for x, m, ls in zip(*map(jax.tree.leaves, (draws, q.mean, q.log_std)), strict=True):
        assert x.shape == (num, *m.shape)
        std = np.exp(ls)
        # 5 standard errors of a mean, and of a standard deviation.
        np.testing.assert_array_less(np.abs(x.mean(axis=0) - m), 5 * std / np.sqrt(num))
        np.testing.assert_array_less(np.abs(x.std(axis=0) - std), 5 * std / np.sqrt(2 * num))


def test_weights_in_different_leaves_get_different_noise():
    q = gaussian.around({"a": jnp.zeros(4), "b": jnp.zeros(4)}, 0.0)
    draw = gaussian.sample(jax.random.key(0), q, 1)
    assert not np.any(np.isclose(draw["a"], draw["b"]))


def test_a_pytree_counts_as_the_sum_of_its_leaves():
    prior, posterior = conjugate.make_prior(0), conjugate.make_prior(1)

    def split(v: jax.Array) -> dict[str, jax.Array]:
        return {"a": v[:2].reshape(2, 1), "b": v[2:]}

    trees = [Gaussian(split(q.mean), split(q.log_std)) for q in (posterior, prior)]
    np.testing.assert_allclose(
        gaussian.kl_divergence(*trees), gaussian.kl_divergence(posterior, prior), rtol=1e-12
    )


def test_family_starts_at_the_given_log_std_around_the_weights():
    params = {"w": jnp.arange(3.0)}
    prior = gaussian.family(-3.5).init(jax.random.key(0), lambda key: params)
    np.testing.assert_array_equal(prior.mean["w"], params["w"])
    np.testing.assert_array_equal(prior.log_std["w"], np.full(3, -3.5))


# Three weights with a variance each, three that share one, three points.
KINDS = ("own", "shared", "point")


def mixed(q: Gaussian) -> Gaussian:
    """The mean of ``q`` in each kind of leaf, with its log-stds, the first of them, and none."""
    log_std = {"own": q.log_std, "shared": q.log_std[0], "point": None}
    return Gaussian(dict.fromkeys(KINDS, q.mean), log_std)


def with_own(q: Gaussian) -> Gaussian:
    """The same Gaussian with a standard deviation for each weight that has a variance."""
    shared = jnp.full_like(q.mean["shared"], q.log_std["shared"])
    kinds = ("own", "shared")
    return Gaussian(
        {name: q.mean[name] for name in kinds}, {"own": q.log_std["own"], "shared": shared}
    )


@given(gaussians, gaussians)
def test_kl_divergence_and_log_prob_count_a_shared_std_for_each_weight_and_no_points(q, prior):
    posterior, prior = mixed(q), mixed(prior)
    whole = gaussian.kl_divergence(with_own(posterior), with_own(prior))
    np.testing.assert_allclose(gaussian.kl_divergence(posterior, prior), whole, rtol=1e-12)
    np.testing.assert_allclose(
        gaussian.log_prob(posterior, prior.mean),
        gaussian.log_prob(with_own(posterior), with_own(prior).mean),
        rtol=1e-12,
    )


@given(gaussians, gaussians)
def test_gem_gradient_of_a_shared_std_is_the_derivative_of_the_sum_and_of_a_point_m_minus_mu(
    prior, q
):
    prior, posterior = mixed(prior), mixed(q)
    gradient = gem_gradient(prior, posterior)

    def summed(mean: jax.Array, log_std: jax.Array) -> jax.Array:
        spread = Gaussian(mean, jnp.broadcast_to(log_std, mean.shape))
        return expected_log_prior(spread, Gaussian(q.mean, jnp.full(3, q.log_std[0])))

    mean, log_std = jax.grad(summed, argnums=(0, 1))(prior.mean["shared"], prior.log_std["shared"])
    assert gradient.log_std["shared"].shape == ()
    np.testing.assert_allclose(gradient.mean["shared"], mean, rtol=1e-10, atol=1e-10)
    np.testing.assert_allclose(gradient.log_std["shared"], log_std, rtol=1e-10, atol=1e-10)
    assert gradient.log_std["point"] is None
    np.testing.assert_array_equal(gradient.mean["point"], q.mean - prior.mean["point"])
    own = gem_gradient(*(Gaussian(g.mean["own"], g.log_std["own"]) for g in (prior, posterior)))
    assert_close(Gaussian(gradient.mean["own"], gradient.log_std["own"]), own)


def test_samples_of_shared_variances_and_points():
    q = mixed(Gaussian(jnp.arange(3.0), jnp.array([-1.0, 0.0, 1.0])))
    num = 5_000
    draws = gaussian.sample(jax.random.key(0), q, num)
    np.testing.assert_array_equal(draws["point"], np.tile(np.arange(3.0), (num, 1)))
    # 5 standard errors of a standard deviation; each weight has noise of its own.
    np.testing.assert_allclose(draws["shared"].std(axis=0), np.exp(-1.0), rtol=5 / np.sqrt(2 * num))
    correlation = np.corrcoef(draws["shared"].T)[np.triu_indices(3, 1)]
    np.testing.assert_array_less(np.abs(correlation), 5 / np.sqrt(num))


def test_family_starts_relative_to_the_weights_shared_by_array_and_with_points():
    params = {"params": {"body": {"w": jnp.arange(3.0)}, "head": {"w": jnp.full(2, 2.0)}}}
    params["params"]["head"]["bias"] = jnp.zeros(2)
    family = gaussian.family(
        -3.0, relative=True, shared=True, random=lambda name: name.startswith("params/head/")
    )
    log_std = family.init(jax.random.key(0), lambda key: params).log_std["params"]
    assert log_std["body"]["w"] is None
    assert log_std["head"]["w"].shape == log_std["head"]["bias"].shape == ()
    np.testing.assert_allclose(log_std["head"]["w"], -3 + np.log(2))
    np.testing.assert_allclose(log_std["head"]["bias"], -3)  # a size of 0 says nothing
    own = gaussian.family(-3.0, relative=True).init(jax.random.key(0), lambda key: params)
    size = np.sqrt((0 + 1 + 4) / 3)
    np.testing.assert_allclose(own.log_std["params"]["body"]["w"], np.full(3, -3 + np.log(size)))
