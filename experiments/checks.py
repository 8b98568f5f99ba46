"""What a run checks before it makes anything."""

from collections.abc import Callable

import jax

from gembml import MetaLearner
from gembml.base import Key, Task


def check_builds(learner: MetaLearner, sample_tasks: Callable[[Key], Task]) -> None:
    """Trace one meta-step, so that options that do not go together show before anything is made."""
    key = jax.random.key(0)
    state = jax.eval_shape(learner.init, key)
    tasks = jax.eval_shape(sample_tasks, key)
    jax.eval_shape(learner.update, state, key, tasks)
