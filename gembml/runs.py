"""Many whole runs at once: seeds and settings as one more axis of one program.

A run is a pure function of its key and its numbers, so ``vmap`` trains many in one compiled
program. What changes shapes or code (steps, choices, the network) is the same for all.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
from jax.sharding import Mesh, PartitionSpec

from gembml.base import Key, LearnerState, MetaLearner, Metrics, Task
from gembml.distributed import SEEDS
from gembml.learner import meta_steps

Hyperparameters = dict[str, jax.Array]


def init_key(root: Key) -> Key:
    """The key that draws the prior of the run whose seed made ``root``."""
    return jax.random.fold_in(root, 0)


def steps_key(root: Key) -> Key:
    """The key of all meta-steps of the run whose seed made ``root``."""
    return jax.random.fold_in(root, 1)


class ManyRuns(NamedTuple):
    """Algorithm 1 for many runs; every leaf has a leading axis ``[runs]``."""

    init: Callable[[Key, Hyperparameters], LearnerState]
    """``(keys [runs], hyperparameters {name: [runs]})`` -> states ``[runs, ...]``."""
    run: Callable[[LearnerState, Key, Hyperparameters, jax.Array], tuple[LearnerState, Metrics]]
    """``(states, keys, hyperparameters, first_step)`` -> states and metrics ``[runs, length]``."""


def many_runs(
    make: Callable[[Hyperparameters], MetaLearner],
    sample_tasks: Callable[[Key], Task],
    length: int,
    mesh: Mesh | None = None,
) -> ManyRuns:
    """``length`` meta-steps of each run as one function, to be compiled by the caller.

    Run r with ``keys[r] = jax.random.key(seed)`` draws what a single run of that seed draws
    (:func:`gembml.training.train`), and agrees with it up to rounding: batched products sum in
    another order. A run that diverges does not touch the others.

    Args:
      make: the learner from one run's numbers, ``{name: scalar}``, which are traced; for instance
        ``make_learner(algorithm, problem, dataclasses.replace(config, **numbers), steps)``.
      sample_tasks: a batch of tasks from a key, with a leading axis ``[tasks]``.
      length: meta-steps per call.
      mesh: devices among which the runs are divided, if more than one
        (:func:`gembml.distributed.seed_mesh`); their number must divide that of the runs. A
        device's runs are its own: nothing is exchanged.
    """

    def init(key: Key, hyperparameters: Hyperparameters) -> LearnerState:
        return make(hyperparameters).init(init_key(key))

    def run(
        state: LearnerState, key: Key, hyperparameters: Hyperparameters, first_step: jax.Array
    ) -> tuple[LearnerState, Metrics]:
        steps = meta_steps(make(hyperparameters), sample_tasks, steps_key(key), length)
        return steps(state, first_step)

    all_runs = jax.vmap(run, in_axes=(0, 0, 0, None))
    if mesh is not None:
        own = PartitionSpec(SEEDS)
        all_runs = jax.shard_map(
            all_runs,
            mesh=mesh,
            in_specs=(own, own, own, PartitionSpec()),
            out_specs=own,
            check_vma=False,
        )
    return ManyRuns(jax.vmap(init), all_runs)
