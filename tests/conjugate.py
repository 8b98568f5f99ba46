"""The conjugate linear regression of appendix C.1 with fixed sizes, and inference that is exact."""

import functools

import jax

from gembml import Gaussian, Inference
from gembml.base import Collect, InferenceState, Key, StepKeys
from gembml.tasks import linear_regression as regression
from gembml.tasks.linear_regression import Data, Task, union

__all__ = ["Data", "Task", "union"]

NOISE_STD, FEATURES = 0.5, 5

log_likelihood = functools.partial(regression.log_likelihood, noise_std=NOISE_STD)
exact_posterior = functools.partial(regression.exact_posterior, noise_std=NOISE_STD)
log_evidence = functools.partial(regression.log_evidence, noise_std=NOISE_STD)
log_predictive = functools.partial(regression.log_predictive, noise_std=NOISE_STD)
PROBLEM = regression.linear_regression(FEATURES, NOISE_STD)


def make_task(seed: int, points: int = 10, features: int = FEATURES) -> Task:
    """The task of a seed."""
    return regression.sample_task(jax.random.key(seed), points, features, NOISE_STD)


def make_prior(seed: int, features: int = FEATURES) -> Gaussian:
    """The prior of a seed, whose numbers are apart from the tasks'."""
    return regression.sample_prior(jax.random.key(1000 + seed), features)


def exact_inference() -> Inference:
    """An inner loop that jumps to the exact posterior at every step."""

    def step(
        keys: StepKeys, state: InferenceState, prior: Gaussian, collect: Collect
    ) -> InferenceState:
        data = collect(keys.data, state.posterior.mean)
        return InferenceState(exact_posterior(prior, data), state.optimizer_state)

    def init(key: Key, prior: Gaussian) -> InferenceState:
        del key
        return InferenceState(prior, ())

    return Inference(init, step)
