"""Hyperparameters of few-shot classification, as data.

``tuned`` was chosen for GEM-BML+ on validation classes of Omniglot, 5-way 1-shot (BUILD_NOTES.md
says how); first-order MAML was given the better of two meta-rates there. The other rows and tasks
have those numbers and were not searched; miniImageNet has the rates and steps of MAML. ``smooth``
has SiLU for ReLU, and for MAML and GEM-BML+ one inner step with its derivative: under GEM-BML+ by
a second pass over the support set, whose numbers were chosen as those of ``tuned``; other rows have
SiLU alone. ``paper`` is
the table of the paper's appendix C.4.2 as printed, with the ELBO as printed: the KL at full weight,
a variance for each weight.
"""

import dataclasses

from experiments.run_config import LargeTaskConfig, default, samples_of_predictive
from gembml.config import GAUSSIAN
from gembml.models.cnn import ACTIVATIONS, HEADS
from gembml.models.convolution import FORMS, PRECISIONS
from gembml.models.normalisation import MODES
from gembml.options import OptionError, option
from gembml.tasks.episodes import ROTATIONS


@dataclasses.dataclass(frozen=True)
class FewShotConfig(LargeTaskConfig):
    """A run's options and those of the few-shot experiments."""

    ways: int = option(5, "classes per task", least=2, most=1_000)
    shots: int = option(1, "support images per class", least=1, most=1_000)
    queries: int = option(5, "query images per class in meta-training", least=1, most=1_000)
    test_queries: int = option(15, "query images per class at test", least=1, most=1_000)
    rotations: str = option(
        "random",
        "by multiples of 90 degrees. random: a task's classes differ, each turned at random "
        "(MAML's code); classes: each rotation of a class is another class; none",
        choices=ROTATIONS,
    )
    meta_batch: int = default("meta_batch", 16)
    filters: int = option(64, "filters of each convolution", least=1, most=10_000)
    layers: int = option(4, "convolutions", least=1, most=10)
    pooling: bool = option(False, "maxima of 2 x 2 after convolutions of stride 1; else stride 2")
    head: str = option("mean", "what the linear head sees of the positions", choices=HEADS)
    activation: str = option("relu", "after each normalisation", choices=tuple(ACTIVATIONS))
    normalisation: str = option(
        "transductive",
        "whose statistics normalise: transductive: the images classified together; support: the "
        "support set's; layer: each image's; none",
        choices=MODES,
    )
    convolution: str = option(
        "im2col",
        "im2col (matrix products), or direct (XLA's own, grouped over tasks that are at once)",
        choices=FORMS,
    )
    precision: str = option(
        "float32",
        "factors of matrix products; bfloat16: both in the forward pass, one in gradients",
        choices=PRECISIONS,
    )
    likelihood: str = option(
        "mean",
        "log P(D|theta): sum over the data, or the mean, whose gradient does not grow with them",
        choices=("mean", "sum"),
    )
    temperature: float = option(
        1.0, "divides the log-likelihood; below 1 a cold posterior", above=0.0, only=GAUSSIAN
    )
    test_samples: int = samples_of_predictive(10, ("test_std_multiplier", "not 0.0"))
    test_std_multiplier: float = option(
        1.0,
        "multiplies the posteriors' standard deviations in predictives; 0: the means alone",
        least=0.0,
        only=GAUSSIAN,
    )
    steps_per_dispatch: int = default("steps_per_dispatch", 50)
    evaluate_every: int = default("evaluate_every", 1000)
    checkpoint_every: int = default("checkpoint_every", 500)


_POINT: dict[str, object] = {
    "inner_optimizer": "sgd",
    "meta_natural": False,
    "meta_learning_rate": 3e-3,
}
_GAUSSIAN: dict[str, object] = {
    "inner_optimizer": "sgd",
    "query_steps": 1,
    "num_samples": 1,
    "antithetic": False,
    "kl_weight": 0.0,
    "log_std_multiplier": 0.0,
    "log_std_init": -3.5,
    "log_std_relative": True,
    "variance_per": "array",
    "max_log_std_rise": 1.2,
    "meta_learning_rate": 3e-3,
}
# Through the inner loop, whose log-std steps are its own.
_THROUGH = _GAUSSIAN | {"log_std_multiplier": 1.0, "max_meta_gradient_norm": 10.0}
# Of those with a rate of their own, whatever the data set.
_SLOW = _POINT | {"inner_learning_rate": 0.1, "inner_steps": 3}
_REPTILE = _POINT | {
    "inner_steps": 5,
    "meta_optimizer": "sgd",
    "meta_learning_rate": 1.0,
    "meta_schedule": "linear",
}

