"""When does a posterior's variance help, and by how much? Few-shot classification, Section 5.2.

    python -m experiments.variance_study --run=DIR --data_dir=DIR --workdir=DIR
    python -m experiments.variance_study --run=DIR --classes=validation --as_trained ...

Takes the trained prior of a finished ``experiments.few_shot`` run on Omniglot, adapts it to test
episodes as they are and to harder ones: support sets that are ambiguous, incomplete, foreign. The
posterior's standard deviation is then multiplied by 0 (its mean alone), 1/2, 1, 2, 4 and 8, and the
predictive averaged over 20 sets of weights. As a control, the logits of the mean are divided by
temperatures from 1.25 to 4, which makes predictions less sure without any variance. Accuracy, NLL
and ECE of each are printed as Markdown and written to ``variance_study.json``, with a figure.

On validation classes it is how ``--config.test_std_multiplier`` of ``experiments.few_shot`` is
chosen.
"""

import dataclasses
import pathlib
from collections.abc import Callable
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments import style
from experiments.few_shot_evaluation import TEST_SEED, VALIDATION_SEED, held_out
from experiments.few_shot_presets import FewShotConfig
from experiments.few_shot_problem import Batch, make_experiment, query_batch, support_batch
from experiments.few_shot_run import fingerprint
from experiments.output_directory import make_directory
from experiments.provenance import provenance
from experiments.report_tables import table
from experiments.trained_run import read_run, trained_prior
from experiments.widened import widened
from gembml import ALGORITHMS, constants
from gembml.base import Distribution, Key
from gembml.evaluation import (
    ci95,
    classification_metrics,
    expected_calibration_error,
    expected_calibration_error_ci95,
)
from gembml.tasks import omniglot
from gembml.tasks.data_dirs import default_data_dir
from gembml.tasks.images import ImageClasses
from gembml.training import InputError, write_json

MULTIPLIERS = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0)
TEMPERATURES = (1.25, 1.5, 2.0, 3.0, 4.0)
_SAMPLES = 20
_SEEDS = {"test": TEST_SEED, "validation": VALIDATION_SEED}


def _same(x: jax.Array, shots: int) -> jax.Array:
    del shots
    return x


def _blended(x: jax.Array, shots: int) -> jax.Array:
    """Each support image under a paler one of the class before it."""
    return jnp.maximum(x, 0.7 * jnp.roll(x, shots, axis=0))


def _cut(x: jax.Array, shots: int) -> jax.Array:
    """The lower half of each support image blank."""
    del shots
    return x.at[:, x.shape[1] // 2 :].set(0.0)


def _inverted(x: jax.Array, shots: int) -> jax.Array:
    """Paper for ink."""
    del shots
    return 1.0 - x


AS_TRAINED = "as trained"
# Name -> what happens to the support images, and to the queries.
CONDITIONS: dict[str, tuple[Callable, Callable]] = {
    AS_TRAINED: (_same, _same),
    "ambiguous: two classes in one support image": (_blended, _same),
    "incomplete: upper half of support images": (_cut, _same),
    "foreign: inverted images": (_inverted, _inverted),
}


def study(
    algorithm: str,
    config: FewShotConfig,
    data: ImageClasses,
    prior: Distribution,
    num_tasks: int,
    seed: int,
    conditions: dict[str, tuple[Callable, Callable]] = CONDITIONS,
) -> list[dict[str, Any]]:
    """A row of measures for each condition and multiplier, and for each of the temperatures."""
    gaussian = ALGORITHMS[algorithm].family == "gaussian"
    config = dataclasses.replace(config, test_samples=_SAMPLES if gaussian else config.test_samples)
    # Its multipliers are times what the posterior says, not times that of the run's test.
    config = dataclasses.replace(config, test_std_multiplier=1.0)
    experiment = make_experiment(algorithm, config, data, 1)
    multipliers = MULTIPLIERS if gaussian else (0.0,)
    settings = [(m, 1.0) for m in multipliers] + [(0.0, t) for t in TEMPERATURES]

    def condition(support_change: Callable, query_change: Callable) -> Callable:
        def one(prior: Distribution, key: Key, episode: Any) -> Any:
            adapt_key, sample_key = jax.random.split(key)
            support, query = (f(data, episode, config) for f in (support_batch, query_batch))
            support = support._replace(x=support_change(support.x, config.shots))
            query = Batch(
                query_change(query.x, config.shots),
                query.y,
                support.x if config.normalisation == "support" else None,
            )
            posteriors = experiment.learner.adapt(
                prior, adapt_key, lambda *_: support, config.test_steps
            )
            posterior = jax.tree.map(lambda a: a[-1], posteriors)
            predicted = [
                experiment.predict(
                    sample_key, widened(posterior, m) if gaussian else posterior, query
                )
                for m in multipliers
            ]
            predicted += [jax.nn.log_softmax(predicted[0] / t, axis=-1) for t in TEMPERATURES]
            each = [classification_metrics(log_probs, query.y) for log_probs in predicted]
            return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)

        def run(prior: Distribution) -> Any:
            episodes = held_out(data, config, seed, num_tasks)
            keys = jax.random.split(jax.random.key(seed + 1), num_tasks)
            at_once = 1 if jax.default_backend() == "cpu" else 20
            return lax.map(lambda inputs: one(prior, *inputs), (keys, episodes), batch_size=at_once)

        return constants.compiled(run, prior)

    rows = []
    for name, changes in conditions.items():
        metrics = jax.tree.map(np.asarray, condition(*changes)(prior))
        bins = jax.tree.map(lambda a: a.sum(axis=0), metrics.bins15)
        ece_ci95 = expected_calibration_error_ci95(metrics.bins15)
        base = metrics.nll[:, 0]
        for i, (multiplier, temperature) in enumerate(settings):
            rows.append(
                {
                    "condition": name,
                    "multiplier": multiplier,
                    "temperature": temperature,
                    "accuracy": float(metrics.accuracy[:, i].mean()),
                    "accuracy_ci95": float(ci95(metrics.accuracy[:, i])),
                    "nll": float(metrics.nll[:, i].mean()),
                    # Paired by task: the same episodes and, below, the same posteriors.
                    "nll_less_than_mean": float((base - metrics.nll[:, i]).mean()),
                    "nll_less_than_mean_ci95": float(ci95(base - metrics.nll[:, i])),
                    "ece": float(
                        expected_calibration_error(jax.tree.map(lambda a, i=i: a[i], bins))
                    ),
                    "ece_ci95": float(ece_ci95[i]),
                }
            )
    return rows


