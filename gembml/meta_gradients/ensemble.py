"""A delta estimator for every particle of an ensemble."""

import jax

from gembml.base import Key, MetaGradient, Task
from gembml.delta import Delta
from gembml.particles import Particles


def ensemble(point: MetaGradient) -> MetaGradient:
    """``point``'s meta-gradient at each particle: M learners side by side (EMAML).

    The baseline of Yoon et al. 2018, Section 5: an ensemble that differs from BMAML by having
    neither SVGD's repulsion nor the chaser loss. The particles see the same tasks.
    """

    def meta_gradient(key: Key, prior: Particles, task: Task) -> Particles:
        return Particles(
            jax.vmap(lambda weights: point(key, Delta(weights), task).mean)(prior.weights)
        )

    return meta_gradient
