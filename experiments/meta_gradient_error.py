"""How far estimated meta-gradients are from the exact one: appendix C.1, with A.2 and A.3.

    python -m experiments.meta_gradient_error --workdir=DIR

On linear regression with known truth: the error of Gradient-EM and of the ELBO gradient, for L1 and
L2, against the number of inner steps; the bound of appendix A.3 beside it; and the variance of the
L2 estimator of the prior (appendix A.2). Writes ``DIR/results.json``, ``DIR/table.md`` and
``DIR/appendix_figure_1.png``. Errors are medians over ``--runs`` times ``--problems`` independent
problems.
"""

import pathlib

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
import jax

from experiments.meta_gradient_run import Options, run_meta_gradient_error
from experiments.report_meta_gradient import tables
from gembml.training import InputError

_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the results")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the problems, the noise and the simulation")
_RUNS = flags.DEFINE_integer("runs", 5, "random runs, each with problems of its own")
_PROBLEMS = flags.DEFINE_integer("problems", 200, "problems in each run, at least 6")
_INNER_STEPS = flags.DEFINE_list(
    "inner_steps", ["1", "2", "5", "10", "20", "40", "80", "160", "320"], "numbers of inner steps"
)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.01, "rate of the inner gradient steps")
_TASKS = flags.DEFINE_integer("tasks", 4000, "tasks per estimate of the prior (appendix A.2)")
_REPEATS = flags.DEFINE_integer("repeats", 4000, "estimates of the prior, at least 3")


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    workdir = command_line.given("workdir", _WORKDIR.value)
    if not 0 < _LEARNING_RATE.value < float("inf"):
        raise InputError(f"--learning_rate must be above 0, not {_LEARNING_RATE.value}.")
    options = Options(
        seed=command_line.in_range("seed", _SEED.value, 0, 2**32 - 1),
        runs=command_line.in_range("runs", _RUNS.value, 1),
        problems=command_line.in_range("problems", _PROBLEMS.value, 6),
        inner_steps=sorted(command_line.whole_numbers("inner_steps", _INNER_STEPS.value, 1)),
        learning_rate=_LEARNING_RATE.value,
        tasks=command_line.in_range("tasks", _TASKS.value, 2),
        repeats=command_line.in_range("repeats", _REPEATS.value, 3),
    )
    # The exact gradient is compared to relative errors of 1e-6 and below.
    jax.config.update("jax_enable_x64", True)
    results = run_meta_gradient_error(
        options, workdir=workdir, command=command_line.command("experiments.meta_gradient_error")
    )
    print(tables(results))
    print(f"Results, table and figure: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.run(main)
