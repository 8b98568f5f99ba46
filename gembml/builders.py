"""What a :class:`LearnerConfig` chooses, built: both loops' optimizers, the ELBO's estimator."""

import jax
import jax.numpy as jnp
import optax

from gembml.base import Problem
from gembml.config import LearnerConfig
from gembml.inference.expectations import ExpectedLogLikelihood, weight_samples
from gembml.optimizers import (
    cap_log_std_rise,
    natural_gradient,
    online_em,
    scale_by_fisher,
    scale_log_std,
    trust_region,
)
from gembml.optimizers.by_name import (
    OptaxNameError,
    moves,
    needs_loss,
    optax_transformation,
)
from gembml.optimizers.clip import clip_norm
from gembml.options import OptionError, concrete, positive


def _optax(
    field: str,
    name: str,
    rate: optax.ScalarOrSchedule,
    *,
    differentiated: bool = False,
    with_loss: bool = False,
) -> optax.GradientTransformation:
    try:
        transformation = optax_transformation(
            name, rate, differentiated=differentiated, with_loss=with_loss
        )
    except OptaxNameError as error:
        rates = "; and its rate must be a number, not a schedule" if callable(rate) else ""
        raise OptionError(f"config.{field}={name} cannot be used: {error}{rates}.") from error
    if not moves(name):
        raise OptionError(f"config.{field}={name} cannot be used: its steps are zero.")
    return transformation


def _inner_rate(
    rate: float | jax.Array, config: LearnerConfig, *, later: bool
) -> optax.ScalarOrSchedule:
    share = config.later_rate
    if concrete(share) and share == 1.0:
        return rate
    if later:
        rate = rate * share
    return lambda step: rate * jnp.asarray(share) ** step


def inner_optimizer(
    config: LearnerConfig,
    *,
    differentiated: bool = False,
    per_particle: bool = False,
    later: bool = False,
) -> optax.GradientTransformation:
    """The optimizer of the inner loop; ``differentiated`` if its steps are differentiated.

    A trust region, and a step that follows from the loss, are of the weights themselves: for a
    Gaussian, of its mean.

    ``per_particle``: of parameters ``[M, ...]``, each of which has its own cap. ``later``: of steps
    none of which is the first, such as those on the query set.
    """
    if config.inner_optimizer == "natural_gradient":
        return natural_gradient(
            config.inner_learning_rate,
            log_std_multiplier=config.log_std_multiplier,
            max_mean_norm=config.max_mean_norm,
            max_log_std_step=config.max_log_std_step,
        )
    if config.inner_optimizer == "trpo":
        longest = trust_region(config.max_kl)
        if concrete(config.later_rate) and config.later_rate == 1.0:
            return longest
        share = _inner_rate(1.0, config, later=later)
        return optax.chain(longest, optax.scale_by_schedule(share))  # type: ignore[arg-type]
    rate = _inner_rate(config.inner_learning_rate, config, later=later)
    optimizer = _optax(
        "inner_optimizer",
        config.inner_optimizer,
        rate,
        differentiated=differentiated,
        with_loss=not per_particle,  # Stein's direction is the gradient of no loss
    )
    # A traced limit is one of several settings, none of them 0.
    if concrete(config.max_inner_gradient_norm) and config.max_inner_gradient_norm == 0:
        return optimizer
    if needs_loss(config.inner_optimizer):
        raise OptionError(
            f"config.max_inner_gradient_norm must be 0 with {config.inner_optimizer}, whose steps "
            "are the longer the shorter the gradient."
        )
    return optax.chain(
        clip_norm(config.max_inner_gradient_norm, per_particle=per_particle), optimizer
    )


def expected_log_likelihood(problem: Problem, config: LearnerConfig) -> ExpectedLogLikelihood:
    """The estimator of the ELBO's first term.

    Raises:
      OptionError: for a local expectation or Flipout with a network that has none.
    """
    if config.expectation == "weights":
        return weight_samples(
            problem.log_likelihood, num_samples=config.num_samples, antithetic=config.antithetic
        )
    name, expected = {
        "local": ("a local reparameterisation", problem.local_log_likelihood),
        "flipout": ("Flipout", problem.flipout_log_likelihood),
    }[config.expectation]
    if expected is None:
        raise OptionError(
            f"config.expectation={config.expectation} needs a network with {name}, and this "
            "problem has none: choose weights."
        )
    return expected


def _schedule(config: LearnerConfig, num_meta_steps: int) -> optax.ScalarOrSchedule:
    if config.meta_schedule == "constant":
        return config.meta_learning_rate
    if config.meta_schedule == "linear":
        return optax.linear_schedule(config.meta_learning_rate, 0.0, num_meta_steps)
    return optax.cosine_decay_schedule(config.meta_learning_rate, num_meta_steps)


def meta_optimizer(
    family: str, config: LearnerConfig, num_meta_steps: int
) -> optax.GradientTransformation:
    """The optimizer of the meta-step for a prior of this family.

    Raises:
      OptionError: for a step of online EM above 1.
    """
    schedule = _schedule(config, num_meta_steps)
    if family != "gaussian":
        return _optax("meta_optimizer", config.meta_optimizer, schedule)
    if config.meta_optimizer == "online_em":
        if concrete(config.meta_learning_rate) and config.meta_learning_rate > 1:
            raise OptionError(
                "config.meta_learning_rate must lie in (0, 1] with online_em, "
                f"not {config.meta_learning_rate}."
            )
        if config.variance_per != "weight" or config.random_weights != "all":
            raise OptionError(
                "config.meta_optimizer=online_em needs a variance of its own for each weight: "
                "config.variance_per=weight and config.random_weights=all."
            )
        return online_em(schedule)  # it has the Fisher metric built in, and both steps in one
    rise = config.max_log_std_rise
    return optax.chain(
        scale_by_fisher() if config.meta_natural else optax.identity(),
        _optax("meta_optimizer", config.meta_optimizer, schedule),
        scale_log_std(config.meta_log_std_multiplier),
        cap_log_std_rise(rise) if positive(rise) else optax.identity(),
    )


def max_task_norm(config: LearnerConfig) -> float | jax.Array | None:
    """The cap of each task's meta-gradient, if there is one."""
    return config.max_meta_gradient_norm if positive(config.max_meta_gradient_norm) else None
