"""Every number and choice of a learner that is not a row of the algorithm table."""

import dataclasses

import jax.numpy as jnp
import optax

from gembml.base import Problem
from gembml.inference.expectations import ExpectedLogLikelihood, weight_samples
from gembml.optimizers import (
    cap_log_std_rise,
    natural_gradient,
    online_em,
    scale_by_fisher,
    scale_log_std,
    trust_region,
)
from gembml.optimizers.clip import clip_norm
from gembml.options import OptionError, check, concrete, option

# Optax's optimizers that need a learning rate only, and take a schedule.
OPTAX_OPTIMIZERS = (
    "adabelief",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamaxw",
    "adamw",
    "adan",
    "amsgrad",
    "fromage",
    "lamb",
    "lars",
    "lion",
    "novograd",
    "optimistic_gradient_descent",
    "radam",
    "rmsprop",
    "sgd",
    "sign_sgd",
    "yogi",
)

# Where an option has an effect.
GAUSSIAN = (("posterior family", "gaussian"),)
SAMPLED = (("posterior family", "gaussian or laplace"),)
_WEIGHTS = (*GAUSSIAN, ("expectation", "weights"))
_GRADIENT = (*GAUSSIAN, ("meta_optimizer", "not online_em"))
_NATURAL = (*GAUSSIAN, ("inner_optimizer", "natural_gradient"))
_PARTICLES = (("posterior family", "particles"),)
_TRPO = (("inner_optimizer", "trpo"),)
_META_RATE = (("meta_optimizer", "not trpo"),)
_GAUSSIAN_ROWS = "gem_bml, gem_bml_plus, amortized_bml, pmaml, elbo_difference, kl_chaser"
_QUERY_LOOP = (("algorithm", f"{_GAUSSIAN_ROWS} or reptile"),)
_PRIOR_TERM = (("algorithm", f"{_GAUSSIAN_ROWS}, platipus or bmaml"),)
_PRIOR_STD = (("algorithm", f"{_GAUSSIAN_ROWS}, platipus or llama"),)
_AMORTIZED = (("algorithm", "amortized_bml"),)
_IMAML = (("algorithm", "imaml"),)


