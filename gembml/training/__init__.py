"""Running a learner: the loop, checkpoints, logs. The only input and output of the library."""

from gembml.training.errors import (
    DivergedError,
    InputError,
    InterruptedRunError,
    LostClientError,
    TaskFailedError,
)
from gembml.training.log import read_metrics
from gembml.training.loop import SeedRun, train, train_seeds
from gembml.training.workdir import open_workdir, write_json

__all__ = [
    "DivergedError",
    "InputError",
    "InterruptedRunError",
    "LostClientError",
    "SeedRun",
    "TaskFailedError",
    "open_workdir",
    "read_metrics",
    "train",
    "train_seeds",
    "write_json",
]
