"""The data sets of images by name, for programs."""

import inspect
import pathlib
from collections.abc import Callable
from typing import Any

from gembml.options import OptionError, check_choice
from gembml.tasks import image_folder, mini_imagenet, omniglot
from gembml.tasks.data_dirs import default_data_dir
from gembml.tasks.images import Splits

_LIBRARY_ONLY = ("data_dir", "seed")
"""Arguments that are no options of the programs, so refusals do not list them."""

DATASETS: dict[str, Callable[..., Splits]] = {
    "omniglot": omniglot.load,
    "mini_imagenet": mini_imagenet.load,
    "image_folder": image_folder.load,
}


def load(dataset: str, data_dir: pathlib.Path | None = None, **options: Any) -> Splits:
    """A data set's classes, divided for meta-learning.

    Args:
      dataset: a row of :data:`DATASETS`.
      data_dir: where its files are; None for the folder that GEMBML_DATA_DIR names.
      **options: those of the data set's own function.

    Raises:
      OptionError: there is no such data set or option, or what its own function raises.
    """
    check_choice("dataset", dataset, DATASETS)
    function = DATASETS[dataset]
    known = inspect.signature(function).parameters
    listed = ", ".join(name for name in known if name not in _LIBRARY_ONLY)
    for name in options:
        if name not in known:
            raise OptionError(f"{dataset} has no option {name}; it has {listed}.")
    return function(data_dir or default_data_dir(), **options)