@dataclasses.dataclass(frozen=True)
class LearnerConfig:
    """Every number and choice of a learner that is not a row of the table.

    Numbers may be traced values, so that one program serves many settings; see
    :func:`gembml.runs.many_runs`.
    """

    inner_optimizer: str = option(
        "natural_gradient",
        "optimizer of the inner loop: natural_gradient, trpo (a trust region in what is predicted; "
        "of a Gaussian it moves the mean alone, and rollouts need the surrogate ratio or dice) or "
        "one of optax's",
        choices=("natural_gradient", "trpo", *OPTAX_OPTIMIZERS),
    )
    inner_learning_rate: float = option(
        0.1,
        "learning rate of the inner loop",
        above=0.0,
        only=(("inner_optimizer", "not trpo"),),
    )
    max_kl: float = option(
        0.01,
        "how far an inner step may move what is predicted, in mean KL divergence",
        above=0.0,
        only=_TRPO,
    )
    inner_steps: int = option(
        20,
        "inner steps per data set in meta-training",
        least=1,
        most=10_000,
        only=(("algorithm", "not pretrain"),),
    )
    query_steps: int = option(
        0,
        "inner steps on the query set, where lambda_all follows lambda_tr; 0: as inner_steps",
        least=0,
        most=10_000,
        only=_QUERY_LOOP,
    )
    later_rate: float = option(
        1.0,
        "learning rate of each inner step as a share of that of the step before; with Gradient-EM "
        "and Reptile steps on the query set begin at the second step's",
        above=0.0,
        only=(
            ("inner_optimizer", "not natural_gradient or trpo"),
            ("algorithm", "not meta_sgd or platipus"),
        ),
    )
    expectation: str = option(
        "weights",
        "how the ELBO's expectation is sampled: weights, local (the local reparameterisation) or "
        "flipout",
        choices=("weights", "local", "flipout"),
        only=GAUSSIAN,
    )
    num_samples: int = option(
        2, "weight samples per inner step", least=1, most=1_000, only=_WEIGHTS
    )
    antithetic: bool = option(True, "draw weight samples in pairs m + s e, m - s e", only=_WEIGHTS)
    kl_weight: float = option(
        1.0,
        "weight of the prior's term against the data: the KL of the ELBO, or the log prior of "
        "BMAML's particles",
        least=0.0,
        only=_PRIOR_TERM,
    )
    log_std_init: float = option(
        -3.5,
        "the prior's log std at the start; for llama, where it stays",
        least=-20.0,
        most=10.0,
        only=_PRIOR_STD,
    )
    log_std_relative: bool = option(
        False,
        "whether log_std_init is relative to the root mean square of the weight's array",
        only=GAUSSIAN,
    )
    variance_per: str = option(
        "weight",
        "what has a standard deviation of its own: each weight, or each array of weights",
        choices=("weight", "array"),
        only=GAUSSIAN,
    )
    random_weights: str = option(
        "all",
        "which weights have a variance: all, or those of the network's head; the others are points",
        choices=("all", "head"),
        only=GAUSSIAN,
    )
    max_log_std_rise: float = option(
        0.0,
        "cap of how far each of the prior's log stds rises above its start; 0: none",
        least=0.0,
        only=_GRADIENT,
    )
    log_std_multiplier: float = option(
        2.0,
        "inner log-std steps are this much longer than the mean's",
        least=0.0,
        only=(*GAUSSIAN, ("inner_optimizer", "not trpo")),
    )
    max_mean_norm: float = option(
        30.0, "cap of the mean's gradient in the Fisher norm", above=0.0, only=_NATURAL
    )
    max_log_std_step: float = option(0.3, "cap of each log-std's step", above=0.0, only=_NATURAL)
    amortized_posterior: str = option(
        "support",
        "whose posterior bounds the evidence of D^tr u D^val: that of the support (Ravi & Beatson) "
        "or of all data (Table 1 of the paper)",
        choices=("support", "all"),
        only=_AMORTIZED,
    )
    hyperprior_weight: float = option(
        1e-4,
        "weight of log P(Theta) beside one task's evidence: 1 / (number of tasks)",
        least=0.0,
        only=_AMORTIZED,
    )
    num_particles: int = option(10, "particles", least=1, most=1_000, only=_PARTICLES)
    leader_steps: int = option(
        1,
        "steps that the leader is ahead, on D^tr u D^val",
        least=1,
        most=1_000,
        only=(("algorithm", "bmaml"),),
    )
    proximal_weight: float = option(
        2.0,
        "weight w of w/2 |theta - mu|^2 in the inner problem",
        above=0.0,
        only=_IMAML,
    )
    cg_steps: int = option(
        5,
        "conjugate-gradient steps of the implicit gradient",
        least=1,
        most=1_000,
        only=_IMAML,
    )
    curvature: str = option(
        "hessian",
        "curvature of the implicit gradient: hessian, as in the paper, or gauss_newton, which is "
        "positive everywhere",
        choices=("hessian", "gauss_newton"),
        only=_IMAML,
    )
    curvature_weight: float = option(
        1e-3,
        "weight of the log determinant of the curvature",
        least=0.0,
        only=(("algorithm", "llama"),),
    )
    max_inner_gradient_norm: float = option(
        0.0,
        "cap of the inner loop's gradient, for particles of each one's; 0: none (natural_gradient "
        "has its own, max_mean_norm)",
        least=0.0,
        only=(
            ("inner_optimizer", "not natural_gradient or trpo"),
            ("algorithm", "not meta_sgd or platipus"),
        ),
    )
    max_meta_gradient_norm: float = option(
        0.0,
        "cap of each task's meta-gradient, where one that is not finite counts as zero; 0: none",
        least=0.0,
        only=_META_RATE,
    )
    tasks_at_once: int = option(
        0,
        "tasks that a device handles at once, the others waiting; 0: all; 1 is fastest for "
        "convolutions on a CPU",
        least=0,
        most=100_000,
    )
    meta_optimizer: str = option(
        "adam",
        "optimizer of the meta-step: online_em (with Gradient-EM), trpo (MAML's own in "
        "reinforcement learning; rollouts need the surrogate ratio or dice) or one of optax's",
        choices=("online_em", "trpo", *OPTAX_OPTIMIZERS),
    )
    meta_natural: bool = option(True, "precondition the meta-gradient by Fisher", only=_GRADIENT)
    meta_learning_rate: float = option(
        1e-3, "learning rate of the meta-step", above=0.0, only=_META_RATE
    )
    meta_max_kl: float = option(
        0.01,
        "how far a meta-step may move what adapted networks predict, in mean KL divergence",
        above=0.0,
        only=(("meta_optimizer", "trpo"),),
    )
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
        only=_META_RATE,
    )

    def __post_init__(self) -> None:
        check(self)


# Where a weight's gradient is exactly 0, as behind a dead ReLU, the square root in these has an
# infinite derivative, unless something is added below it.
_ROOTS = ("adam", "adamw", "amsgrad")


def _inner_rate(config: LearnerConfig, *, later: bool) -> optax.ScalarOrSchedule:
    rate, share = config.inner_learning_rate, config.later_rate
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

    A trust region is of the weights themselves: for a Gaussian, of its mean.

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
        return trust_region(config.max_kl)
    root = {"eps_root": 1e-8} if differentiated and config.inner_optimizer in _ROOTS else {}
    rate = _inner_rate(config, later=later)
    optimizer = getattr(optax, config.inner_optimizer)(rate, **root)
    # A traced limit is one of several settings, none of them 0.
    if concrete(config.max_inner_gradient_norm) and config.max_inner_gradient_norm == 0:
        return optimizer
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
        return getattr(optax, config.meta_optimizer)(schedule)
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
        getattr(optax, config.meta_optimizer)(schedule),
        scale_log_std(config.meta_log_std_multiplier),
        cap_log_std_rise(rise) if _positive(rise) else optax.identity(),
    )


def _positive(limit: float) -> bool:
    """Whether a limit of which 0 means none is one; a traced one is one of several, none 0."""
    return not concrete(limit) or limit > 0
