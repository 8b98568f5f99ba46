"""Half-cheetah tasks: run in a given direction, or at a given speed (brax's ``halfcheetah``).

Finn et al. 2017 (MAML), Section 5.3; Zou & Lu 2020, appendix C.4.3. With v the torso's mean
velocity along x during an action a, in m/s,

=============  ===================  ==========================
task kind      task                 reward
=============  ===================  ==========================
``direction``  d, +1 or -1          d v - 0.05 ||a||^2
``velocity``   g in [0, 2] m/s      -|v - g| - 0.05 ||a||^2
=============  ===================  ==========================

v is the displacement of the state's x over the duration of the action, as in Gym. Where MAML's
published code differs: it takes the velocity of the whole body's centre of mass at the end of the
action, its observation holds the centre of mass as well, and its episodes start closer to rest.
"""

import contextlib
import importlib
import io
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from gembml.base import Key
from gembml.options import OptionError, check_choice
from gembml.rl.environment import Environment, Transition

CONTROL_COST = 0.05
GOAL_SPEEDS = (0.0, 2.0)
"""In m/s."""
MOST_ACTIONS = 10_000
"""Of an episode."""

TIMINGS = {"brax": 0.05, "rllab": 0.01}
"""Seconds an action lasts: in brax and Gym, and in rllab, on which MAML's returns were measured."""

PHYSICS_STEPS = {
    "mjx": {"brax": 5, "rllab": 1},
    "generalized": {"brax": 5, "rllab": 1},
    # In brax their steps last 3.125 ms, of which 10 ms is no multiple: four of 2.5 ms instead.
    "spring": {"brax": 16, "rllab": 4},
    "positional": {"brax": 16, "rllab": 4},
}
"""Steps of the physics during one action, by backend and timing."""

REWARDS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "direction": lambda direction, velocity: direction * velocity,
    "velocity": lambda goal, velocity: -jnp.abs(velocity - goal),
}
"""``(task, velocity)`` -> the reward before the cost of the action, by task kind."""


class MujocoState(NamedTuple):
    """What MuJoCo's physics needs of its thousands of numbers; all others follow from these."""

    q: jax.Array
    qd: jax.Array
    qacc_warmstart: jax.Array
    """Where the constraint solver starts, which in its few iterations tells in the result."""


def sample_directions(key: Key, number: int) -> jax.Array:
    """+1.0 (along x) and -1.0 in turn, ``[number]``; a fair coin says which comes first.

    Independent coins would tell a meta-step of few tasks to run where most of them run.
    """
    return jax.random.rademacher(key, (), jnp.float32) * (-1.0) ** jnp.arange(number)


def sample_velocities(key: Key, number: int) -> jax.Array:
    """Goal velocities in m/s, independent and uniform in [0, 2], ``[number]``."""
    keys = jax.random.split(key, number)
    return jax.vmap(lambda k: jax.random.uniform(k, (), jnp.float32, *GOAL_SPEEDS))(keys)


