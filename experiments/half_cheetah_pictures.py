"""Pictures of half-cheetah episodes: a film strip for figures, and a page to watch one in 3D."""

import importlib
import pathlib
from collections.abc import Callable, Iterator, Mapping
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.ticker import MultipleLocator

from experiments import style
from gembml.base import Key
from gembml.rl.environment import Environment
from gembml.tasks import half_cheetah

Policy = Callable[[Key, jax.Array], jax.Array]
"""``(key, observation [17])`` -> action ``[6]``"""

TORSO, BACK, FRONT = "#444444", "#0072B2", "#D55E00"
PARTS = {
    "torso": TORSO,
    "head": TORSO,
    "bthigh": BACK,
    "bshin": BACK,
    "bfoot": BACK,
    "fthigh": FRONT,
    "fshin": FRONT,
    "ffoot": FRONT,
}
"""The capsules' names in the model, and their colours; later ones hide earlier ones."""
HALF_WIDTH = 1.15
"""Metres that a frame shows on either side of the torso's middle."""
FLOOR, LEAST_CEILING = -0.12, 1.1
FARTHEST = 1e3
"""Metres, and radians."""
INCHES = 0.38
"""A metre, in the film strip."""


def coordinates(environment: Environment, key: Key, task: Any, policy: Policy) -> jax.Array:
    """The field ``q`` of the states of one episode, ``[horizon + 1, 9]``, the start first."""
    start_key, key = jax.random.split(key)
    state, observation = environment.reset(start_key, task)

    def act(carry: tuple[Any, jax.Array], key: Key) -> tuple[tuple[Any, jax.Array], jax.Array]:
        state, observation = carry
        new = environment.step(task, state, policy(key, observation))
        return (new.state, new.observation), new.state.q

    keys = jax.random.split(key, environment.horizon)
    _, later = jax.lax.scan(act, (state, observation), keys)
    return jnp.concatenate([state.q[None], later])


def drawable(coordinates: np.ndarray) -> bool:
    """Whether all is finite, and nothing farther away than physics that has not blown up goes."""
    return bool(np.all(np.abs(coordinates) < FARTHEST))


def film_strip(
    path: pathlib.Path, episodes: Mapping[str, np.ndarray], seconds: float, moments: int = 8
) -> None:
    """A PNG or PDF with a row for each episode, seen from the side at equally spaced moments.

    Every frame follows the torso; the ticks on the ground are metres from the start, which a dashed
    line marks.

    Args:
      path: the file to write.
      episodes: by the label of its row, what :func:`coordinates` returned, ``[moments, 9]``; all
        are of the same length and :func:`drawable`.
      seconds: that an action lasts.
      moments: columns, from the start to the end.

    Raises:
      OptionError: brax is not installed.
    """
    model = half_cheetah.load("mjx", "brax").sys.mj_model
    length = len(next(iter(episodes.values())))
    times = np.linspace(0, length - 1, moments).round().astype(int)
    rows = [
        np.stack([_capsules(data) for data in _poses(model, coordinates[times])])
        for coordinates in episodes.values()
    ]
    ceilings = [max(LEAST_CEILING, row[..., 1].max() + 0.05) for row in rows]
    heights = [(ceiling - FLOOR) * INCHES + 0.2 for ceiling in ceilings]
    width = moments * (2 * HALF_WIDTH * INCHES + 0.06) + 0.3
    with style.figure(path, width, sum(heights) + 0.4) as figure:
        panels = figure.subplots(len(rows), moments, squeeze=False, height_ratios=heights)
        for time, axes in zip(times, panels[0], strict=True):
            axes.set_title(f"{time * seconds:.3g} s", fontsize=9)
        for panel_row, label, row, ceiling in zip(panels, episodes, rows, ceilings, strict=True):
            panel_row[0].set_ylabel(label)
            for axes, capsules in zip(panel_row, row, strict=True):
                _frame(axes, capsules, ceiling)
        figure.supxlabel("x (m)", fontsize=9)


def viewer(path: pathlib.Path, coordinates: np.ndarray, seconds: float) -> None:
    """A page of HTML that plays an episode in 3D; its browser fetches brax's viewer from the web.

    Args:
      path: the file to write.
      coordinates: what :func:`coordinates` returned, ``[moments, 9]``.
      seconds: that an action lasts.

    Raises:
      OptionError: brax is not installed.
    """
    system = half_cheetah.load("mjx", "brax").sys
    html, base = importlib.import_module("brax.io.html"), importlib.import_module("brax.base")
    states = [
        # The world, which comes first, is no link.
        SimpleNamespace(x=base.Transform(pos=data.xpos[1:].copy(), rot=data.xquat[1:].copy()))
        for data in _poses(system.mj_model, coordinates)
    ]
    # The page plays one state per time step.
    system = system.tree_replace({"opt.timestep": seconds})
    path.write_text(html.render(system, states, height="100vh", colab=False))


def _poses(model: Any, coordinates: np.ndarray) -> Iterator[Any]:
    """MuJoCo's data of each moment; the same object each time."""
    mujoco = importlib.import_module("mujoco")
    data = mujoco.MjData(model)
    for q in np.asarray(coordinates):
        data.qpos = q
        mujoco.mj_kinematics(model, data)
        yield data


def _capsules(data: Any) -> np.ndarray:
    """The outlines of the animal's parts as seen along y, ``[parts, points, 2]``."""
    model = data.model
    return np.stack(
        [
            _outline(data.geom_xpos[i], data.geom_xmat[i].reshape(3, 3), model.geom_size[i])
            for i in (model.geom(name).id for name in PARTS)
        ]
    )


def _outline(centre: np.ndarray, rotation: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Of a capsule, which lies along its own z, ``[points, 2]``."""
    radius, half_length = size[:2]
    along = rotation[[0, 2], 2]
    across = np.array([along[1], -along[0]])
    angles = np.linspace(-np.pi / 2, np.pi / 2, 13)[:, None]
    end = half_length * along + radius * (np.cos(angles) * along + np.sin(angles) * across)
    return centre[[0, 2]] + np.concatenate([end, -end])


def _frame(axes: Axes, capsules: np.ndarray, ceiling: float) -> None:
    """One moment; the torso's capsule is the first."""
    x = capsules[0, :, 0].mean()
    axes.axhspan(FLOOR, 0.0, color="#DDDDDD", linewidth=0)
    axes.axhline(0.0, color="#666666", linewidth=0.8)
    axes.axvline(0.0, color="#666666", linewidth=0.8, linestyle=(0, (3, 3)))
    parts = PolyCollection(
        list(capsules), facecolors=list(PARTS.values()), edgecolors="white", linewidths=0.4
    )
    parts.set_zorder(3)
    axes.add_collection(parts)
    axes.set(xlim=(x - HALF_WIDTH, x + HALF_WIDTH), ylim=(FLOOR, ceiling), yticks=[])
    axes.set_aspect("equal")
    axes.grid(False)
    axes.xaxis.set_major_locator(MultipleLocator(1.0))
    axes.tick_params(labelsize=7, length=2.5, pad=1.5)
    axes.spines[["left", "bottom"]].set_visible(False)
