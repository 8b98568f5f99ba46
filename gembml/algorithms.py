"""The paper's matrix of methods as a table: a name, and the choices that make it.

A row is a posterior family x a meta-gradient estimator x an objective; the inner optimizer and
every number are options. Nothing here is a training loop of its own.
"""

import dataclasses
from typing import NamedTuple

import optax

from gembml import delta, gaussian
from gembml.base import MetaLearner, Problem
from gembml.inference import ExpectedLogLikelihood, point, variational, weight_samples
from gembml.learner import meta_learner
from gembml.meta_gradients import backprop, gem
from gembml.optimizers import natural_gradient, online_em, scale_by_fisher, scale_log_std
from gembml.options import OptionError, check, option


class Algorithm(NamedTuple):
    """One row of the table."""

    family: str
    """``gaussian`` or ``delta``."""
    estimator: str
    """``gem`` (values alone), ``backprop`` (through the inner loop), or ``first_order``."""
    objective: str
    """``L1`` = log P(D^tr u D^val | Theta) or ``L2`` = log P(D^val | D^tr, Theta)."""
    reference: str


ALGORITHMS: dict[str, Algorithm] = {
    "gem_bml": Algorithm("gaussian", "gem", "L1", "Zou & Lu 2020, Section 3.2, GEM-BML"),
    "gem_bml_plus": Algorithm("gaussian", "gem", "L2", "Zou & Lu 2020, Section 3.2, GEM-BML+"),
    "maml": Algorithm("delta", "backprop", "L2", "Finn, Abbeel & Levine 2017"),
    "fomaml": Algorithm("delta", "first_order", "L2", "Finn, Abbeel & Levine 2017, Section 5.2"),
    "reptile": Algorithm("delta", "gem", "L1", "Nichol, Achiam & Schulman 2018; Section 4"),
}


# Optax's optimizers that need a learning rate only, and take a schedule.
OPTAX_OPTIMIZERS = (
    "adabelief",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "amsgrad",
    "lamb",
    "lion",
    "novograd",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "yogi",
)

