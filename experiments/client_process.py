"""A client: it alone draws and sees the data of its tasks, and sends two vectors for each."""

import dataclasses
from collections.abc import Callable
from multiprocessing.connection import Client
from typing import Any, NamedTuple

from experiments import command_line  # noqa: F401  before jax: it sets XLA's flags

# isort: split
import jax
import jax.numpy as jnp
import numpy as np

from experiments.frames import Channel, Kind
from experiments.sinusoid_evaluation import make_experiment, make_problem
from experiments.sinusoid_presets import SinusoidConfig
from gembml import ALGORITHMS, Gaussian, ravel
from gembml.algorithms.gaussian_posterior import gem_loops
from gembml.base import Key
from gembml.data_free import client_message
from gembml.learner import step_keys


class ClientOptions(NamedTuple):
    """What a client is told when it starts: options, and no data."""

    number: int
    algorithm: str
    setting: str
    config: SinusoidConfig
    tasks: int
    """Tasks of this client per meta-step."""
    seed: int


def draw_tasks(options: ClientOptions) -> Callable[[jax.Array], tuple[Key, Any]]:
    """``step`` -> the keys ``[tasks]`` and the tasks ``[tasks, ...]`` of this client.

    All come from ``fold_in(fold_in(key(seed), 2), number)``: no two clients share a task, and a
    client need not remember anything between meta-steps or runs.
    """
    config = dataclasses.replace(options.config, meta_batch=options.tasks)
    sample_tasks = make_experiment(options.algorithm, options.setting, config, 1).sample_tasks
    own_key = jax.random.fold_in(
        jax.random.fold_in(jax.random.key(options.seed), 2), options.number
    )

    def draw(step: jax.Array) -> tuple[Key, Any]:
        task_key, update_key = step_keys(own_key, step)
        return jax.random.split(update_key, options.tasks), sample_tasks(task_key)

    return draw


def make_answer(options: ClientOptions) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """``(step, Theta [2, n])`` -> the messages ``[2 * tasks, n]``, two rows for each task."""
    row = ALGORITHMS[options.algorithm]
    problem = ravel(make_problem(options.config)[1])
    loops = gem_loops(problem, options.config)
    message = client_message(problem, **loops, objective=row.objective)
    draw = draw_tasks(options)

    def answer(step: jax.Array, theta: jax.Array) -> jax.Array:
        keys, tasks = draw(step)
        messages = jax.vmap(message, in_axes=(0, None, 0))(keys, Gaussian(*theta), tasks)
        return jnp.stack(messages, axis=1).reshape(2 * options.tasks, -1)

    return answer


def client_loop(channel: Channel, options: ClientOptions) -> None:
    """Answer each Theta with this client's messages, until the server hangs up."""
    length = jax.eval_shape(ravel(make_problem(options.config)[1]).init, jax.random.key(0)).shape[0]
    example = (jnp.uint32(0), jnp.zeros((2, length), jnp.float32))
    # Before the greeting, so that no meta-step waits for the compiler.
    answer = jax.jit(make_answer(options)).lower(*example).compile()
    channel.send(Kind.HELLO, 0, np.zeros((0, 0), np.float32))
    while True:
        try:
            step, theta = channel.receive(Kind.PRIOR, (2, length))
            channel.send(Kind.MESSAGES, step, np.asarray(answer(np.uint32(step), theta)))
        except (EOFError, ConnectionError):
            return


def run_client(address: tuple[str, int], authkey: bytes, options: ClientOptions) -> None:
    """The whole of a client's process."""
    jax.config.update("jax_platforms", "cpu")  # as a device of its own has; many share no GPU
    try:
        connection = Client(address, authkey=authkey)
    except (EOFError, ConnectionError):
        return  # the server is gone
    with connection:
        client_loop(Channel(connection, options.number), options)
