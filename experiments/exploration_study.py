"""Is the prior's variance good for exploration? 2D navigation, Section 5.3.

    python -m experiments.exploration_study --run=DIR --workdir=DIR

Takes the trained prior of a finished ``experiments.navigation`` run. The episodes of the first
update on a test task are made by weights drawn from the prior, one set for each episode, with its
standard deviation multiplied by 0 (the mean acts, as in training), 1/2, 1 and 2. The update, by the
run's inner optimizer, takes each episode's gradient at the weights that made it; in training it is
taken at drawn weights for episodes of the mean. Then the return of the adapted mean is measured,
for few episodes and for many. Prints Markdown; writes ``exploration_study.json`` and a figure. All
choices see the same tasks.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import style
from experiments.navigation_prior import navigation_prior
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.report_tables import table
from experiments.rl_experiment import TEST_SEED, Experiment, held_out
from experiments.rl_presets import NavigationConfig
from experiments.widened import widened
from gembml.base import Key, Params, Task
from gembml.builders import inner_optimizer
from gembml.evaluation import ci95
from gembml.gaussian import Gaussian
from gembml.rl import BASELINES, Experience, Rollouts, roll_out
from gembml.rl.problem import experience
from gembml.rl.rollouts import log_prob
from gembml.training import write_json

MULTIPLIERS = (0.0, 0.5, 1.0, 2.0)
_JUDGED = 40


def study(
    experiment: Experiment,
    config: NavigationConfig,
    prior: Gaussian,
    episodes: list[int],
    num_tasks: int,
) -> list[dict[str, Any]]:
    """A row for each number of episodes and multiplier: the return after one update."""
    learner, policy = experiment.learner, experiment.policy
    environment = experiment.setting.environment
    keys, goals = held_out(experiment.setting, TEST_SEED, num_tasks)
    optimizer = optax.with_extra_args_support(inner_optimizer(config))

    def objective(mean: Params, offsets: Params, data: Experience) -> jax.Array:
        """The surrogate with each episode under the weights that made it, mean + offset."""

        def episode(offset: Params, observations: jax.Array, actions: jax.Array) -> jax.Array:
            weights = jax.tree.map(jnp.add, mean, offset)
            return log_prob(policy, weights, observations, actions)

        log_pi = jax.vmap(episode)(offsets, data.observations, data.actions)
        return jnp.sum(log_pi * data.mask * data.advantages) / jnp.sum(data.mask)

    def after_one_update(prior: Gaussian, multiplier: jax.Array, number: int) -> jax.Array:
        def one_task(inputs: tuple[Key, Task]) -> jax.Array:
            draw_key, episode_key, judge_key = jax.random.split(inputs[0], 3)
            goal = inputs[1]
            weights = learner.sample(draw_key, widened(prior, multiplier), number)
            each = jax.vmap(lambda k, w: roll_out(k, environment, policy, w, goal, 1))(
                jax.random.split(episode_key, number), weights
            )
            data = experience(
                Rollouts(*(leaf[:, 0] for leaf in each)),
                baseline=BASELINES[config.baseline],
                discount=config.discount,
                gae_lambda=config.gae_lambda,
                best_reward=environment.best_reward or 0.0,
            )
            offsets = jax.tree.map(jnp.subtract, weights, prior.mean)
            gradient = jax.grad(lambda m: -objective(m, offsets, data))(prior.mean)
            updates, _ = optimizer.update(
                gradient, optimizer.init(prior.mean), prior.mean, value=data.regret
            )
            mean = optax.apply_updates(prior.mean, updates)
            return jnp.mean(roll_out(judge_key, environment, policy, mean, goal, _JUDGED).returns)

        return jax.lax.map(one_task, (keys, goals))

    run = jax.jit(after_one_update, static_argnums=2)
    rows = []
    for number in episodes:
        base = np.asarray(run(prior, jnp.float32(0.0), number))
        for multiplier in MULTIPLIERS:
            returns = np.asarray(run(prior, jnp.float32(multiplier), number))
            rows.append(
                {
                    "episodes": number,
                    "multiplier": multiplier,
                    "return": float(returns.mean()),
                    "return_ci95": float(ci95(returns)),
                    # Paired by task.
                    "more_than_mean": float((returns - base).mean()),
                    "more_than_mean_ci95": float(ci95(returns - base)),
                }
            )
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    header = ["episodes", "std ×", "return after 1 update", "more than with the mean acting"]
    cells = [
        [
            str(row["episodes"]),
            f"{row['multiplier']:g}",
            f"{row['return']:.2f} ± {row['return_ci95']:.2f}",
            f"{row['more_than_mean']:+.2f} ± {row['more_than_mean_ci95']:.2f}",
        ]
        for row in rows
    ]
    return table(header, cells)


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Return after one update against the number of episodes, by multiplier."""
    with style.figure(path, 4.6, 3.0) as figure:
        axes = figure.subplots()
        for multiplier, colour, marker in zip(MULTIPLIERS, style.SEQUENCE, "os^Dv", strict=False):
            mine = [row for row in rows if row["multiplier"] == multiplier]
            axes.errorbar(
                [row["episodes"] * (1 + 0.02 * MULTIPLIERS.index(multiplier)) for row in mine],
                [row["return"] for row in mine],
                [row["return_ci95"] for row in mine],
                color=colour,
                marker=marker,
                markersize=4,
                capsize=2,
                label=f"std × {multiplier:g}" if multiplier else "mean acts",
            )
        axes.set_xscale("log")
        numbers = sorted({row["episodes"] for row in rows})
        axes.set_xticks(numbers, [str(number) for number in numbers])
        axes.minorticks_off()
        axes.set_xlabel("episodes of the update")
        axes.set_ylabel("return after 1 update")
        figure.legend(loc="outside right upper", fontsize=7)


_RUN = flags.DEFINE_string("run", None, "work directory of a finished navigation run")
_TASKS = flags.DEFINE_integer("tasks", 100, "test tasks")
_EPISODES = flags.DEFINE_list("episodes", ["2", "5", "10", "20", "40"], "episodes of the update")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory to write to")


def main(argv: list[str]) -> None:
    """Run the study that the flags describe."""
    command_line.no_arguments(argv)
    directory = pathlib.Path(command_line.given("run", _RUN.value, "a finished run's"))
    tasks = command_line.in_range("tasks", _TASKS.value, 2, 1_000_000)
    episodes = command_line.whole_numbers("episodes", _EPISODES.value, 1)
    about, config, experiment, prior = navigation_prior(
        directory,
        lambda config: config.inner_optimizer not in ("natural_gradient", "trpo"),
        "one of optax's inner optimizers",
    )
    output = make_directory("workdir", command_line.given("workdir", _WORKDIR.value))
    rows = study(experiment, config, prior, episodes, tasks)
    print(report(rows))
    content = {"run": about, "tasks": tasks, "rows": rows}
    content |= {"command": command_line.command("experiments.exploration_study"), **provenance()}
    write_json(output / "exploration_study.json", content)
    draw(rows, output / "exploration_study.png")


if __name__ == "__main__":
    command_line.run(main)
