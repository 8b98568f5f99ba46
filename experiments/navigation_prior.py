"""The trained prior of a finished navigation run, for studies of what its variance is good for."""

import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.rl_experiment import Experiment, Setting, independent, make_experiment
from experiments.rl_presets import NavigationConfig
from experiments.trained_run import read_run, trained_prior
from gembml.gaussian import Gaussian
from gembml.tasks.navigation import GOALS, navigation


class NavigationPrior(NamedTuple):
    """What a finished run of Gradient-EM learned, and what it computed with."""

    about: dict[str, Any]
    """What its ``run.json`` says."""
    config: NavigationConfig
    experiment: Experiment
    prior: Gaussian


def navigation_prior(
    directory: pathlib.Path,
    suits: Callable[[NavigationConfig], bool],
    wanted: str,
) -> NavigationPrior:
    """The prior at the end of the run of ``gem_bml`` or ``gem_bml_plus`` in a directory.

    Raises:
      InputError: as :func:`read_run` and :func:`trained_prior`; or ``suits`` refuses the run's
        config, and ``wanted`` says what it takes.
    """
    about, config = read_run(
        directory,
        "navigation",
        NavigationConfig,
        lambda about, config: about["algorithm"].startswith("gem_bml") and suits(config),
        f"a navigation run of gem_bml or gem_bml_plus with {wanted}",
    )
    setting = Setting(navigation(config.reward, config.horizon), independent(GOALS[config.goals]))
    experiment = make_experiment(about["algorithm"], config, setting, about["meta_steps"])
    prior = trained_prior(directory, about["meta_steps"], experiment.learner)
    return NavigationPrior(about, config, experiment, prior)
