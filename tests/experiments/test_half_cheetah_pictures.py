"""The pictures of half-cheetah episodes show the poses they are given."""

import base64
import json
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib import image

from experiments import half_cheetah_pictures as pictures
from gembml.rl.environment import Environment, Transition
from gembml.tasks import half_cheetah

pytest.importorskip("brax")

LENGTH = 21


@pytest.fixture
def coordinates() -> np.ndarray:
    """Gliding 4 m forwards with stiff legs."""
    q = np.zeros((LENGTH, 9))
    q[:, 0] = np.linspace(0, 4, LENGTH)
    return q


def test_coordinates_are_those_of_every_state_from_the_start_on():
    def reset(key, task):
        del key
        q = jnp.full(9, task)
        return half_cheetah.MujocoState(q, q, q), q

    def step(task, state, action):
        q = state.q + action[0]
        return Transition(state._replace(q=q), q, task, jnp.zeros((), bool))

    environment = Environment(9, 1, 3, reset, step)
    q = pictures.coordinates(
        environment, jax.random.key(0), 5.0, lambda key, observation: observation[:1]
    )
    np.testing.assert_array_equal(q[:, 0], [5.0, 10.0, 20.0, 40.0])
    assert q.shape == (4, 9)


def test_the_parts_are_drawn_where_the_model_has_them(coordinates):
    model = half_cheetah.load("mjx", "brax").sys.mj_model
    poses = pictures._poses(model, coordinates[[0, -1]])
    start, end = (
        dict(zip(pictures.PARTS, pictures._capsules(data), strict=True)) for data in poses
    )
    # The torso: a metre from end to end and round ends of 4.6 cm, 70 cm high.
    np.testing.assert_allclose(start["torso"].max(0), [0.546, 0.746], atol=1e-3)
    np.testing.assert_allclose(start["torso"].min(0), [-0.546, 0.654], atol=1e-3)
    assert start["head"][:, 0].max() > 0.546
    assert max(start[part][:, 0].max() for part in start if part[0] == "b") < 0
    assert min(start[part][:, 0].min() for part in start if part[0] == "f") > 0
    # Its feet are lowest and a hand above the ground, on which it drops.
    lowest = sorted(start, key=lambda part: start[part][:, 1].min())
    assert set(lowest[:2]) == {"bfoot", "ffoot"}
    assert 0 < start[lowest[0]][:, 1].min() < 0.1
    for part in start:
        np.testing.assert_allclose(
            end[part] - start[part], np.broadcast_to([4, 0], (26, 2)), atol=1e-6
        )


@pytest.mark.parametrize("value", [np.nan, np.inf, -1e30])
def test_physics_that_blew_up_cannot_be_drawn(coordinates, value):
    assert pictures.drawable(coordinates)
    blown_up = np.array(coordinates)
    blown_up[-1, 0] = value
    assert not pictures.drawable(blown_up)


def test_a_film_strip_has_a_row_for_each_episode(coordinates, tmp_path):
    shapes = []
    for rows in (1, 2):
        path = tmp_path / f"{rows}.png"
        pictures.film_strip(path, {f"{i} steps": coordinates for i in range(rows)}, 0.05, moments=3)
        shapes.append(image.imread(path).shape)
    assert shapes[0][1] == shapes[1][1]
    assert 1.5 < shapes[1][0] / shapes[0][0] < 2


def test_the_viewer_plays_every_moment_in_its_time(coordinates, tmp_path):
    path = tmp_path / "episode.html"
    pictures.viewer(path, coordinates, 0.05)
    encoded = re.search(r'var system = "([^"]+)"', path.read_text())
    assert encoded
    system = json.loads(zlib.decompress(base64.b64decode(encoded[1])))
    assert system["opt"]["timestep"] == pytest.approx(0.05)
    torso_x = [moment["pos"][0][0] for moment in system["states"]["x"]]
    np.testing.assert_allclose(torso_x, coordinates[:, 0], atol=1e-6)
    assert set(system["geoms"]) >= {"torso", "bthigh", "ffoot", "world"}
