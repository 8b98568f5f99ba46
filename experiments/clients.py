"""Meta-training whose server never sees data: Section 4, "Advantages", and appendix B.5.

    python -m experiments.clients --clients=4 --algorithm=gem_bml_plus --workdir=DIR

A server and ``--clients`` processes on this machine. At each meta-step the server sends Theta, each
client runs the inner loop on sinusoids that it alone draws, and answers with two vectors per task
(:mod:`gembml.data_free`); the server averages them and takes the meta-step. Frames are raw float32
numbers behind a checked header, on sockets that both ends authenticate; the bytes of a meta-step
are printed, and every one is accounted for. The same command goes on where it was stopped, also
after a client was lost.

What it does not give: the vectors are functions of the data and may leak what is in them, since no
noise is added (no differential privacy) and sockets are not encrypted. Theta and each answer are
twice as large as the network, which for ten points is far more than the data. The server waits for
the slowest client. On one machine it shows the protocol; it is not faster than one process.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments.clients_run import run_clients
from experiments.refusals import refuse
from experiments.sinusoid_presets import PRESETS, SinusoidConfig, preset
from gembml.tasks.sinusoid import SETTINGS

# Rows whose meta-gradient is made of values of a Gaussian posterior.
ALGORITHMS = {name: name for name in ("gem_bml", "gem_bml_plus")}


def summary(results: dict[str, Any]) -> str:
    """The validation error as a line for the terminal."""
    mse = results["metrics"]["validation_mse"]
    by_step = ", ".join(f"{value:.3f} after {step}" for step, value in mse.items())
    return f"MSE on the server's own validation tasks, by adaptation steps: {by_step}"


_REFUSED = {
    "meta_batch": "is --clients times --tasks_per_client here",
    **dict.fromkeys(
        ("test_tasks", "test_steps", "evaluate_every", "steps_per_dispatch"),
        "has no effect with clients, which are validated once, at the end",
    ),
    **dict.fromkeys(
        ("variance_per", "random_weights", "tasks_at_once"),
        "is nothing that clients know of",
    ),
}
_CLIENTS = flags.DEFINE_integer("clients", 4, "client processes")
_TASKS = flags.DEFINE_integer("tasks_per_client", 1, "tasks of each client per meta-step")
_TIMEOUT = flags.DEFINE_integer("client_timeout", 60, "seconds a client may take for a meta-step")
_ALGORITHM = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
_SETTING = flags.DEFINE_string("setting", "default", f"one of {', '.join(SETTINGS)}")
_PRESET = flags.DEFINE_string("preset", "tuned", f"one of {', '.join(PRESETS)}")
_META_STEPS = flags.DEFINE_integer("meta_steps", 2_000, "meta-steps in all")
_SEED = flags.DEFINE_integer("seed", 0, "seed of the prior and of each client's tasks")
_WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run; resumed if it holds it")


def main(argv: list[str]) -> None:
    """Run the server and its clients as the flags describe."""
    command_line.no_arguments(argv)
    algorithm = command_line.choose("algorithm", ALGORITHMS, _ALGORITHM.value)
    command_line.choose("setting", SETTINGS, _SETTING.value)
    command_line.choose("preset", PRESETS, _PRESET.value)
    refuse(_REFUSED)
    config = command_line.override(preset(_PRESET.value, algorithm, _SETTING.value), algorithm)
    workdir = command_line.given("workdir", _WORKDIR.value)
    results = run_clients(
        algorithm,
        _SETTING.value,
        config,
        clients=command_line.in_range("clients", _CLIENTS.value, 1, 256),
        tasks_per_client=command_line.in_range("tasks_per_client", _TASKS.value, 1, 100_000),
        seed=command_line.in_range("seed", _SEED.value, 0, 2**32 - 1),
        meta_steps=command_line.in_range("meta_steps", _META_STEPS.value, 1),
        client_timeout=command_line.in_range("client_timeout", _TIMEOUT.value, 1, 1_000_000),
        workdir=workdir,
        command=command_line.command("experiments.clients"),
    )
    print(summary(results))
    print(f"Results: {pathlib.Path(workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(SinusoidConfig)
    command_line.run(main)
