"""Published numbers to print beside ours, each with its source."""

from typing import NamedTuple

GEM_BML_PAPER = "Zou & Lu, Gradient-EM Bayesian Meta-learning, NeurIPS 2020"

# Figure 2(a) shows these methods' sinusoid results as curves; the paper prints no number.
FIGURE_2A_ALGORITHMS = ("gem_bml", "gem_bml_plus", "maml", "reptile")
FIGURE_2A_SETTINGS = ("default", "challenging")


def sinusoid_mse(algorithm: str, setting: str) -> str:
    """The published test MSE of a method on a setting, as a cell of a table."""
    drawn = algorithm in FIGURE_2A_ALGORITHMS and setting in FIGURE_2A_SETTINGS
    return "figure only" if drawn else "–"


class Throughput(NamedTuple):
    """Meta-steps per second of MAML on the sinusoid, meta-batch 5, K = 10, second order."""

    library: str
    one_step: float
    five_steps: float


# Other libraries, run by us on another machine with 2 CPU cores: a scale, not a duel.
THROUGHPUT_ELSEWHERE = (
    Throughput("learn2learn", 250, 60),
    Throughput("PyTorch vmap + torch.compile", 3_300, 1_190),
    Throughput("fastest public JAX library", 5_900, 1_560),
)

# Table 2 of the paper: accuracy, % ± the 95% interval over test tasks. It does not say which
# batch-norm statistics were used.
_OMNIGLOT_TASKS = ((5, 1), (5, 5), (20, 1), (20, 5))
_OMNIGLOT = {
    "gem_bml_plus": ("99.23 ± 0.42", "99.64 ± 0.08", "96.24 ± 0.35", "98.94 ± 0.25"),
    "maml": ("98.7 ± 0.4", "99.9 ± 0.1", "95.8 ± 0.3", "98.9 ± 0.2"),
    "fomaml": ("98.3 ± 0.5", "99.2 ± 0.2", "89.4 ± 0.5", "97.9 ± 0.1"),
    "reptile": ("97.68 ± 0.04", "99.48 ± 0.06", "89.43 ± 0.14", "97.12 ± 0.32"),
    "imaml": ("99.50 ± 0.26", "99.74 ± 0.11", "96.18 ± 0.36", "99.14 ± 0.1"),
    "meta_sgd": ("99.5", "99.9", "95.9", "99.0"),
}
# Table 3: 5-way 1-shot, the same, and where it is given ECE and MCE in bins that it does not state.
_MINI_IMAGENET = {
    "gem_bml_plus": "50.03 ± 1.63",
    "maml": "48.70 ± 1.84",
    "fomaml": "48.07 ± 1.75",
    "reptile": "49.97 ± 0.32",
    "imaml": "49.30 ± 1.88",
    "amortized_bml": "45.0 ± 0.60",
}
_MINI_IMAGENET_CALIBRATION = {
    "gem_bml_plus": "0.0102 / 0.0197",
    "maml": "0.0471 / 0.1104",
    "amortized_bml": "0.0124 / 0.0257",
}
FEW_SHOT_SOURCE = (
    f"{GEM_BML_PAPER}, tables 2 and 3; Meta-SGD: its own paper (Li et al. 2017), rounded"
)


def few_shot_accuracy(algorithm: str, dataset: str, ways: int, shots: int) -> str | None:
    """The published test accuracy in percent, or None where there is none."""
    if dataset == "omniglot" and (ways, shots) in _OMNIGLOT_TASKS:
        row = _OMNIGLOT.get(algorithm)
        return row[_OMNIGLOT_TASKS.index((ways, shots))] if row else None
    if (dataset, ways, shots) == ("mini_imagenet", 5, 1):
        return _MINI_IMAGENET.get(algorithm)
    return None


def few_shot_calibration(algorithm: str, dataset: str, ways: int, shots: int) -> str | None:
    """The published "ECE / MCE", or None where there is none."""
    if (dataset, ways, shots) == ("mini_imagenet", 5, 1):
        return _MINI_IMAGENET_CALIBRATION.get(algorithm)
    return None


# Mean return ± 1.96 standard errors over 40 test tasks, after 0 to 3 updates.
MAML_RETURNS: dict[str, dict[str, tuple[str, ...]]] = {
    "navigation": {
        "MAML": ("−40.4 ± 4.0", "−11.7 ± 2.2", "−3.33 ± 0.55", "−3.23 ± 0.58"),
        "random start": ("−82.7", "−58.0", "−53.8", "−46.8"),
    },
    "direction": {
        "MAML": ("−50.7 ± 5.7", "293.2 ± 17.0", "313.5 ± 15.8", "315.7 ± 13.9"),
        "pre-training": ("−43.0", "−24.8", "−12.9", "19.6"),
    },
    "velocity": {
        "MAML": ("−129.5 ± 16.5", "−78.6 ± 9.9", "−66.6 ± 8.9", "−60.8 ± 8.6"),
        "pre-training": ("−158.0", "−135.4", "−128.5", "−133.6"),
    },
}
RL_SOURCE = (
    "Computed from the values that the authors of MAML (Finn, Abbeel & Levine 2017) published with "
    "their code, in rllab's timing of the half-cheetah. The GEM-BML paper prints no returns."
)
