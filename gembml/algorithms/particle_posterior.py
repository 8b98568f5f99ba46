"""Rows whose posterior is a set of particles."""

import jax

from gembml import particles
from gembml.algorithms.parts import Parts
from gembml.base import Key, Problem, Task
from gembml.builders import inner_optimizer
from gembml.config import LearnerConfig
from gembml.inference import ensemble as ensemble_inference
from gembml.inference import point, svgd
from gembml.inference.platipus import platipus_inference
from gembml.meta_gradients import backprop, chaser
from gembml.meta_gradients import ensemble as ensemble_gradient
from gembml.meta_gradients.platipus import platipus_gradient
from gembml.platipus import family as platipus_family

# The precision of flax's initial weights in a layer of 40 inputs.
_INITIAL_LOG_PRECISION = 3.7


def bmaml(problem: Problem, config: LearnerConfig) -> Parts:
    """BMAML: Yoon, Kim, Dia, Kim, Bengio & Ahn 2018, Algorithm 3, with the chaser loss.

    The chaser takes ``inner_steps`` SVGD steps on D^tr, the leader ``leader_steps`` more on
    D^tr u D^val; the distance leaves out the log-precisions.
    """

    def on_all_data(params, data):
        return sum(problem.log_likelihood(params, part) for part in data)

    def all_data(key: Key, task: Task, params):
        support_key, query_key = jax.random.split(key)
        return problem.support(support_key, task, params), problem.query(query_key, task, params)

    def inference(log_likelihood, *, later: bool = False):
        optimizer = inner_optimizer(config, differentiated=True, per_particle=True, later=later)
        return svgd(log_likelihood, optimizer, prior_weight=config.kl_weight)

    chasing = inference(problem.log_likelihood)
    estimator = chaser(
        problem,
        chasing,
        config.inner_steps,
        leader=inference(on_all_data, later=True),
        leader_steps=config.leader_steps,
        leader_data=all_data,
        distance=particles.squared_distance,
    )
    return Parts(particles.family(config.num_particles, _INITIAL_LOG_PRECISION), chasing, estimator)


def emaml(problem: Problem, config: LearnerConfig) -> Parts:
    """EMAML: ``num_particles`` independent MAMLs, BMAML's baseline (Yoon et al. 2018).

    Independent but for ``max_meta_gradient_norm``, which is a cap of all particles' gradient.
    """
    optimizer = inner_optimizer(config, differentiated=True)
    single = point(problem.log_likelihood, optimizer, objective=problem.objective)
    estimator = ensemble_gradient(backprop(problem, single, config.inner_steps))
    return Parts(particles.family(config.num_particles), ensemble_inference(single), estimator)


def platipus(problem: Problem, config: LearnerConfig) -> Parts:
    """PLATIPUS: Finn, Xu & Levine 2018, Algorithms 1 and 2; its posterior, by ``num_particles``."""
    rate = config.inner_learning_rate
    inference = platipus_inference(problem.log_likelihood, rate, config.num_particles)
    estimator = platipus_gradient(problem, rate, config.inner_steps, kl_weight=config.kl_weight)
    return Parts(platipus_family(config.log_std_init), inference, estimator)
