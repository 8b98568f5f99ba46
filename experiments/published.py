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
