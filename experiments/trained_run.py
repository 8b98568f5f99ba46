"""A finished run, whose trained prior a study takes up."""

import json
import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

import jax

from gembml import MetaLearner
from gembml.base import Distribution
from gembml.options import OptionError
from gembml.training import InputError
from gembml.training.checkpoints import Checkpoints

Config = TypeVar("Config")


def read_run(
    directory: pathlib.Path,
    experiment: str,
    config_class: type[Config],
    suits: Callable[[dict[str, Any], Config], bool],
    wanted: str,
) -> tuple[dict[str, Any], Config]:
    """What ``run.json`` says of the run of ``experiment`` in a directory, and its config.

    Raises:
      InputError: if there is no run, or none that ``suits``; it says what is ``wanted``. Or if the
        run has an option, or a value of one, that there is no more.
    """
    refusal = InputError(f"--run must name the work directory of {wanted}, not {directory}.")
    try:
        about = json.loads((directory / "run.json").read_text())
        options = about["config"]
        if about["experiment"] != experiment:
            raise refusal
        config = config_class(**options)
        if suits(about, config):
            return about, config
    except OptionError as error:
        raise InputError(f"--run={directory} has an option of an older version: {error}") from error
    except TypeError as error:
        raise InputError(
            f"--run={directory} is of a version with other options ({error})."
        ) from error
    except (OSError, ValueError, KeyError):
        pass
    raise refusal


def trained_prior(directory: pathlib.Path, meta_steps: int, learner: MetaLearner) -> Distribution:
    """The prior at the run's end; the run's files stay as they are.

    Raises:
      InputError: if the run has not come there, or its last checkpoint does not read back right.
    """
    checkpoints = Checkpoints(directory / "checkpoints")
    if meta_steps not in checkpoints.steps():
        raise InputError(f"The run in {directory} is not finished: run its command to the end.")
    try:
        return checkpoints.read(meta_steps, learner.init(jax.random.key(0))).state.prior
    except InputError:
        raise
    except Exception as error:  # a damaged file can surface as any error of any layer below
        raise InputError(
            f"The run in {directory} has a damaged last checkpoint ({type(error).__name__}): run "
            "its command again."
        ) from error
