"""Labelled images by class, and how they are divided for meta-learning."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np

Array = np.ndarray | jax.Array


class ImageClasses(NamedTuple):
    """Images of many classes: a pytree that is put on the device once, 1 byte per value."""

    images: Array
    """uint8 ``[classes, most images per class, height, width, channels]``, zero-padded."""
    counts: Array
    """int32 ``[classes]``: how many images each class has."""


class Splits(NamedTuple):
    """Classes for meta-training, for choosing hyperparameters and for meta-testing."""

    train: ImageClasses
    validation: ImageClasses | None
    """None where the protocol has no validation classes."""
    test: ImageClasses
    names: dict[str, tuple[str, ...]]
    """The classes' names by split: "train", "validation" (empty if None), "test"."""
    description: str
    """One line: which split, how many classes, where from."""


class LabelledImages(NamedTuple):
    """Data of one classification task."""

    x: jax.Array
    """float32 ``[n, height, width, channels]`` in [0, 1]."""
    y: jax.Array
    """int32 ``[n]``."""


def stack(classes: Iterable[Sequence[np.ndarray]]) -> ImageClasses:
    """One array of all classes' images, each uint8 ``[height, width, channels]``, zero-padded."""
    classes = list(classes)
    counts = np.array([len(images) for images in classes], np.int32)
    shape = (len(classes), int(counts.max()), *np.shape(classes[0][0]))
    stacked = np.zeros(shape, np.uint8)
    for row, images in zip(stacked, classes, strict=True):
        row[: len(images)] = images
    return ImageClasses(stacked, counts)


def shuffled(names: Iterable[str], seed: int) -> list[str]:
    """The names in a random order that depends on them and the seed, on no library's version."""

    def place(name: str) -> bytes:
        # Names of folders may hold bytes that are no UTF-8.
        return hashlib.sha256(f"{seed} {name}".encode("utf-8", "surrogateescape")).digest()

    return sorted(names, key=place)


def divide(
    data: ImageClasses, names: Sequence[str], parts: Mapping[str, Sequence[str]], description: str
) -> Splits:
    """Splits by the names of the classes in each: ``parts`` has "train", "validation", "test"."""
    index = {name: i for i, name in enumerate(names)}

    def select(part: Sequence[str]) -> ImageClasses:
        rows = [index[name] for name in part]
        return ImageClasses(np.asarray(data.images)[rows], np.asarray(data.counts)[rows])

    validation = parts.get("validation", ())
    return Splits(
        train=select(parts["train"]),
        validation=select(validation) if validation else None,
        test=select(parts["test"]),
        names={part: tuple(parts.get(part, ())) for part in ("train", "validation", "test")},
        description=description,
    )
