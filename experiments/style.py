"""The look of every figure."""

import contextlib
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")

# Okabe & Ito's palette and Tol's muted one, which stay apart for colour-blind readers, and a marker
# of its own for each algorithm, as no 16 colours do. The order is that of tables.
COLOURS = {
    "gem_bml_plus": "#D55E00",
    "gem_bml": "#E69F00",
    "maml": "#0072B2",
    "fomaml": "#56B4E9",
    "reptile": "#009E73",
    "amortized_bml": "#CC79A7",
    "pmaml": "#882255",
    "elbo_difference": "#AA4499",
    "kl_chaser": "#CC6677",
    "platipus": "#332288",
    "bmaml": "#44AA99",
    "emaml": "#999933",
    "llama": "#B8A030",
    "imaml": "#000000",
    "meta_sgd": "#117733",
    "pretrain": "#888888",
}
LABELS = {
    "gem_bml_plus": "GEM-BML+",
    "gem_bml": "GEM-BML",
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "reptile": "Reptile",
    "amortized_bml": "Amortized BML",
    "pmaml": "PMAML",
    "elbo_difference": "ELBO difference",
    "kl_chaser": "KL-chaser",
    "platipus": "PLATIPUS",
    "bmaml": "BMAML",
    "emaml": "EMAML",
    "llama": "LLAMA",
    "imaml": "iMAML",
    "meta_sgd": "Meta-SGD",
    "pretrain": "pre-training",
}
# For curves that are not algorithms.
SEQUENCE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = dict(zip(COLOURS, "os^vDPX*ph<>Hd8x", strict=True))


def label(algorithm: str) -> str:
    """An algorithm's name in tables and figures: its own if there is none above."""
    return LABELS.get(algorithm, algorithm)


def look(algorithm: str) -> dict[str, Any]:
    """Colour and marker of an algorithm's curve, as arguments of ``plot``."""
    return {"color": COLOURS.get(algorithm, "0.4"), "marker": MARKERS.get(algorithm, "x")}


def place(algorithm: str) -> tuple[int, str]:
    """Sorts algorithms as tables do; those without a label come last."""
    names = list(LABELS)
    return (names.index(algorithm) if algorithm in names else len(names)), algorithm


@contextlib.contextmanager
def figure(path: pathlib.Path, width: float, height: float) -> Iterator[Figure]:
    """A figure of ``width`` x ``height`` inches that is written to ``path`` at the end."""
    with mpl.rc_context(
        {
            "font.size": 9,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.25,
            "grid.linewidth": 0.6,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "savefig.dpi": 200,
        }
    ):
        drawing = Figure(figsize=(width, height), layout="constrained")
        yield drawing
        with warnings.catch_warnings():
            # Matplotlib's remark on a busy machine, where the best place takes it over a second.
            warnings.filterwarnings("ignore", 'Creating legend with loc="best"')
            drawing.savefig(path)
