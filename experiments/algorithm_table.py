"""The table of algorithms as text: what ``--list`` prints."""

import inspect

from experiments import style
from experiments.sinusoid_presets import PRESETS, preset
from gembml import ALGORITHMS
from gembml.optimizers.by_name import WORDS

_HEADER = ("--algorithm", "posterior", "meta-gradient", "objective", "inner optimizer", "source")


def _inner_optimizer(algorithm: str) -> str:
    """That of the sinusoid's preset, if the algorithm has one there."""
    if algorithm not in PRESETS["tuned"]:
        return "-"
    return preset("tuned", algorithm, "default").inner_optimizer


def algorithm_table() -> str:
    """Every row with its choices, what it is called and computes, and the inner optimizers."""
    rows = [_HEADER]
    rows += [
        (name, row.family, row.estimator.name, row.objective, _inner_optimizer(name), row.reference)
        for name, row in ALGORITHMS.items()
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADER))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * max(map(len, lines)))
    lines.append("")
    for name, row in ALGORITHMS.items():
        text = (inspect.getdoc(row.build) or "").split("\n", maxsplit=1)[0]
        lines.append(f"{style.label(name)}: {text.split(': ', maxsplit=1)[-1]}")
    lines += [
        "",
        "Inner optimizer: of the sinusoid's preset; it is an option.",
        "Objectives: L1 = log P(D^tr u D^val | Theta), L2 = log P(D^val | D^tr, Theta).",
        "Inner optimizers (--config.inner_optimizer): natural_gradient (Gaussian posteriors), trpo "
        "(problems with a divergence, without derivatives through the inner loop), or "
        f"{WORDS}; meta_sgd and platipus: sgd.",
    ]
    return "\n".join(lines)
