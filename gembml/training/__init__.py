"""Running a learner: the loop, checkpoints, logs."""

from gembml.training.errors import (
    DivergedError,
    InputError,
    InterruptedRunError,
    LostClientError,
    TaskFailedError,
)
from gembml.training.log import lost_tasks, read_metrics
from gembml.training.loop import SeedRun, train, train_seeds
from gembml.training.workdir import open_workdir, write_json

__all__ = [
    "DivergedError",
    "InputError",
    "InterruptedRunError",
    "LostClientError",
    "SeedRun",
    "TaskFailedError",
    "lost_tasks",
    "open_workdir",
    "read_metrics",
    "train",
    "train_seeds",
    "write_json",
]
