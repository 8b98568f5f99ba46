"""The half-cheetah tasks against their rewards, brax's own environment and MuJoCo."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gembml.options import OptionError
from gembml.tasks import half_cheetah

pytest.importorskip("brax")

ACTIONS = jax.random.uniform(jax.random.key(1), (8, 6), minval=-1.0, maxval=1.0)
slow = pytest.mark.slow


def episode(environment, key, task, actions):
    """The state at the start, and the transitions that the actions ``[n, 6]`` lead to."""
    start, _ = environment.reset(key, task)

    def act(state, action):
        new = environment.step(task, state, action)
        return new.state, new

    return start, jax.lax.scan(act, start, actions)[1]


def speeds(start, transitions, seconds):
    """The torso's, along x, during each action."""
    x = np.append(start.q[..., :1], transitions.state.q[..., 0], -1)
    return np.diff(x) / seconds


@pytest.fixture(scope="module")
def spring():
    return half_cheetah.half_cheetah("direction", backend="spring")


@pytest.fixture(scope="module")
def batch(spring):
    """[4 tasks, 2 rollouts] of the same start, as a function of tasks ``[4]`` and actions."""

    def rollouts(tasks, actions):
        one = lambda task, actions: episode(spring, jax.random.key(0), task, actions)  # noqa: E731
        return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(tasks, actions)

    return jax.jit(rollouts)


@pytest.fixture(scope="module")
def running(batch):
    return batch(jnp.array([1.0, -1.0, 1.0, -1.0]), jnp.stack([ACTIONS, 3.0 * ACTIONS]))


def test_an_observation_is_all_coordinates_but_x_and_all_velocities(spring, running):
    assert (spring.observation_size, spring.action_size, spring.horizon) == (17, 6, 200)
    _, transitions = running
    assert transitions.observation.shape == (4, 2, 8, 17)
    np.testing.assert_array_equal(transitions.observation[..., :8], transitions.state.q[..., 1:])
    np.testing.assert_array_equal(transitions.observation[..., 8:], transitions.state.qd)


def test_it_never_terminates_and_stays_finite(running):
    assert not running[1].terminated.any()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(running))


