"""A sinusoid problem small enough to be learned in seconds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from gembml import LearnerConfig, Problem, ravel, supervised
from gembml.base import Key
from gembml.models import MLP
from gembml.problem import gaussian_log_likelihood
from gembml.tasks import sinusoid

NETWORK = MLP((16,))
# Tasks that resemble each other, so that the prior soon knows most of them.
SETTING = sinusoid.Setting((2.0, 3.0), (0.0, 0.5), (1.0, 1.0), 0.0)
META_BATCH = 4

_POINT = {
    "inner_optimizer": "sgd",
    "inner_learning_rate": 1e-3,
    "meta_natural": False,
    "meta_learning_rate": 1e-2,
}
CONFIGS: dict[str, LearnerConfig] = {
    name: dataclasses.replace(LearnerConfig(inner_steps=3, meta_schedule="constant"), **fields)
    for name, fields in {
        "gem_bml": {"meta_learning_rate": 1e-2},
        "gem_bml_plus": {"meta_learning_rate": 1e-2},
        "maml": _POINT,
        "fomaml": _POINT,
        "amortized_bml": {"meta_learning_rate": 1e-2},
        "pmaml": {"meta_learning_rate": 1e-2},
        "elbo_difference": {"meta_learning_rate": 1e-2},
        "kl_chaser": {"meta_learning_rate": 1e-2},
        "platipus": _POINT | {"kl_weight": 0.1},
        "bmaml": _POINT | {"num_particles": 4, "kl_weight": 0.01},
        "emaml": _POINT | {"num_particles": 4},
        "llama": _POINT,
        "imaml": _POINT | {"proximal_weight": 100.0},
        "meta_sgd": _POINT,
        "pretrain": _POINT,
        "reptile": _POINT | {"meta_optimizer": "sgd", "meta_learning_rate": 1.0},
    }.items()
}


def problem(observe: Callable[[], None] = lambda: None, network: MLP = NETWORK) -> Problem:
    """The problem; ``observe`` is called whenever the likelihood is traced."""
    single = supervised(
        network, jnp.zeros((1, 1)), gaussian_log_likelihood(0.5), whiten=lambda y: y / 0.5
    )

    def log_likelihood(params: Any, data: Any) -> jax.Array:
        observe()
        return single.log_likelihood(params, data)

    return ravel(single._replace(log_likelihood=log_likelihood))


def sample_tasks(key: Key) -> Any:
    """A batch of tasks with 5 support and 5 query points."""
    return jax.vmap(lambda k: sinusoid.sample_task(k, SETTING, 5, 5))(
        jax.random.split(key, META_BATCH)
    )
