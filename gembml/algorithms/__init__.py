"""The paper's matrix of methods as a table: a name, and the choices that make it.

A row is a posterior family x a meta-gradient estimator x an objective; the inner optimizer and
every number are options. Nothing here is a training loop of its own.
"""

from jax.sharding import Mesh

from gembml.algorithms import (
    delta_posterior,
    gaussian_posterior,
    laplace_posterior,
    particle_posterior,
)
from gembml.algorithms.parts import Algorithm, Estimator, Parts
from gembml.base import MetaLearner, Problem
from gembml.builders import inner_optimizer, max_task_norm, meta_optimizer
from gembml.config import LearnerConfig
from gembml.learner import meta_learner
from gembml.optimizers import trust_region
from gembml.optimizers.by_name import has_usable_derivative, needs_loss
from gembml.options import OptionError, positive
from gembml.trust_region_learner import trust_region_learner

__all__ = ["ALGORITHMS", "Algorithm", "Estimator", "Parts", "make_learner"]

# Estimators, as `--list` prints them.
_GEM = Estimator("Gradient-EM", differentiates=False)
_THROUGH = Estimator("ELBO gradient", differentiates=True)  # MAML's is its delta case
_CHASER = Estimator("chaser", differentiates=True)
_LAPLACE = Estimator("Laplace", differentiates=True)
_FIRST_ORDER = Estimator("first-order", differentiates=False)
_IMPLICIT = Estimator("implicit", differentiates=False)
_EXACT = Estimator("none", differentiates=False)  # there is no inner loop

ALGORITHMS: dict[str, Algorithm] = {
    "gem_bml": Algorithm(
        gaussian_posterior.gem_bml,
        "gaussian",
        _GEM,
        "L1",
        "Zou & Lu 2020, Section 3.2",
        query_loop=True,
    ),
    "gem_bml_plus": Algorithm(
        gaussian_posterior.gem_bml_plus,
        "gaussian",
        _GEM,
        "L2",
        "Zou & Lu 2020, Section 3.2",
        query_loop=True,
    ),
    "amortized_bml": Algorithm(
        gaussian_posterior.amortized_bml,
        "gaussian",
        _THROUGH,
        "L1",
        "Ravi & Beatson 2019",
        query_loop=True,
    ),
    "pmaml": Algorithm(
        gaussian_posterior.pmaml,
        "gaussian",
        _THROUGH,
        "L2",
        "Zou & Lu 2020, Table 1",
        query_loop=True,
    ),
    "elbo_difference": Algorithm(
        gaussian_posterior.elbo_difference,
        "gaussian",
        _THROUGH,
        "L2 as L1 - L(D^tr)",
        "Zou & Lu 2020, Section 4",
        query_loop=True,
    ),
    "kl_chaser": Algorithm(
        gaussian_posterior.kl_chaser,
        "gaussian",
        _CHASER,
        "L2",
        "Zou & Lu 2020, Table 1",
        query_loop=True,
    ),
    "platipus": Algorithm(
        particle_posterior.platipus, "particles", _THROUGH, "L2", "Finn, Xu & Levine 2018"
    ),
    "bmaml": Algorithm(particle_posterior.bmaml, "particles", _CHASER, "L2", "Yoon et al. 2018"),
    "emaml": Algorithm(particle_posterior.emaml, "particles", _THROUGH, "L2", "Yoon et al. 2018"),
    "llama": Algorithm(laplace_posterior.llama, "laplace", _LAPLACE, "L2", "Grant et al. 2018"),
    "maml": Algorithm(delta_posterior.maml, "delta", _THROUGH, "L2", "Finn, Abbeel & Levine 2017"),
    "fomaml": Algorithm(
        delta_posterior.fomaml, "delta", _FIRST_ORDER, "L2", "Finn, Abbeel & Levine 2017"
    ),
    "imaml": Algorithm(delta_posterior.imaml, "delta", _IMPLICIT, "L2", "Rajeswaran et al. 2019"),
    "meta_sgd": Algorithm(delta_posterior.meta_sgd, "delta", _THROUGH, "L2", "Li et al. 2017"),
    "reptile": Algorithm(
        delta_posterior.reptile,
        "delta",
        _GEM,
        "L1",
        "Nichol, Achiam & Schulman 2018",
        query_loop=True,
    ),
    "pretrain": Algorithm(
        delta_posterior.pretrain, "delta", _EXACT, "L1", "Zou & Lu 2020, Section 4"
    ),
}

# These learn the rates of a plain SGD step, or are defined by it.
_SGD_ONLY = ("meta_sgd", "platipus")


def _has_usable_derivative(inner_optimizer: str) -> bool:
    if inner_optimizer in ("natural_gradient", "trpo"):
        return inner_optimizer == "natural_gradient"  # the other's steps are those of a search
    return has_usable_derivative(inner_optimizer)


# What only a Gaussian posterior has, and what to choose for another.
_GAUSSIAN_CHOICES = {
    ("inner_optimizer", "natural_gradient"): "sgd or another of optax's",
    ("meta_optimizer", "online_em"): "adam or another of optax's",
    ("meta_natural", True): "False",
}