def test_a_direction_s_reward_is_the_speed_along_it_less_the_cost_of_the_action(running):
    start, transitions = running
    speed = speeds(start, transitions, 0.05)
    cost = 0.05 * np.sum(ACTIONS**2, -1)
    np.testing.assert_allclose(transitions.reward[0, 0], speed[0, 0] - cost, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(transitions.reward[1, 0], -speed[1, 0] - cost, rtol=1e-4, atol=1e-5)


def test_the_direction_changes_the_reward_and_not_the_motion(running):
    np.testing.assert_array_equal(running[1].observation[0], running[1].observation[1])
    assert np.any(running[1].reward[0] != running[1].reward[1])


def test_actions_beyond_their_limits_act_and_cost_as_at_their_limits(batch, running):
    clipped = batch(
        jnp.array([1.0, -1.0, 1.0, -1.0]), jnp.stack([ACTIONS, jnp.clip(3 * ACTIONS, -1, 1)])
    )
    np.testing.assert_array_equal(clipped[1].observation, running[1].observation)
    np.testing.assert_array_equal(clipped[1].reward, running[1].reward)
    assert np.any(running[1].reward[:, 0] != running[1].reward[:, 1])


@pytest.mark.parametrize(
    "backend",
    ["spring", *(pytest.param(name, marks=slow) for name in ("positional", "generalized", "mjx"))],
)
def test_it_moves_as_brax_s_own_environment(backend):
    own = half_cheetah.load(backend, "brax")

    def both(key, actions):
        start, transitions = episode(environment, key, 1.0, actions)

        def act(state, action):
            new = own.step(state, action)
            return new, (new.obs, new.metrics["x_velocity"])

        return start, transitions, jax.lax.scan(act, own.reset(key), actions)[1]

    environment = half_cheetah.half_cheetah("direction", backend=backend)
    start, transitions, (observations, x_velocities) = jax.jit(both)(jax.random.key(0), ACTIONS)
    # The same computation, compiled otherwise: rounding grows from action to action.
    np.testing.assert_allclose(transitions.observation, observations, rtol=1e-3, atol=1e-3)
    if backend != "mjx":  # brax takes the speed one step of the physics late there
        np.testing.assert_allclose(speeds(start, transitions, 0.05), x_velocities, atol=1e-3)


def test_a_velocity_s_reward_is_highest_at_the_goal():
    goals = half_cheetah.REWARDS["velocity"](jnp.array([0.0, 1.5, 2.0]), jnp.float32(1.5))
    np.testing.assert_array_equal(goals, [-1.5, 0.0, -0.5])


def test_a_velocity_episode_is_rewarded_for_its_distance_to_the_goal():
    environment = half_cheetah.half_cheetah("velocity", backend="spring", timing="rllab")
    start, transitions = jax.jit(
        lambda goal: episode(environment, jax.random.key(0), goal, ACTIONS)
    )(1.3)
    # A hundredth of a second's motion, in float32.
    speed = speeds(start, transitions, 0.01)
    cost = 0.05 * np.sum(ACTIONS**2, -1)
    np.testing.assert_allclose(transitions.reward, -np.abs(speed - 1.3) - cost, atol=1e-4)
    # An action lasts as long as the distance it covers says, at the trapezoid's error.
    qd = np.stack([start.qd, *transitions.state.qd])[:, 0]
    assert np.abs(speed - (qd[1:] + qd[:-1]) / 2).max() < 0.3 * np.abs(speed).max()


@pytest.mark.parametrize("backend", half_cheetah.PHYSICS_STEPS)
def test_an_action_lasts_as_long_as_in_brax_and_in_rllab(backend):
    for timing, seconds in (("brax", 0.05), ("rllab", 0.01)):
        assert half_cheetah.load(backend, timing).dt == pytest.approx(seconds)
    # What "brax" means, asked of brax itself.
    brax = pytest.importorskip("brax.envs.half_cheetah")
    with half_cheetah.quiet(pytest.importorskip("mujoco")):
        assert brax.Halfcheetah(backend=backend).dt == pytest.approx(0.05)


def test_mujoco_takes_one_physics_step_per_action_in_rllab():
    assert half_cheetah.load("mjx", "rllab").sys.opt.timestep == pytest.approx(0.01)
    assert half_cheetah.PHYSICS_STEPS["mjx"]["rllab"] == 1


def test_the_animal_weighs_14_kg():
    # brax's model relies on MuJoCo to scale its masses.
    system = half_cheetah.load("mjx", "brax").sys
    assert system.mj_model.body_mass.sum() == pytest.approx(14.0)
    assert system.body_mass.sum() == pytest.approx(14.0)


@slow
@pytest.mark.parametrize("timing", half_cheetah.TIMINGS)
def test_mjx_moves_as_mujoco(timing):
    mujoco = pytest.importorskip("mujoco")
    environment = half_cheetah.half_cheetah("direction", timing=timing)
    start, transitions = jax.jit(
        lambda actions: episode(environment, jax.random.key(0), 1.0, actions)
    )(ACTIONS)
    model = half_cheetah.load("mjx", timing).sys.mj_model
    data = mujoco.MjData(model)
    data.qpos, data.qvel = start.q, start.qd
    for action, q in zip(ACTIONS, transitions.state.q, strict=True):
        data.ctrl = action
        mujoco.mj_step(model, data, half_cheetah.PHYSICS_STEPS["mjx"][timing])
        np.testing.assert_allclose(q, data.qpos, atol=2e-3)
    assert data.time == pytest.approx(len(ACTIONS) * half_cheetah.TIMINGS[timing])


def test_directions_alternate_from_a_fair_coin():
    directions = jax.vmap(lambda key: half_cheetah.sample_directions(key, 5))(
        jax.random.split(jax.random.key(0), 4000)
    )
    np.testing.assert_array_equal(directions[:, 1:], -directions[:, :-1])
    assert set(np.unique(directions)) == {-1.0, 1.0}
    assert abs(directions[:, 0].mean()) < 5 / np.sqrt(4000)


def test_velocities_are_uniform():
    goals = half_cheetah.sample_velocities(jax.random.key(0), 4000)
    assert goals.shape == (4000,)
    assert 0.0 <= goals.min() < 0.01
    assert 1.99 < goals.max() <= 2.0
    # A uniform's mean within 5 standard errors.
    assert abs(goals.mean() - 1.0) < 5 * 2 / np.sqrt(12 * 4000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task_kind": "jump"}, "task_kind must be one of direction, velocity, not jump."),
        (
            {"backend": "bullet"},
            "backend must be one of mjx, generalized, spring, positional, not bullet.",
        ),
        ({"timing": "gym"}, "timing must be one of brax, rllab, not gym."),
        ({"horizon": 0}, "horizon must be at least 1 and at most 10000, not 0."),
        ({"horizon": 10_001}, "horizon must be at least 1 and at most 10000, not 10001."),
    ],
)
def test_a_wrong_choice_is_refused_in_one_sentence(arguments, message):
    with pytest.raises(OptionError) as refused:
        half_cheetah.half_cheetah(**{"task_kind": "direction"} | arguments)
    assert str(refused.value) == message


def test_without_brax_the_refusal_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "brax.envs.half_cheetah", None)
    with pytest.raises(OptionError, match=r"needs brax: pip install -e '\.\[rl\]'"):
        half_cheetah.half_cheetah("direction", backend="spring")


def test_it_is_built_without_a_word_and_without_a_log_file(tmp_path):
    build = "from gembml.tasks.half_cheetah import load; load('spring', 'brax')"
    path = [part for part in sys.path if part]
    code = f"import sys; sys.path[:0] = {path}; {build}"
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout + done.stderr == ""
    assert not list(tmp_path.iterdir())


def test_other_warnings_of_mujoco_still_arrive():
    mujoco = pytest.importorskip("mujoco")
    with pytest.warns(UserWarning, match="no such thing"), half_cheetah.quiet(mujoco):
        mujoco.get_mju_user_warning()("no such thing")