# Where an option has an effect.
GAUSSIAN = (("posterior family", "gaussian"),)
_WEIGHTS = (*GAUSSIAN, ("expectation", "weights"))
_GRADIENT = (*GAUSSIAN, ("meta_optimizer", "not online_em"))
_NATURAL = (*GAUSSIAN, ("inner_optimizer", "natural_gradient"))


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Every number and choice of a learner that is not a row of the table."""

    inner_optimizer: str = option(
        "natural_gradient",
        "optimizer of the inner loop: natural_gradient or one of optax's",
        choices=("natural_gradient", *OPTAX_OPTIMIZERS),
    )
    inner_learning_rate: float = option(0.1, "learning rate of the inner loop", above=0.0)
    inner_steps: int = option(20, "inner steps per data set in meta-training", least=1, most=10_000)
    expectation: str = option(
        "weights",
        "how the ELBO's expectation is sampled: weights, or local (the local reparameterisation)",
        choices=("weights", "local"),
        only=GAUSSIAN,
    )
    num_samples: int = option(
        2, "weight samples per inner step", least=1, most=1_000, only=_WEIGHTS
    )
    antithetic: bool = option(True, "draw weight samples in pairs m + s e, m - s e", only=_WEIGHTS)
    kl_weight: float = option(1.0, "weight of the KL term of the ELBO", least=0.0, only=GAUSSIAN)
    log_std_init: float = option(
        -3.5, "the prior's log std at the start", least=-20.0, most=10.0, only=GAUSSIAN
    )
    log_std_multiplier: float = option(
        2.0, "log-std steps are this much longer than the mean's", least=0.0, only=_NATURAL
    )
    max_mean_norm: float = option(
        30.0, "cap of the mean's gradient in the Fisher norm", above=0.0, only=_NATURAL
    )
    max_log_std_step: float = option(0.3, "cap of each log-std's step", above=0.0, only=_NATURAL)
    meta_optimizer: str = option(
        "adam",
        "optimizer of the meta-step: online_em (gaussian) or one of optax's",
        choices=("online_em", *OPTAX_OPTIMIZERS),
    )
    meta_natural: bool = option(True, "precondition the meta-gradient by Fisher", only=_GRADIENT)
    meta_learning_rate: float = option(1e-3, "learning rate of the meta-step", above=0.0)
    meta_log_std_multiplier: float = option(
        1.0,
        "the prior's log-std steps are this much longer than its mean's",
        least=0.0,
        only=_GRADIENT,
    )
    meta_schedule: str = option(
        "cosine",
        "meta learning rate over the run: constant, or decayed to 0",
        choices=("constant", "linear", "cosine"),
    )

    def __post_init__(self) -> None:
        check(self)


def _schedule(config: LearnerConfig, num_meta_steps: int) -> optax.ScalarOrSchedule:
    if config.meta_schedule == "constant":
        return config.meta_learning_rate
    if config.meta_schedule == "linear":
        return optax.linear_schedule(config.meta_learning_rate, 0.0, num_meta_steps)
    return optax.cosine_decay_schedule(config.meta_learning_rate, num_meta_steps)


def _inner_optimizer(config: LearnerConfig) -> optax.GradientTransformation:
    if config.inner_optimizer == "natural_gradient":
        return natural_gradient(
            config.inner_learning_rate,
            log_std_multiplier=config.log_std_multiplier,
            max_mean_norm=config.max_mean_norm,
            max_log_std_step=config.max_log_std_step,
        )
    return getattr(optax, config.inner_optimizer)(config.inner_learning_rate)


def _expected_log_likelihood(problem: Problem, config: LearnerConfig) -> ExpectedLogLikelihood:
    if config.expectation == "weights":
        return weight_samples(
            problem.log_likelihood, num_samples=config.num_samples, antithetic=config.antithetic
        )
    if problem.local_log_likelihood is None:
        raise OptionError(
            "config.expectation=local needs a network with a local reparameterisation, and this "
            "problem has none: choose weights."
        )
    return problem.local_log_likelihood


def _meta_optimizer(
    algorithm: str, config: LearnerConfig, num_meta_steps: int
) -> optax.GradientTransformation:
    schedule = _schedule(config, num_meta_steps)
    if ALGORITHMS[algorithm].family == "delta":
        return getattr(optax, config.meta_optimizer)(schedule)
    if config.meta_optimizer == "online_em":
        if config.meta_learning_rate > 1:
            raise OptionError(
                "config.meta_learning_rate must lie in (0, 1] with online_em, "
                f"not {config.meta_learning_rate}."
            )
        return online_em(schedule)  # it has the Fisher metric built in, and both steps in one
    return optax.chain(
        scale_by_fisher() if config.meta_natural else optax.identity(),
        getattr(optax, config.meta_optimizer)(schedule),
        scale_log_std(config.meta_log_std_multiplier),
    )


def make_learner(
    algorithm: str, problem: Problem, config: LearnerConfig, num_meta_steps: int
) -> MetaLearner:
    """The learner that a row of :data:`ALGORITHMS` names.

    Args:
      algorithm: a key of :data:`ALGORITHMS`.
      problem: what is learned.
      config: numbers and choices.
      num_meta_steps: the length of the run, over which the meta learning rate decays.

    Raises:
      OptionError: for an unknown name or a combination that makes no sense, in one sentence.
    """
    if algorithm not in ALGORITHMS:
        raise OptionError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}.")
    row = ALGORITHMS[algorithm]
    if row.family == "gaussian":
        family = gaussian.family(config.log_std_init)
        inference = variational(
            _expected_log_likelihood(problem, config),
            _inner_optimizer(config),
            kl_weight=config.kl_weight,
        )
    else:
        for field, value in (
            ("inner_optimizer", "natural_gradient"),
            ("meta_optimizer", "online_em"),
            ("meta_natural", True),
        ):
            if getattr(config, field) == value:
                raise OptionError(
                    f"config.{field}={value} needs a Gaussian posterior, and {algorithm} has a "
                    "delta posterior: choose another value."
                )
        family = delta.family()
        inference = point(
            problem.log_likelihood,
            _inner_optimizer(config),
            first_order=row.estimator == "first_order",
        )
    if row.estimator == "gem":
        meta_gradient = gem(problem, family, inference, config.inner_steps, objective=row.objective)
    else:
        meta_gradient = backprop(problem, family, inference, config.inner_steps)
    return meta_learner(
        problem,
        family,
        inference,
        meta_gradient,
        _meta_optimizer(algorithm, config, num_meta_steps),
    )
