"""Episodes: what is drawn, how evenly, and which pixels come out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.options import OptionError
from gembml.tasks import episodes as episodes_module
from gembml.tasks.episodes import (
    Episode,
    EpisodeShape,
    check_shape,
    query_images,
    sample_episode,
    support_images,
)
from gembml.tasks.images import ImageClasses

COUNTS = np.array([4, 7, 5, 4, 6, 4], np.int32)
SHAPE = EpisodeShape(ways=3, shots=1, queries=3, rotations="classes")
EPISODES = 6000


def numbered_images(counts: np.ndarray, size: int = 5) -> ImageClasses:
    """Random images whose corner says which class and image they are; 255 where there is none."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (len(counts), counts.max(), size, size, 1), dtype=np.uint8)
    for c, count in enumerate(counts):
        images[c, :, 0, 0, 0] = 10 * c + np.arange(counts.max())
        images[c, count:] = 255
    return ImageClasses(images, counts)


@pytest.fixture(scope="module")
def episodes() -> Episode:
    keys = jax.random.split(jax.random.key(0), EPISODES)
    sample = jax.jit(lambda counts: jax.vmap(lambda key: sample_episode(key, counts, SHAPE))(keys))
    return jax.tree.map(np.asarray, sample(COUNTS))


def assert_uniform(values: np.ndarray, outcomes: int) -> None:
    """Every outcome as often as any other, within five standard deviations of a binomial."""
    frequencies = np.bincount(values.ravel(), minlength=outcomes)
    assert len(frequencies) == outcomes
    mean = values.size / outcomes
    np.testing.assert_allclose(frequencies, mean, atol=5 * np.sqrt(mean))


def test_an_episode_has_no_class_and_rotation_and_no_image_twice(episodes):
    pairs = np.sort(episodes.classes * 4 + episodes.rotations, axis=1)
    assert np.all(np.diff(pairs, axis=1) > 0)
    assert np.all(np.diff(np.sort(episodes.images, axis=2), axis=2) > 0)


def test_each_label_is_any_class_and_rotation_equally_often(episodes):
    pairs = episodes.classes * 4 + episodes.rotations
    for label in range(SHAPE.ways):
        assert_uniform(pairs[:, label], len(COUNTS) * 4)


def test_each_place_is_any_image_of_the_class_equally_often_and_no_padding(episodes):
    for c, count in enumerate(COUNTS):
        images = episodes.images[episodes.classes == c]
        for place in range(SHAPE.shots + SHAPE.queries):
            assert_uniform(images[:, place], count)


def test_two_images_of_a_class_are_any_pair_equally_often(episodes):
    images = episodes.images[episodes.classes == 1]
    first, second = images[:, 0], images[:, 3]
    assert_uniform(first * 6 + second - (second > first), 7 * 6)


def test_labels_are_shuffled(episodes):
    first_is_less = np.mean(episodes.classes[:, 0] < episodes.classes[:, 1])
    second_is_less = np.mean(episodes.classes[:, 0] > episodes.classes[:, 1])
    assert abs(first_is_less - second_is_less) < 5 / np.sqrt(EPISODES)


def test_without_rotations_none_is_rotated_and_no_class_comes_twice():
    shape = SHAPE._replace(ways=6, rotations="none")
    keys = jax.random.split(jax.random.key(1), 50)
    episodes = jax.jit(jax.vmap(lambda key: sample_episode(key, COUNTS, shape)))(keys)
    assert not episodes.rotations.any()
    np.testing.assert_array_equal(np.sort(episodes.classes), np.tile(np.arange(6), (50, 1)))


def test_random_rotations_turn_distinct_classes_each_way_equally_often():
    shape = SHAPE._replace(rotations="random")
    keys = jax.random.split(jax.random.key(1), EPISODES)
    episodes = jax.jit(jax.vmap(lambda key: sample_episode(key, COUNTS, shape)))(keys)
    assert np.all(np.diff(np.sort(episodes.classes), axis=1) > 0)
    for label in range(SHAPE.ways):
        assert_uniform(np.asarray(episodes.classes * 4 + episodes.rotations)[:, label], 24)


@pytest.mark.parametrize("jit", [False, True])
def test_images_are_those_of_the_episode_rotated_as_numpy_rotates(jit):
    data = numbered_images(COUNTS)
    shots = 2
    # A class in two rotations, and all four rotations.
    episode = Episode(
        jnp.array([1, 4, 1, 2]), jnp.array([3, 1, 0, 2]), jnp.array([[6, 0, 3], [5, 2, 1]] * 2)
    )
    gathers = (support_images, query_images)
    if jit:
        gathers = tuple(jax.jit(g, static_argnums=2) for g in gathers)
    support, query = (gather(data, episode, shots) for gather in gathers)
    for found, columns in ((support, [0, 1]), (query, [2])):
        expected = [
            np.rot90(data.images[c, i], r) / np.float32(255)
            for c, r, images in zip(*map(np.asarray, episode), strict=True)
            for i in images[columns]
        ]
        np.testing.assert_allclose(found.x, expected, rtol=1e-6)
        np.testing.assert_array_equal(found.y, np.repeat(np.arange(4), len(columns)))
        assert found.x.dtype == jnp.float32
        assert found.y.dtype == jnp.int32