_TUNED: dict[str, dict[str, object]] = {
    "gem_bml_plus": _GAUSSIAN,
    "gem_bml": _GAUSSIAN,
    "amortized_bml": _THROUGH | {"query_steps": 0},
    "pmaml": _THROUGH,
    "elbo_difference": _THROUGH,
    "kl_chaser": _THROUGH | {"kl_weight": 1e-6},
    "platipus": _SLOW | {"log_std_init": -5.0, "kl_weight": 1e-6},
    "bmaml": _POINT | {"num_particles": 5, "kl_weight": 1e-6, "max_meta_gradient_norm": 10.0},
    "emaml": _POINT | {"num_particles": 5},
    "llama": _SLOW | {"log_std_init": -4.0},
    "maml": _POINT,
    "fomaml": _POINT,
    "imaml": _SLOW | {"inner_steps": 16, "proximal_weight": 2.0},
    "meta_sgd": _SLOW,
    "reptile": _REPTILE,
    "pretrain": _POINT,
}
_PAPER: dict[str, object] = {
    "inner_optimizer": "adam",
    "num_samples": 1,
    "antithetic": False,
    "meta_natural": False,
    "meta_learning_rate": 1e-3,
    "meta_schedule": "constant",
    "log_std_multiplier": 1.0,
    "query_steps": 0,
    "kl_weight": 1.0,
    "log_std_relative": False,
    "variance_per": "weight",
    "max_log_std_rise": 0.0,
    "likelihood": "sum",
}

# What depends on the data set, where a row does not say otherwise.
_DATASETS: dict[str, dict[str, object]] = {
    "omniglot": {
        "inner_learning_rate": 0.4,
        "inner_steps": 3,
        "filters": 64,
        "rotations": "random",
        "pooling": False,
        "head": "mean",
    },
    "mini_imagenet": {
        # MAML's, whose 0.01 is for a loss that is summed over 5 classes.
        "inner_learning_rate": 0.05,
        "inner_steps": 5,
        "filters": 32,
        "rotations": "none",
        "pooling": True,
        "head": "flatten",
        "meta_batch": 4,
        "queries": 15,
    },
}
_DATASETS["image_folder"] = _DATASETS["mini_imagenet"] | {"queries": 5}

# With gradients that are continuous in the weights. A cap of 0.01 holds the standard deviation at
# its start; 0 would be none.
_SMOOTH: dict[str, dict[str, object]] = {
    "gem_bml_plus": {"inner_steps": 1, "second_pass": 0.02, "max_log_std_rise": 0.01},
    "maml": {"inner_steps": 1},
}

PRESETS = {
    "tuned": "chosen on validation classes",
    "smooth": "likewise, with a smooth activation and what it allows",
    "paper": "as printed in appendix C.4.2",
}


def preset(name: str, algorithm: str, dataset: str, ways: int, shots: int) -> FewShotConfig:
    """The config of a preset.

    Raises:
      OptionError: if the preset has no numbers for the algorithm or the data set.
    """
    for kind, given, table in (("algorithm", algorithm, _TUNED), ("data set", dataset, _DATASETS)):
        if given not in table:
            raise OptionError(
                f"The few-shot presets are for {', '.join(table)}, and have no numbers for "
                f"{given}: choose another {kind}."
            )
    chosen = _DATASETS[dataset] | _TUNED[algorithm] | {"ways": ways, "shots": shots}
    if name == "smooth":
        if dataset != "omniglot":
            raise OptionError("The preset smooth is for omniglot: choose tuned.")
        chosen |= {"activation": "silu"} | _SMOOTH.get(algorithm, {})
    if name == "paper":
        if algorithm not in ("gem_bml", "gem_bml_plus"):
            raise OptionError(
                "The preset paper is for gem_bml and gem_bml_plus, and the paper prints no numbers "
                f"for {algorithm}: choose tuned."
            )
        if dataset == "image_folder":
            raise OptionError("The preset paper is for omniglot and mini_imagenet: choose tuned.")
        chosen |= _PAPER
        if dataset == "mini_imagenet":
            chosen |= {"inner_learning_rate": 1e-3, "inner_steps": 5, "meta_batch": 4}
        else:
            chosen |= {"inner_learning_rate": 1e-2}
            chosen |= (
                {"inner_steps": 1, "meta_batch": 32}
                if ways < 20
                else {"inner_steps": 5, "meta_batch": 16}
            )
    return FewShotConfig(**chosen)  # type: ignore[arg-type]
