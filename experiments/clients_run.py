"""The server's run: broadcast Theta, gather messages, take the meta-step; it never sees data."""

import dataclasses
import time
from typing import Any, NamedTuple

from experiments import command_line  # noqa: F401  before jax: it sets XLA's flags

# isort: split
import jax
import numpy as np
from tqdm import tqdm

from experiments.client_fleet import Fleet
from experiments.client_process import ClientOptions
from experiments.frames import FrameError, frame_bytes
from experiments.provenance import provenance
from experiments.sinusoid_evaluation import (
    ADAPTED,
    VALIDATION_SEED,
    evaluate,
    make_experiment,
    make_problem,
)
from experiments.sinusoid_presets import SinusoidConfig
from gembml import ALGORITHMS, LearnerState, MetaLearner, meta_learner, ravel
from gembml.builders import max_task_norm, meta_optimizer
from gembml.data_free import Message, server_meta_gradient
from gembml.runs import init_key
from gembml.training import (
    DivergedError,
    InterruptedRunError,
    LostClientError,
    open_workdir,
    write_json,
)
from gembml.training.checkpoints import Checkpoints


def server_learner(algorithm: str, config: SinusoidConfig, meta_steps: int) -> MetaLearner:
    """Algorithm 1 with messages in the place of tasks: ``update(state, key, Message)``."""
    row = ALGORITHMS[algorithm]
    problem = ravel(make_problem(config)[1])
    parts = row.build(problem, config)
    optimizer = meta_optimizer(row.family, config, meta_steps)
    return meta_learner(
        problem,
        parts.family,
        parts.inference,
        server_meta_gradient(row.objective),
        optimizer,
        max_task_norm=max_task_norm(config),
    )


def traffic(config: SinusoidConfig, length: int, tasks: int) -> dict[str, int]:
    """Bytes of one client in one meta-step: what goes over its channel, and what would instead.

    ``theta_received`` and ``messages_sent`` are whole frames, the others bare float32 numbers:
    the points of the client's tasks, and, for an inner loop that the server runs, the two vectors
    of the ELBO's gradient at each inner step on each of the two data sets.
    """
    return {
        "theta_received": frame_bytes(2, length),
        "messages_sent": frame_bytes(2 * tasks, length),
        "data_instead": 4 * 2 * (config.shots + config.queries) * tasks,
        "gradients_instead": 4 * 2 * length * 2 * config.inner_steps * tasks,
    }


def bytes_table(sizes: dict[str, int], clients: int, config: SinusoidConfig) -> str:
    """:func:`traffic` as lines for the terminal."""
    steps = 2 * config.inner_steps
    names = {
        "theta_received": "Theta, to the client",
        "messages_sent": "two vectors per task, from the client",
        "data_instead": f"not sent: data, {config.shots} + {config.queries} points per task",
        "gradients_instead": f"not sent: gradients of {steps} inner steps per task",
    }
    total = f"all {clients} clients"
    lines = [f"{'bytes per meta-step':<50}{'each client':>14}{total:>18}"]
    for name, words in names.items():
        lines.append(f"{words:<50}{sizes[name]:>14,}{clients * sizes[name]:>18,}")
    return "\n".join(lines)


# Meta-steps in a row that lose every task, after which a run is given up.
_MOST_LOST = 500


class Progress(NamedTuple):
    """How far training has come."""

    step: int
    state: LearnerState
    seconds: float


