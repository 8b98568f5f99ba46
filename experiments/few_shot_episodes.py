"""Pictures of few-shot episodes: what was shown, what was asked, what was answered."""

import pathlib
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from experiments import style

_RIGHT, _WRONG = "#0072B2", "#D55E00"
_MOST_CLASSES, _MOST_SHOTS, _MOST_QUERIES = 10, 5, 6
_STEP_X, _STEP_Y = 1.16, 1.38  # from image to image, in widths of an image
_GAP = 0.5  # between support and queries
_INCHES = 0.62  # an image


class EpisodeExample(NamedTuple):
    """One test task and its predictions after adaptation; labels are 0 .. ways - 1."""

    support_x: np.ndarray
    """``[ways * shots, height, width, channels]``."""
    support_y: np.ndarray
    query_x: np.ndarray
    """``[n, height, width, channels]``."""
    query_y: np.ndarray
    probabilities: np.ndarray
    """Of the queries' classes, ``[n, ways]``."""


class _Layout(NamedTuple):
    """How many classes, support images and queries of a class are shown."""

    classes: int
    shots: int
    queries: int

    @property
    def width(self) -> float:
        return (self.shots + self.queries) * _STEP_X + _GAP

    @property
    def height(self) -> float:
        return self.classes * _STEP_Y


def episodes(examples: list[EpisodeExample], path: pathlib.Path) -> None:
    """A row per class: its support images, then its queries with prediction and probability.

    A wrong answer has a thick orange frame and a cross, a right one a thin blue frame. Of many
    classes, shots or queries the first are shown.
    """
    layouts = [_layout(example) for example in examples]
    width = sum(layout.width for layout in layouts) + 0.9 * (len(examples) - 1) + 0.5
    height = max(layout.height for layout in layouts) + 0.8
    with style.figure(path, _INCHES * width, _INCHES * height) as figure:
        panels = figure.subplots(
            1, len(examples), squeeze=False, width_ratios=[layout.width for layout in layouts]
        )
        for axes, example, layout in zip(panels[0], examples, layouts, strict=True):
            _episode(axes, example, layout)


def _layout(example: EpisodeExample) -> _Layout:
    ways = example.probabilities.shape[-1]
    shots = np.bincount(example.support_y, minlength=ways).max()
    queries = np.bincount(example.query_y, minlength=ways).max()
    return _Layout(
        min(ways, _MOST_CLASSES), min(int(shots), _MOST_SHOTS), min(int(queries), _MOST_QUERIES)
    )


def _episode(axes: Axes, example: EpisodeExample, layout: _Layout) -> None:
    ways = example.probabilities.shape[-1]
    support, query = _shades(example)
    queries_from = layout.shots * _STEP_X + _GAP
    for row in range(layout.classes):
        top = row * _STEP_Y
        axes.text(-0.12, top + 0.5, _name(row), ha="right", va="center", weight="bold")
        for column, index in enumerate(np.flatnonzero(example.support_y == row)[: layout.shots]):
            left = column * _STEP_X
            _image(axes, support[index], left, top)
            _frame(axes, left, top, edgecolor="0.6", linewidth=0.6)
        for column, index in enumerate(np.flatnonzero(example.query_y == row)[: layout.queries]):
            left = queries_from + column * _STEP_X
            _image(axes, query[index], left, top)
            _answer(axes, example.probabilities[index], row, left, top)
    divider = queries_from - (_GAP + _STEP_X - 1) / 2
    axes.plot([divider] * 2, [-0.05, layout.height - 0.3], color="0.75", linewidth=0.8)
    axes.text((divider - 0.33) / 2, -0.16, "support", ha="center", fontsize=8)
    end = queries_from + layout.queries * _STEP_X - (_STEP_X - 1)
    axes.text(
        (queries_from + end) / 2, -0.16, "queries: answer, probability", ha="center", fontsize=8
    )
    if layout.classes < ways:
        axes.set_title(f"{layout.classes} of {ways} classes", fontsize=8)
    axes.set(xlim=(-0.5, end + 0.08), ylim=(layout.height, -0.5), aspect="equal")
    axes.axis("off")


def _answer(axes: Axes, probabilities: np.ndarray, truth: int, left: float, top: float) -> None:
    predicted = int(np.argmax(probabilities))
    right = predicted == truth
    colour = _RIGHT if right else _WRONG
    _frame(axes, left, top, edgecolor=colour, linewidth=0.8 if right else 2.2)
    if not right:
        box = {"facecolor": _WRONG, "edgecolor": "none", "pad": 1.2}
        corner = {"ha": "right", "va": "top", "fontsize": 6.5, "color": "white", "weight": "bold"}
        axes.text(left + 0.99, top + 0.03, "✗", bbox=box, **corner)
    axes.text(
        left + 0.5,
        top + 1.07,
        f"{_name(predicted)} {probabilities[predicted]:.2f}",
        ha="center",
        va="top",
        fontsize=7.5,
        color="black" if right else _WRONG,
        weight="normal" if right else "bold",
    )


def _shades(example: EpisodeExample) -> tuple[np.ndarray, np.ndarray]:
    """Support and query images in [0, 1]; one channel is ink and becomes dark on white."""
    images = [np.asarray(part, float) for part in (example.support_x, example.query_x)]
    low = min(0.0, *(float(part.min()) for part in images))
    high = max(float(part.max()) for part in images)
    scale = 1.0 if low == 0 and high <= 1 else high - low
    support, query = ((part - low) / scale for part in images)
    if support.shape[-1] == 1:
        support, query = (np.repeat(1 - part, 3, axis=-1) for part in (support, query))
    return support, query


def _image(axes: Axes, image: np.ndarray, left: float, top: float) -> None:
    extent = (left, left + 1, top + 1, top)
    axes.imshow(image, extent=extent, interpolation="nearest", aspect="equal")


def _frame(axes: Axes, left: float, top: float, **look: float | str) -> None:
    axes.add_patch(Rectangle((left, top), 1, 1, fill=False, **look))  # type: ignore[arg-type]


def _name(label: int) -> str:
    return chr(ord("A") + label) if label < 26 else str(label)
