"""Every number and choice of a learner that is not a row of the algorithm table."""

import dataclasses

from gembml.optimizers import by_name
from gembml.options import Named, check, option

_OPTAX = Named(by_name.WORDS, by_name.complaint)

# Where an option has an effect.
GAUSSIAN = (("posterior family", "gaussian"),)
SAMPLED = (("posterior family", "gaussian or laplace"),)
_WEIGHTS = (*GAUSSIAN, ("expectation", "weights"))
_GRADIENT = (*GAUSSIAN, ("meta_optimizer", "not online_em"))
_NATURAL = (*GAUSSIAN, ("inner_optimizer", "natural_gradient"))
_PARTICLES = (("posterior family", "particles"),)
_TRPO = (("inner_optimizer", "trpo"),)
_META_RATE = (("meta_optimizer", "not trpo"),)
_QUERY_LOOP = (("query loop", "present"),)
_PRIOR_TERM = (("posterior family", "gaussian or particles"), ("algorithm", "not emaml"))
_PRIOR_STD = (
    ("posterior family", "gaussian, particles or laplace"),
    ("algorithm", "not bmaml or emaml"),
)
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
        "rollouts need the surrogate ratio or dice) or any of optax's; trpo and those that need "
        "the loss, such as polyak_sgd, move only the mean of a Gaussian, and of rewards the best "
        "must be known, as on navigation",
        choices=("natural_gradient", "trpo"),
        named=_OPTAX,
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
    second_pass: float = option(
        0.0,
        "share of the query set's displacement by which the prior is moved for a second loop over "
        "the support set, whose difference from the first holds the derivative through it; 0.01 "
        "to 0.1 for smooth networks; 0: none, as in the paper",
        least=0.0,
        only=(("algorithm", "gem_bml or gem_bml_plus"),),
    )
    later_rate: float = option(
        1.0,
        "learning rate, or with trpo length, of each inner step as a share of that of the step "
        "before; steps on the query set, and those of BMAML's leader, begin at the second step's",
        above=0.0,
        only=(
            ("inner_optimizer", "not natural_gradient"),
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
        "weight w of the prior's term against the data: the KL of the ELBO (above 0: of the "
        "likelihood's power 1/w), or the log prior of BMAML's particles",
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
        "inner log-std steps are this much longer than the mean's, if log-stds move",
        least=0.0,
        only=(*GAUSSIAN, ("inner_optimizer", "not trpo, polyak_sgd or scale_by_polyak")),
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
        "reinforcement learning; rollouts need the surrogate ratio or dice) or any of optax's",
        choices=("online_em", "trpo"),
        named=_OPTAX,
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
