"""Trust-region steps: where the answer is known, what they refuse, and in the inner loop."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from gembml import Delta, Gaussian, OptionError
from gembml.inference import infer, point, trajectory, variational, weight_samples
from gembml.optimizers import on_mean, trust_region
from tests.conjugate import NOISE_STD, log_likelihood, make_prior, make_task

pytestmark = pytest.mark.usefixtures("float64")
KEY = jax.random.key(0)
PARAMS = np.array([1.0, -1.0, 0.5, 2.0])
OPTIMUM = np.array([3.0, 1.0, -2.0, 0.0])
MAX_KL = 0.01


def positive(seed: int) -> np.ndarray:
    root = np.random.default_rng(seed).normal(size=(4, 4))
    return root @ root.T + 0.5 * np.eye(4)


CURVATURE, FISHER = positive(1), positive(2)


def loss(params: jax.Array) -> jax.Array:
    return 0.5 * (params - OPTIMUM) @ CURVATURE @ (params - OPTIMUM)


def divergence(params: jax.Array, other: jax.Array, fisher: np.ndarray = FISHER) -> jax.Array:
    return 0.5 * (other - params) @ fisher @ (other - params)


def step(start, value_fn=loss, divergence_fn=None, *, gradient=None, max_kl=MAX_KL, **options):
    optimizer = trust_region(max_kl, **({"damping": 0.0} | options))

    @jax.jit  # one program to compile instead of each operation
    def update(params):
        return optimizer.update(
            jax.grad(value_fn)(params) if gradient is None else gradient,
            optimizer.init(params),
            params,
            value_fn=value_fn,
            divergence_fn=divergence_fn or (lambda other: divergence(params, other)),
        )[0]

    return update(start)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_the_step_is_the_natural_gradient_s_at_the_limit(damping):
    gradient, metric = jax.grad(loss)(PARAMS), FISHER + damping * jnp.eye(4)
    natural = jnp.linalg.solve(metric, gradient)
    expected = -jnp.sqrt(2 * MAX_KL / (natural @ metric @ natural)) * natural
    taken = step(PARAMS, damping=damping)
    np.testing.assert_allclose(taken, expected, rtol=1e-8)
    reached = divergence(PARAMS, PARAMS + taken)
    if damping:
        assert reached < MAX_KL
    else:
        np.testing.assert_allclose(reached, MAX_KL, rtol=1e-8)


def test_few_conjugate_gradient_steps_are_those_of_jax():
    gradient = jax.grad(loss)(PARAMS)
    natural, _ = jax.scipy.sparse.linalg.cg(FISHER, gradient, maxiter=2, tol=0.0)
    expected = -jnp.sqrt(2 * MAX_KL / (natural @ FISHER @ natural)) * natural
    np.testing.assert_allclose(step(PARAMS, cg_steps=2), expected, rtol=1e-8)


def test_the_length_of_the_gradient_has_no_influence():
    gradient = jax.grad(loss)(PARAMS)
    np.testing.assert_allclose(step(PARAMS, gradient=1e3 * gradient), step(PARAMS), rtol=1e-8)


def test_a_linear_change_of_variables_gives_the_same_step():
    change = jax.random.normal(jax.random.key(3), (4, 4)) + 2 * jnp.eye(4)
    there = step(
        jnp.linalg.solve(change, PARAMS),
        lambda z: loss(change @ z),
        lambda z: divergence(PARAMS, change @ z),
    )
    np.testing.assert_allclose(change @ there, step(PARAMS), rtol=1e-6)


@pytest.mark.parametrize("shrink", [0.8, 0.5])
def test_the_step_is_shortened_until_the_divergence_allows_it(shrink):
    def steep(other: jax.Array) -> jax.Array:
        quadratic = divergence(PARAMS, other)
        return quadratic + 150 * quadratic**2  # the same Hessian: 2.5 times the limit, there

    quadratic, taken = step(PARAMS), step(PARAMS, divergence_fn=steep, shrink=shrink)
    # q + 150 q^2 <= 0.01 for q <= 0.0054858.
    times = np.ceil(np.log(0.54858) / (2 * np.log(shrink)))
    np.testing.assert_allclose(taken, shrink**times * quadratic, rtol=1e-8)
    assert steep(PARAMS + taken) <= MAX_KL


def test_the_step_is_shortened_until_the_loss_falls():
    # The limit is far beyond the minimum along the step.
    taken = step(PARAMS, max_kl=1e4, backtracks=40)
    before, along = step(PARAMS, max_kl=1e4, value_fn=lambda p: p @ jax.grad(loss)(PARAMS)), taken
    assert loss(PARAMS + taken) < loss(PARAMS)
    ratio = float(jnp.linalg.norm(along) / jnp.linalg.norm(before))
    times = np.log(ratio) / np.log(0.8)
    np.testing.assert_allclose(times, round(times), atol=1e-6)
    assert loss(PARAMS + taken / 0.8) >= loss(PARAMS)


@pytest.mark.parametrize(
    "options",
    [
        {"gradient": -CURVATURE @ (PARAMS - OPTIMUM)},  # along which the loss rises
        {"gradient": np.zeros(4)},
        {"max_kl": 1e8, "backtracks": 3},  # each of three lengths is too long
        {"divergence_fn": lambda other: jnp.inf * jnp.sum((other - PARAMS) ** 2)},
    ],
    ids=["uphill", "zero", "too long", "no divergence"],
)
def test_a_step_that_is_not_accepted_is_zero(options):
    np.testing.assert_array_equal(step(PARAMS, **options), jnp.zeros(4))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_shows_in_the_step(bad):
    taken = step(PARAMS, gradient=np.array([1.0, bad, 0.0, 1.0]))
    np.testing.assert_array_equal(np.isnan(taken), [False, True, False, False])
    assert np.all(np.isnan(step(PARAMS, gradient=np.full(4, bad))))


def test_a_direction_without_divergence_is_bounded_by_the_damping_and_else_refused():
    flat = lambda other: divergence(PARAMS, other, np.zeros((4, 4)))  # noqa: E731
    np.testing.assert_array_equal(step(PARAMS, divergence_fn=flat), jnp.zeros(4))
    taken = step(PARAMS, divergence_fn=flat, damping=0.1)
    np.testing.assert_allclose(0.1 * taken @ taken / 2, MAX_KL, rtol=1e-8)


def test_vmapped_searches_of_different_length_are_each_one_s_own():
    starts = jnp.stack([PARAMS, OPTIMUM + 0.01 * (PARAMS - OPTIMUM), OPTIMUM, -PARAMS])
    together = jax.vmap(step)(starts)
    for row, start in zip(together, starts, strict=True):
        # Batched products are summed in another order.
        np.testing.assert_allclose(row, step(start), rtol=1e-6, atol=1e-12)
    assert len({f"{divergence(s, s + t):.4f}" for s, t in zip(starts, together, strict=True)}) == 3


def test_types_and_pytrees_are_kept():
    params = {"a": jnp.ones(2, jnp.float32), "b": {"c": jnp.ones((), jnp.float32)}}

    def distance(other):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(other))

    taken = step(
        params, distance, lambda other: distance(jax.tree.map(jnp.subtract, other, params))
    )
    assert jax.tree.structure(taken) == jax.tree.structure(params)
    assert {leaf.dtype for leaf in jax.tree.leaves(taken)} == {jnp.dtype(jnp.float32)}
    np.testing.assert_allclose(optax.global_norm(taken) ** 2, MAX_KL, rtol=1e-5)


def test_what_is_missing_or_out_of_range_is_refused():
    with pytest.raises(OptionError, match="value_fn and divergence_fn"):
        trust_region(0.1).update(PARAMS, optax.EmptyState(), PARAMS)
    with pytest.raises(OptionError, match="max_kl must be above 0, not 0"):
        trust_region(0.0)


def predicted(params: jax.Array, other: jax.Array, data) -> jax.Array:
    """Mean KL between N(x . params, noise^2) and N(x . other, noise^2)."""
    return jnp.mean((data.x @ (params - other)) ** 2) / (2 * NOISE_STD**2)


def after(inference, prior, data, num_steps: int):
    """The posteriors after 0, 1, ... steps."""
    return jax.jit(lambda: trajectory(inference, KEY, prior, lambda *_: data, num_steps))()


def test_the_inner_loop_climbs_the_likelihood_by_the_limit_at_each_step():
    data, prior = make_task(0).support, Delta(make_prior(0).mean)
    inference = point(log_likelihood, trust_region(MAX_KL, damping=0.0), divergence=predicted)
    ends = after(inference, prior, data, 2).mean
    for here, there in itertools.pairwise(ends):
        np.testing.assert_allclose(predicted(here, there, data), MAX_KL, rtol=1e-6)
        assert log_likelihood(there, data) > log_likelihood(here, data)
    # F is that of the data's mean log-likelihood: a free step is the one to the least squares.
    newton = jnp.linalg.lstsq(data.x, data.y)[0] - prior.mean
    moved = ends[1] - prior.mean
    cosine = moved @ newton / jnp.linalg.norm(moved) / jnp.linalg.norm(newton)
    np.testing.assert_allclose(cosine, 1.0, rtol=1e-8)


def test_near_the_optimum_the_steps_end_and_stay():
    data, prior = make_task(0).support, Delta(make_prior(0).mean)
    inference = point(log_likelihood, trust_region(0.3), divergence=predicted)
    end = after(inference, prior, data, 60).mean[-1]
    best = jnp.linalg.lstsq(data.x, data.y)[0]
    assert log_likelihood(best, data) - log_likelihood(end, data) < 0.01


def test_of_a_gaussian_the_mean_moves_and_the_log_std_stays():
    data, prior = make_task(0).support, make_prior(0)
    inference = variational(
        weight_samples(log_likelihood), on_mean(trust_region(MAX_KL)), divergence=predicted
    )
    end = jax.tree.map(lambda leaf: leaf[-1], after(inference, prior, data, 1))
    np.testing.assert_array_equal(end.log_std, prior.log_std)
    reached = predicted(prior.mean, end.mean, data)
    assert 0.5 * MAX_KL < reached < MAX_KL  # the damping takes its part
    # Antithetic pairs: the mean's gradient is exact, and at the prior the KL has none.
    single = point(log_likelihood, trust_region(MAX_KL), divergence=predicted)
    alone = after(single, Delta(prior.mean), data, 1)
    np.testing.assert_allclose(end.mean, alone.mean[-1], rtol=1e-8)


def test_points_and_shared_stds_go_through():
    mean = {"w": jnp.ones(3), "p": jnp.ones(2)}
    params = Gaussian(mean, {"w": jnp.array(-1.0), "p": None})
    optimizer = on_mean(trust_region(MAX_KL))
    square = lambda q: sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(q.mean))  # noqa: E731
    update = jax.jit(
        lambda gradient: optimizer.update(
            gradient,
            optimizer.init(params),
            params,
            value_fn=square,
            divergence_fn=lambda q: square(jax.tree.map(jnp.subtract, q, params)),
        )[0]
    )
    taken = update(Gaussian(mean, {"w": jnp.array(5.0), "p": None}))
    assert taken.log_std == {"w": 0.0, "p": None}
    assert all(bool(jnp.all(leaf < 0)) for leaf in jax.tree.leaves(taken.mean))


def test_first_order_methods_take_the_step_as_a_constant():
    data = make_task(0).support
    inference = point(log_likelihood, trust_region(MAX_KL), divergence=predicted, first_order=True)

    def end(mean: jax.Array) -> jax.Array:
        return infer(inference, KEY, Delta(mean), lambda *_: data, 2).mean

    np.testing.assert_array_equal(jax.jit(jax.jacrev(end))(make_prior(0).mean), jnp.eye(5))