def half_cheetah(
    task_kind: str, *, backend: str = "mjx", timing: str = "brax", horizon: int = 200
) -> Environment:
    """The half-cheetah, with tasks of one kind.

    Its observation ``[17]`` is the torso's height (m) and pitch (rad), six joint angles (rad), and
    the nine velocities of x, height, pitch and joints (m/s, rad/s). Its action ``[6]`` is the
    torques of the joints in units of their limits, clipped to [-1, 1] before physics and cost. An
    episode starts near rest, every coordinate uniform within 0.1 and every velocity normal with
    std 0.1, and never terminates. A state has a field ``q``, ``[9]``: x, height, pitch and joint
    angles. Heights count from 0.7 m above the ground.

    Args:
      task_kind: ``direction`` or ``velocity``, a task of which is a scalar, which may be traced.
      backend: whose physics. ``mjx`` is MuJoCo's; brax's own ``generalized``, ``positional`` and
        ``spring`` are faster and other physics (with stronger front legs in the last two), whose
        returns do not compare with it.
      timing: ``brax``, 0.05 s per action as in Gym, or ``rllab``, 0.01 s, as in MAML's experiments:
        200 actions last 10 s or 2 s.
      horizon: actions of an episode, 1 to 10,000.

    Raises:
      OptionError: an argument is none of these, or brax is not installed.
    """
    check_choice("task_kind", task_kind, REWARDS)
    if not 1 <= horizon <= MOST_ACTIONS:
        raise OptionError(f"horizon must be at least 1 and at most {MOST_ACTIONS}, not {horizon}.")
    cheetah = load(backend, timing)
    physics = importlib.import_module(f"brax.{backend}.pipeline")
    physics_steps = PHYSICS_STEPS[backend][timing]
    compress, restore = compression(cheetah, backend)

    def reset(key: Key, task: jax.Array) -> tuple[Any, jax.Array]:
        del task
        start = cheetah.reset(key)
        return compress(start.pipeline_state), start.obs

    def step(task: jax.Array, state: Any, action: jax.Array) -> Transition:
        action = jnp.clip(action, -1.0, 1.0)

        def physics_step(state: Any, _: None) -> tuple[Any, None]:
            return compress(physics.step(cheetah.sys, restore(state), action)), None

        new, _ = jax.lax.scan(physics_step, state, length=physics_steps)
        # Not the torso's position, which MuJoCo leaves where it was one step of the physics before.
        velocity = (new.q[0] - state.q[0]) / TIMINGS[timing]
        reward = REWARDS[task_kind](task, velocity) - CONTROL_COST * jnp.sum(action**2)
        observation = jnp.concatenate([new.q[1:], new.qd])
        return Transition(new, observation, reward, jnp.zeros((), bool))

    best_reward = 0.0 if task_kind == "velocity" else None
    return Environment(17, 6, horizon, reset, step, best_reward)


def load(backend: str, timing: str) -> Any:
    """The ``Halfcheetah`` of brax, whose ``sys`` has the time step of this timing.

    Raises:
      OptionError: there is no such backend or timing, or brax is not installed.
    """
    check_choice("backend", backend, PHYSICS_STEPS)
    check_choice("timing", timing, TIMINGS)
    try:
        # Importing brax prints that an optional package is missing.
        with contextlib.redirect_stdout(io.StringIO()):
            module = importlib.import_module("brax.envs.half_cheetah")
            mujoco = importlib.import_module("mujoco")
    except ImportError as error:
        raise OptionError("The half-cheetah needs brax: pip install -e '.[rl]'") from error
    physics_steps = PHYSICS_STEPS[backend][timing]
    with quiet(mujoco):
        cheetah = module.Halfcheetah(backend=backend, n_frames=physics_steps)
    cheetah.sys = cheetah.sys.tree_replace(
        {"opt.timestep": jnp.asarray(TIMINGS[timing] / physics_steps)}
    )
    return cheetah


def compression(cheetah: Any, backend: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """From the physics' state to what an episode carries, and back."""
    if backend != "mjx":
        return lambda state: state, lambda state: state
    shapes = jax.eval_shape(lambda key: cheetah.reset(key).pipeline_state, jax.random.key(0))
    blank = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def compress(state: Any) -> MujocoState:
        return MujocoState(state.q, state.qd, state.qacc_warmstart)

    def restore(state: MujocoState) -> Any:
        return blank.replace(
            q=state.q,
            qd=state.qd,
            qpos=state.q,
            qvel=state.qd,
            qacc_warmstart=state.qacc_warmstart,
        )

    return compress, restore


@contextlib.contextmanager
def quiet(mujoco: Any) -> Iterator[None]:
    """Within it, two known warnings about brax's model are dropped, and no log file is written."""
    previous = mujoco.get_mju_user_warning()

    def warn(message: str) -> None:
        # brax's model sets its mass in a way that a later MuJoCo will not have.
        if "settotalmass" not in message:
            warnings.warn(message, stacklevel=2)

    mujoco.set_mju_user_warning(warn)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Brax System, pip.* not actively being maintained")
            yield
    finally:
        mujoco.set_mju_user_warning(previous)