def report(rows: list[dict[str, Any]]) -> str:
    """The rows as a Markdown table."""
    header = [
        "episodes",
        "std ×",
        "temperature",
        "accuracy, %",
        "NLL",
        "NLL less than the mean's",
        "ECE",
    ]
    cells = [
        [
            row["condition"],
            f"{row['multiplier']:g}",
            f"{row['temperature']:g}",
            f"{100 * row['accuracy']:.2f} ± {100 * row['accuracy_ci95']:.2f}",
            f"{row['nll']:.4f}",
            f"{row['nll_less_than_mean']:+.4f} ± {row['nll_less_than_mean_ci95']:.4f}",
            f"{row['ece']:.4f} ± {row['ece_ci95']:.4f}",
        ]
        for row in rows
    ]
    return table(header, cells)


def draw(rows: list[dict[str, Any]], path: pathlib.Path) -> None:
    """Accuracy, NLL and ECE against the multiplier of the standard deviation, by condition.

    Dotted: the least that a temperature reaches without variance, on the episodes shown.
    """
    with style.figure(path, 7.6, 3.0) as figure:
        panels = figure.subplots(1, 3)
        places = np.arange(len(MULTIPLIERS))
        for colour, marker, name in zip(style.SEQUENCE, "os^D", CONDITIONS, strict=False):
            here = [row for row in rows if row["condition"] == name]
            mine = [row for row in here if row["temperature"] == 1.0]
            cooled = [row for row in here if row["multiplier"] == 0.0]
            for axes, field, scale in zip(
                panels, ("accuracy", "nll", "ece"), (100, 1, 1), strict=True
            ):
                values = [scale * row[field] for row in mine]
                label = name.split(":")[0]
                axes.plot(places, values, color=colour, marker=marker, label=label, markersize=4)
                if field != "accuracy":
                    least = min(row[field] for row in cooled)
                    axes.axhline(least, color=colour, linestyle=":", linewidth=1)
        for axes, title in zip(panels, ("accuracy, %", "NLL, nats", "ECE, 15 bins"), strict=True):
            axes.set_xticks(places, [f"{m:g}" for m in MULTIPLIERS])
            axes.set_xlabel("standard deviation ×")
            axes.set_ylabel(title)
        panels[0].plot([], [], "k:", linewidth=1, label="mean, best temperature")
        figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=5)


_RUN = flags.DEFINE_string("run", None, "work directory of a finished few-shot run on Omniglot")
_DATA_DIR = flags.DEFINE_string("data_dir", None, "as in experiments.few_shot")
_CLASSES = flags.DEFINE_string("classes", "test", f"whose episodes: {' or '.join(_SEEDS)}")
_AS_TRAINED = flags.DEFINE_boolean("as_trained", False, "only episodes as they are; no figure")
_TASKS = flags.DEFINE_integer("tasks", 300, "episodes")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory to write to")


def main(argv: list[str]) -> None:
    """Run the study that the flags describe."""
    command_line.no_arguments(argv)
    directory = pathlib.Path(command_line.given("run", _RUN.value, "a finished run's"))
    classes = _CLASSES.value
    command_line.choose("classes", _SEEDS, classes)
    tasks = command_line.in_range("tasks", _TASKS.value, 2, 1_000_000)
    about, config = read_run(
        directory,
        "few_shot",
        FewShotConfig,
        lambda about, _: about["dataset"] == "omniglot",
        "a few-shot run on Omniglot",
    )
    folder = pathlib.Path(_DATA_DIR.value).expanduser() if _DATA_DIR.value else default_data_dir()
    splits = omniglot.load(folder, split=about["split"])
    held = getattr(splits, classes)
    if held is None:
        raise InputError(
            f"--classes must be test: split {about['split']} of --run={directory} has no "
            "validation classes."
        )
    data = jax.device_put(held)
    experiment = make_experiment(about["algorithm"], config, data, about["meta_steps"])
    prior = trained_prior(directory, about["meta_steps"], experiment.learner)
    if about.get("data_sha256") not in (None, fingerprint(splits)):
        raise InputError(f"--run={directory} was trained on other images than --data_dir holds.")
    output = make_directory("workdir", command_line.given("workdir", _WORKDIR.value))
    conditions = {AS_TRAINED: CONDITIONS[AS_TRAINED]} if _AS_TRAINED.value else CONDITIONS
    rows = study(about["algorithm"], config, data, prior, tasks, _SEEDS[classes], conditions)
    print(report(rows))
    content = {"run": about, "meta_step": about["meta_steps"], "classes": classes, "tasks": tasks}
    content |= {"rows": rows, "command": command_line.command("experiments.variance_study")}
    content |= provenance()
    write_json(output / "variance_study.json", content)
    if not _AS_TRAINED.value and len({row["multiplier"] for row in rows}) > 1:
        draw(rows, output / "variance_study.png")


if __name__ == "__main__":
    command_line.run(main)