def train_with_clients(
    learner: MetaLearner,
    progress: Progress,
    options: list[ClientOptions],
    checkpoints: Checkpoints,
    meta_steps: int,
    client_timeout: float,
) -> Progress:
    """Meta-steps from ``progress`` to the end, each with the messages of all clients."""
    update = jax.jit(learner.update)
    no_key = jax.random.key(0)  # what is random happens at the clients
    length = progress.state.prior.mean.shape[0]

    def save() -> None:
        if progress.step not in checkpoints.steps():
            checkpoints.save(*progress)

    lost = 0  # meta-steps in a row that lost every task
    where = "at meta-step {:,}, which is saved; the same command goes on from there."
    bar = tqdm(total=meta_steps, initial=progress.step, unit="step", disable=None)
    try:
        with Fleet(options, length, client_timeout) as fleet:
            pids = ", ".join(str(process.pid) for process in fleet.processes)
            print(f"Clients are processes {pids}.", flush=True)
            while progress.step < meta_steps:
                began = time.perf_counter()
                theta = np.stack(progress.state.prior).astype(np.float32)
                messages = fleet.ask(progress.step, theta)
                state, metrics = update(progress.state, no_key, Message(*messages.swapaxes(0, 1)))
                lost = lost + 1 if metrics.lost_tasks >= 1 else 0
                if not metrics.finite or lost == _MOST_LOST:
                    first = progress.step - max(lost - 1, 0)
                    raise DivergedError(
                        "The meta-gradient (under a cap, that of every task) or the prior is not "
                        f"finite from meta-step {first:,} on; the last checkpoints are kept."
                    )
                seconds = progress.seconds + time.perf_counter() - began
                progress = Progress(progress.step + 1, state, seconds)
                bar.update()
                finished = progress.step == meta_steps
                if finished or progress.step % options[0].config.checkpoint_every == 0:
                    save()
            print(
                f"Counted over {fleet.asked:,} meta-steps: {fleet.channels[0].sent:,} bytes to "
                f"each client, {fleet.channels[0].received:,} from it.",
                flush=True,
            )
    except (LostClientError, FrameError) as error:
        save()
        raise LostClientError(f"{error} {where.format(progress.step)}") from error
    except KeyboardInterrupt as error:
        save()
        raise InterruptedRunError(f"Stopped {where.format(progress.step)}") from error
    finally:
        bar.close()
    return progress


def run_clients(
    algorithm: str,
    setting: str,
    config: SinusoidConfig,
    *,
    clients: int,
    tasks_per_client: int,
    seed: int,
    meta_steps: int,
    client_timeout: float,
    workdir: str,
    command: str,
) -> dict[str, Any]:
    """Train with client processes and validate; returns what ``results.json`` holds.

    Raises:
      LostClientError: if a client is gone or late, after saving.
      DivergedError, InterruptedRunError: as :func:`gembml.training.train`.
    """
    config = dataclasses.replace(config, meta_batch=clients * tasks_per_client)
    experiment = make_experiment(algorithm, setting, config, meta_steps)
    learner = server_learner(algorithm, config, meta_steps)
    identity = {
        "experiment": "clients",
        "algorithm": algorithm,
        "setting": setting,
        "clients": clients,
        "tasks_per_client": tasks_per_client,
        "seed": seed,
        "meta_steps": meta_steps,
        "config": dataclasses.asdict(config),
    }
    directory = open_workdir(workdir, identity)
    state = jax.jit(learner.init)(init_key(jax.random.key(seed)))
    checkpoints = Checkpoints(directory / "checkpoints")
    restored, complaints = checkpoints.restore(state)
    for complaint in complaints:
        print(complaint, flush=True)
    progress = Progress(0, state, 0.0)
    if restored is not None:
        progress = Progress(restored.step, restored.state, restored.seconds)
        print(f"Resumed at meta-step {progress.step:,} of {meta_steps:,}.", flush=True)
    length = state.prior.mean.shape[0]
    sizes = traffic(config, length, tasks_per_client)
    print(bytes_table(sizes, clients, config), flush=True)
    if progress.step < meta_steps:
        options = [
            ClientOptions(number, algorithm, setting, config, tasks_per_client, seed)
            for number in range(clients)
        ]
        progress = train_with_clients(
            learner, progress, options, checkpoints, meta_steps, client_timeout
        )
    # On validation tasks that the server draws for itself; no client's are among them.
    steps = (0, 1, ADAPTED)
    validation = evaluate(
        experiment,
        progress.state.prior,
        VALIDATION_SEED,
        config.validation_tasks,
        steps,
        config.noise_std,
    )
    mse = np.asarray(validation.mse).mean(axis=0)
    results = identity | {
        "metrics": {
            "validation_mse": {str(n): float(value) for n, value in zip(steps, mse, strict=True)}
        },
        "weights": length,
        "bytes_per_client_and_meta_step": sizes,
        "seconds": round(progress.seconds, 2),
        "command": command,
        **provenance(),
    }
    write_json(directory / "results.json", results)
    return results