def test_support_and_query_have_no_image_in_common_and_no_padding():
    data = numbered_images(COUNTS)
    shape = EpisodeShape(ways=3, shots=2, queries=2)

    @jax.jit
    @jax.vmap
    def corners(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        episode = sample_episode(key, data.counts, shape)
        parts = support_images(data, episode, 2), query_images(data, episode, 2)
        support, query = (jnp.round(part.x[:, 0, 0, 0] * 255) for part in parts)
        return support, query

    for support, query in zip(*corners(jax.random.split(jax.random.key(0), 20)), strict=True):
        assert len({*support.tolist(), *query.tolist()} - {255}) == 12


def test_many_tasks_are_drawn_and_gathered_in_one_program():
    data = jax.device_put(numbered_images(COUNTS))

    @jax.jit
    def batch(key: jax.Array, data: ImageClasses):
        episodes = jax.vmap(lambda k: sample_episode(k, data.counts, SHAPE))(
            jax.random.split(key, 4)
        )
        return jax.vmap(lambda e: support_images(data, e, 1))(episodes)

    support = batch(jax.random.key(0), data)
    assert support.x.shape == (4, 3, 5, 5, 1)
    assert support.y.shape == (4, 3)
    assert 0 <= support.x.min() < support.x.max() <= 1


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"ways": 7, "rotations": "none"}, r"ways must be at most 6, .*not 7\."),
        ({"ways": 7, "rotations": "random"}, r"ways must be at most 6, .*not 7\."),
        ({"ways": 25}, r"at most 24, .*\(6 in 4 rotations each\), not 25\."),
        ({"queries": 4}, r"at most 4, the number of images of class a, not 1 \+ 4\."),
        ({"ways": 0}, r"ways must be at least 1, not 0\."),
        ({"rotations": "all"}, r"rotations must be one of none, random, classes, not all\."),
        ({"shots": 0}, r"shots must be at least 1, not 0\."),
        ({"queries": 0}, r"queries must be at least 1, not 0\."),
    ],
)
def test_episodes_that_cannot_be_drawn_are_refused(changes, sentence):
    with pytest.raises(OptionError, match=sentence):
        check_shape(numbered_images(COUNTS), SHAPE._replace(**changes), "abcdef")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"ways": 7, "rotations": "none"},
            r"^ways must be at most 6, the number of classes for validation \(6\), not 7\.$",
        ),
        (
            {"queries": 4},
            r"^shots \+ config.test_queries must be at most 4, the number of images of the "
            r"validation class a, not 1 \+ 4\.$",
        ),
        ({"queries": 0}, r"^config.test_queries must be at least 1, not 0\.$"),
    ],
)
def test_refusals_name_the_split_and_the_option(changes, sentence):
    with pytest.raises(OptionError, match=sentence):
        check_shape(
            numbered_images(COUNTS),
            SHAPE._replace(**changes),
            "abcdef",
            split="validation",
            queries_option="config.test_queries",
        )


def test_many_images_of_a_class_are_drawn_as_if_the_loop_were_unrolled(monkeypatch):
    counts, shape = np.array([30, 20, 25], np.int32), EpisodeShape(ways=2, shots=5, queries=15)
    draw = jax.jit(lambda key: sample_episode(key, counts, shape))(jax.random.key(0))
    assert all(len(set(row)) == 20 for row in draw.images.tolist())
    monkeypatch.setattr(episodes_module, "_MOST_UNROLLED", 20)
    unrolled = jax.jit(lambda key: sample_episode(key, counts, shape))(jax.random.key(0))
    jax.tree.map(np.testing.assert_array_equal, draw, unrolled)
    # A loop of 600 steps, unrolled, would not compile within the tests' patience.
    large = jax.jit(lambda key: sample_episode(key, np.full(3, 600), shape._replace(queries=595)))
    assert sorted(large(jax.random.key(1)).images[0].tolist()) == list(range(600))


def test_episodes_that_can_be_drawn_are_not_refused():
    check_shape(numbered_images(COUNTS), SHAPE._replace(ways=24))


def test_rotations_of_images_that_are_not_square_are_refused():
    data = ImageClasses(np.zeros((6, 4, 5, 6, 1), np.uint8), np.full(6, 4))
    with pytest.raises(OptionError, match="rotations need square images, not 5 x 6"):
        check_shape(data, SHAPE)
    with pytest.raises(OptionError, match="rotations need square images, not 5 x 6"):
        check_shape(data, SHAPE._replace(rotations="random"))
    check_shape(data, SHAPE._replace(rotations="none"))
