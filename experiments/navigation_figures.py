"""Trajectories in the plane before and after adaptation."""

import pathlib

import numpy as np

from experiments import style


def trajectories(paths: np.ndarray, goals: np.ndarray, path: pathlib.Path) -> None:
    """Positions ``[goals, updates + 1, episodes, H, 2]``: one panel per number of updates.

    Each goal has its own colour; the episodes are drawn lightly.
    """
    updates = paths.shape[1]
    # What a policy does that has left the region would shrink everything else to a point.
    reach = 1.15 * max(0.5, float(np.abs(goals).max()))
    with style.figure(path, 2.0 * updates, 2.4) as figure:
        row = figure.subplots(1, updates, sharex=True, sharey=True, squeeze=False)[0]
        for update, axes in enumerate(row):
            for goal, episodes, colour in zip(
                goals, paths[:, update], style.SEQUENCE, strict=False
            ):
                for episode in episodes:
                    axes.plot(*episode.T, color=colour, linewidth=0.7, alpha=0.6)
                axes.plot(*goal, marker="*", color=colour, markersize=9, markeredgecolor="k")
            axes.plot(0, 0, "k.", markersize=4)
            axes.set_aspect("equal")
            axes.set_xlim(-reach, reach)
            axes.set_ylim(-reach, reach)
            axes.set_title(f"{update} update{'' if update == 1 else 's'}")
