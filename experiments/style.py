"""The look of every figure."""

import contextlib
import pathlib
from collections.abc import Iterator

import matplotlib as mpl
from matplotlib.figure import Figure

mpl.use("Agg")

# Okabe & Ito's palette, which stays apart for colour-blind readers; one colour per algorithm.
COLOURS = {
    "gem_bml_plus": "#D55E00",
    "gem_bml": "#E69F00",
    "maml": "#0072B2",
    "fomaml": "#56B4E9",
    "reptile": "#009E73",
}
LABELS = {
    "gem_bml_plus": "GEM-BML+",
    "gem_bml": "GEM-BML",
    "maml": "MAML",
    "fomaml": "first-order MAML",
    "reptile": "Reptile",
}
# For curves that are not algorithms.
SEQUENCE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = {"gem_bml_plus": "o", "gem_bml": "s", "maml": "^", "fomaml": "v", "reptile": "D"}


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
        drawing.savefig(path)