def _check_not_gaussian(algorithm: str, family: str, config: LearnerConfig) -> None:
    wrong = [
        (f"config.{field}={value}", f"config.{field}: {instead}")
        for (field, value), instead in _GAUSSIAN_CHOICES.items()
        if getattr(config, field) == value
    ]
    if wrong:
        values, choices = zip(*wrong, strict=True)
        article = "particles as its" if family == "particles" else f"a {family}"
        raise OptionError(
            f"{' and '.join(values)} {'needs' if len(wrong) == 1 else 'need'} a Gaussian "
            f"posterior, and {algorithm} has {article} posterior: choose {', and '.join(choices)}."
        )


def _check_rollouts(algorithm: str, problem: Problem, config: LearnerConfig) -> None:
    if algorithm == "platipus":
        raise OptionError(
            "platipus adapts to one set of data, and rollouts are new ones at each step: choose "
            "another algorithm."
        )
    if problem.objective is None and needs_loss(config.inner_optimizer):
        raise OptionError(
            f"config.inner_optimizer={config.inner_optimizer} needs the loss, and of these rewards "
            "no best is known: choose another optimizer."
        )


def _check_combination(algorithm: str, problem: Problem, config: LearnerConfig) -> None:
    """Raise :class:`OptionError` for choices that do not go together."""
    row = ALGORITHMS[algorithm]
    if row.family != "gaussian":
        _check_not_gaussian(algorithm, row.family, config)
    of_support = algorithm == "amortized_bml" and config.amortized_posterior == "support"
    if of_support and config.query_steps:
        raise OptionError(
            "config.query_steps must be 0 for amortized_bml with config.amortized_posterior="
            f"support, which takes no step on the query set, not {config.query_steps}."
        )
    if config.meta_optimizer == "online_em" and row.estimator != _GEM:
        raise OptionError(
            "config.meta_optimizer=online_em needs Gradient-EM's meta-gradient, whose values are "
            f"moments, and that of {algorithm} is of another kind: choose one of optax's."
        )
    if config.meta_optimizer == "trpo" and algorithm != "maml":
        raise OptionError(
            "config.meta_optimizer=trpo searches along the objective of maml, as a function of the "
            f"prior, and {algorithm} has none to search along: choose another value."
        )
    if row.estimator.differentiates:
        inner_optimizer(config, differentiated=True)  # refuses what cannot be used at all
    if row.estimator.differentiates and not _has_usable_derivative(config.inner_optimizer):
        raise OptionError(
            f"{algorithm} differentiates through the inner loop, and the steps of "
            f"config.inner_optimizer={config.inner_optimizer} have no usable derivative: choose "
            "another optimizer, or an algorithm that needs no derivative through them."
        )
    if problem.is_surrogate:
        _check_rollouts(algorithm, problem, config)
    if row.estimator == _GEM and config.inner_optimizer == "trpo" and positive(config.second_pass):
        raise OptionError(
            "config.second_pass must be 0 with config.inner_optimizer=trpo, whose steps are those "
            "of a search and jump from one length to the next."
        )
    for field in ("inner_optimizer", "meta_optimizer"):
        if getattr(config, field) == "trpo" and problem.divergence is None:
            raise OptionError(
                f"config.{field}=trpo needs a problem with a divergence between what two networks "
                "predict, and this problem has none (rollouts have one with the surrogate ratio or "
                "dice): choose another value."
            )
    if algorithm == "kl_chaser" and config.random_weights != "all":
        raise OptionError(
            "kl_chaser minimises a KL divergence, in which points have no part: "
            "config.random_weights must be all."
        )
    if algorithm in _SGD_ONLY and config.inner_optimizer != "sgd":
        raise OptionError(
            f"{algorithm} learns the rates of SGD steps: config.inner_optimizer must be sgd, "
            f"not {config.inner_optimizer}."
        )


def make_learner(
    algorithm: str,
    problem: Problem,
    config: LearnerConfig,
    num_meta_steps: int,
    mesh: Mesh | None = None,
) -> MetaLearner:
    """The learner that a row of :data:`ALGORITHMS` names.

    Args:
      algorithm: a key of :data:`ALGORITHMS`.
      problem: what is learned.
      config: numbers and choices.
      num_meta_steps: the length of the run, over which the meta learning rate decays.
      mesh: the devices over which the tasks of a meta-step are spread, if more than one.

    Raises:
      OptionError: for an unknown name or a combination that makes no sense, in one sentence.
    """
    if algorithm not in ALGORITHMS:
        raise OptionError(f"algorithm must be one of {', '.join(ALGORITHMS)}, not {algorithm!r}.")
    if num_meta_steps < 1:
        raise OptionError(f"num_meta_steps must be at least 1, not {num_meta_steps}.")
    _check_combination(algorithm, problem, config)
    row = ALGORITHMS[algorithm]
    parts = row.build(problem, config)
    if config.meta_optimizer == "trpo":
        if mesh is not None:
            raise OptionError(
                "config.meta_optimizer=trpo takes its meta-step on one device, and here are "
                f"{mesh.size}: run on one, or choose another value."
            )
        return trust_region_learner(
            problem,
            parts.family,
            parts.inference,
            config.inner_steps,
            trust_region(config.meta_max_kl),
            tasks_at_once=config.tasks_at_once,
        )
    optimizer = meta_optimizer(row.family, config, num_meta_steps)
    return meta_learner(
        problem,
        parts.family,
        parts.inference,
        parts.meta_gradient,
        optimizer,
        mesh,
        tasks_at_once=config.tasks_at_once,
        max_task_norm=max_task_norm(config),
    )
