"""Classification tasks drawn from classes of images: N ways, K shots.

All of it is jax on arrays that already lie on the device, so episodes are sampled inside the
compiled meta-step, for many tasks by ``vmap``. An :class:`Episode` holds indices only; its images
are gathered where they are used.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from gembml.base import Key
from gembml.options import OptionError, check_choice
from gembml.tasks.images import Array, ImageClasses, LabelledImages

ROTATIONS = ("none", "random", "classes")
"""What :class:`EpisodeShape` may have as ``rotations``."""

_MOST_UNROLLED = 16
"""Longer loops are compiled as loops: unrolled, hundreds of steps take minutes to compile."""


class EpisodeShape(NamedTuple):
    """How large a task is."""

    ways: int
    """Classes per task."""
    shots: int
    """Support images per class."""
    queries: int
    """Query images per class."""
    rotations: str = "none"
    """By multiples of 90 degrees, one of :data:`ROTATIONS`. ``random``: a task's classes differ,
    and each is turned at random, as MAML's code does in training and at test. ``classes``: each
    rotation of a class is another class, as in a data set enlarged by turned copies."""


class Episode(NamedTuple):
    """One task: which classes, how rotated, which of their images; int32. Label i is entry i."""

    classes: jax.Array
    """``[ways]``."""
    rotations: jax.Array
    """``[ways]``: by how many times 90 degrees, counter-clockwise."""
    images: jax.Array
    """``[ways, shots + queries]``: the first ``shots`` are the support."""


def check_shape(
    data: ImageClasses,
    shape: EpisodeShape,
    names: Sequence[str] = (),
    *,
    split: str = "",
    queries_option: str = "queries",
) -> None:
    """Refuse episodes that cannot be drawn from the data.

    Args:
      data: the classes of one split.
      shape: of the episodes.
      names: the classes' names, for the message, where they have some.
      split: what the message calls the split, such as "validation", where it is one of several.
      queries_option: what the message calls ``shape.queries``: the option that set it.

    Raises:
      OptionError: a number below 1, more ways than classes, more shots and queries than a class
        has images, rotations that do not exist, or of images that are not square.
    """
    for option, value in (
        ("ways", shape.ways),
        ("shots", shape.shots),
        (queries_option, shape.queries),
    ):
        if value < 1:
            raise OptionError(f"{option} must be at least 1, not {value}.")
    check_choice("rotations", shape.rotations, ROTATIONS)
    classes, _, height, width, _ = data.images.shape
    rotations = 4 if shape.rotations == "classes" else 1
    if shape.ways > classes * rotations:
        rotated = " in 4 rotations each" if rotations == 4 else ""
        raise OptionError(
            f"ways must be at most {classes * rotations}, the number of classes "
            f"{f'for {split}' if split else 'here'} ({classes}{rotated}), not {shape.ways}."
        )
    if shape.rotations != "none" and height != width:
        raise OptionError(f"rotations need square images, not {height} x {width}.")
    counts, needed = np.asarray(data.counts), shape.shots + shape.queries
    least = int(counts.argmin())
    if needed > counts[least]:
        name = names[least] if names else str(least)
        raise OptionError(
            f"shots + {queries_option} must be at most {counts[least]}, the number of images of "
            f"{f'the {split} class' if split else 'class'} {name}, "
            f"not {shape.shots} + {shape.queries}."
        )


def sample_episode(key: Key, counts: Array, shape: EpisodeShape) -> Episode:
    """Classes (with their rotation) and images of each, uniform, without replacement.

    They come in random order, so labels are shuffled. No more than ``ways`` of the classes are
    ordered. (Equal random numbers, 2^-23 a pair, favour the earlier class.)

    With ``rotations="random"`` the classes differ, and the rotation of each is uniform: the
    episodes of MAML's code. With ``"classes"`` what is drawn without replacement are the pairs of a
    class and a rotation, so that one task can have a class twice, under two labels, in two
    rotations: of tasks from Omniglot's 423 test characters 1.8% with 5 ways and 29% with 20. Where
    it looks alike in both, no learner can tell the labels apart. Accuracies of the two are not
    comparable.

    Args:
      key: a random key.
      counts: how many images each class has, ``[classes]``.
      shape: checked by :func:`check_shape`; static under ``jit``.
    """
    counts = jnp.asarray(counts, jnp.int32)
    classes_key, images_key = jax.random.split(key)
    match shape.rotations:
        case "none":
            classes = _largest(classes_key, counts.shape[0], shape.ways)
            rotations = jnp.zeros_like(classes)
        case "random":
            distinct_key, turns_key = jax.random.split(classes_key)
            classes = _largest(distinct_key, counts.shape[0], shape.ways)
            rotations = jax.random.randint(turns_key, classes.shape, 0, 4, jnp.int32)
        case _:
            pairs = _largest(classes_key, counts.shape[0] * 4, shape.ways)
            classes, rotations = pairs // 4, pairs % 4
    needed = shape.shots + shape.queries
    images = jax.vmap(lambda k, count: _distinct(k, count, needed))(
        jax.random.split(images_key, shape.ways), counts[classes]
    )
    return Episode(classes, rotations, images)


def support_images(data: ImageClasses, episode: Episode, shots: int) -> LabelledImages:
    """The images to adapt to, ``[ways * shots]``, those of one class after those of another."""
    return _gather(data, episode, episode.images[:, :shots])


def query_images(data: ImageClasses, episode: Episode, shots: int) -> LabelledImages:
    """The images to be classified, ``[ways * queries]``."""
    return _gather(data, episode, episode.images[:, shots:])


def _largest(key: Key, n: int, k: int) -> jax.Array:
    """``k`` of 0 .. n - 1 in random order, int32: where the largest of n random numbers are."""
    return jax.lax.top_k(jax.random.uniform(key, (n,)), k)[1].astype(jnp.int32)


def _distinct(key: Key, count: jax.Array, k: int) -> jax.Array:
    """``k`` of 0 .. count - 1 in random order, int32, for a ``count >= k`` that is not static.

    Floyd's algorithm (Bentley & Floyd, 1987) draws the set: of 0 .. j one at random, or j if that
    was drawn, for j = count - k .. count - 1.
    """
    draw_key, order_key = jax.random.split(key)
    tops = count - k + jnp.arange(k)
    draws = jax.random.randint(draw_key, (k,), 0, tops + 1)

    def add(i: jax.Array, chosen: jax.Array) -> jax.Array:
        repeated = jnp.any(chosen == draws[i])
        return chosen.at[i].set(jnp.where(repeated, tops[i], draws[i]))

    chosen = jax.lax.fori_loop(0, k, add, jnp.full(k, -1, jnp.int32), unroll=k <= _MOST_UNROLLED)
    return chosen[_largest(order_key, k, k)]


def _gather(data: ImageClasses, episode: Episode, images: jax.Array) -> LabelledImages:
    """Images ``[ways, n]`` of the episode's classes, rotated and labelled, ``[ways * n]``."""
    ways, n = images.shape
    x = jnp.asarray(data.images)[episode.classes[:, None], images]
    x = jax.vmap(_rotate)(x, episode.rotations)
    return LabelledImages(
        x.reshape(ways * n, *x.shape[2:]).astype(jnp.float32) / 255,
        jnp.repeat(jnp.arange(ways, dtype=jnp.int32), n),
    )


def _rotate(x: jax.Array, times: jax.Array) -> jax.Array:
    """``[n, size, size, channels]`` turned counter-clockwise by ``times`` x 90 degrees.

    Images that are not square cannot be turned, and :func:`check_shape` has refused to.
    """
    if x.shape[1] != x.shape[2]:
        return x
    x = jnp.where(times % 2 == 1, jnp.swapaxes(x, 1, 2), x)
    x = jnp.where((times == 1) | (times == 2), jnp.flip(x, 1), x)
    return jnp.where((times == 2) | (times == 3), jnp.flip(x, 2), x)
