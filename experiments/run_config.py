"""What every experiment's run is told beside its learner's options."""

import dataclasses
from typing import Any, Self

import jax

from gembml import LearnerConfig
from gembml.config import SAMPLED
from gembml.options import option


@dataclasses.dataclass(frozen=True)
class RunConfig(LearnerConfig):
    """A learner's options, and how long and how often a run trains, saves and tests.

    An experiment's config adds options of its own and gives these other defaults by
    :func:`default`.
    """

    meta_batch: int = option(5, "tasks per meta-step", least=1, most=100_000)
    test_steps: int = option(10, "adaptation steps at test", least=1, most=1_000)
    test_tasks: int = option(600, "test tasks", least=2, most=1_000_000)
    validation_tasks: int = option(100, "validation tasks", least=2, most=1_000_000)
    steps_per_dispatch: int = option(500, "meta-steps per compiled call", least=1, most=100_000)
    evaluate_every: int = option(2000, "meta-steps between validations", least=1)
    checkpoint_every: int = option(2000, "meta-steps between checkpoints", least=1)

    def intervals(self) -> dict[str, Any]:
        """What :func:`gembml.training.train` is told of a run's rhythm."""
        return {
            "steps_per_dispatch": self.steps_per_dispatch,
            "evaluate_every": self.evaluate_every,
            "checkpoint_every": self.checkpoint_every,
        }


@dataclasses.dataclass(frozen=True)
class LargeTaskConfig(RunConfig):
    """Of runs whose tasks are each large enough to keep a CPU core busy."""

    tasks_at_once: int = option(
        -1,
        "tasks that a device handles at once, the others waiting; 0: all; -1: 1 on a CPU, where "
        "it is fastest, all on others",
        least=-1,
        most=100_000,
    )

    def on_this_device(self) -> Self:
        """What is left to the device, decided."""
        if self.tasks_at_once >= 0:
            return self
        return dataclasses.replace(self, tasks_at_once=int(jax.default_backend() == "cpu"))


def samples_of_predictive(value: int, *only: tuple[str, str]) -> Any:
    """The option of experiments whose predictive is an average over weights."""
    return option(
        value, "weight samples of a predictive", least=1, most=1_000, only=(*SAMPLED, *only)
    )


def default(name: str, value: Any) -> Any:
    """The option ``name`` of :class:`RunConfig` with another default, for a class made of it."""
    (field,) = (field for field in dataclasses.fields(RunConfig) if field.name == name)
    return dataclasses.field(default=value, metadata=field.metadata)
