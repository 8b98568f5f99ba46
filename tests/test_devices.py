"""The meta-step on 1, 2 and 8 devices: the same prior, whatever the algorithm.

In a process of its own, since JAX counts a CPU's devices when it starts.
"""

import functools
import json
import subprocess
import sys

import pytest

from gembml import ALGORITHMS
from tests.programs import ROOT

# One of each common kind of posterior; what is compiled for the others takes long.
QUICK = ("bmaml", "gem_bml_plus", "maml")

_PROGRAM = """
import dataclasses, json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_enable_x64", True)
import jax.numpy as jnp
import numpy as np
from gembml import distributed, make_learner, meta_steps
from gembml.runs import many_runs
from tests import toy

def sample_tasks(key):
    return jax.tree.map(lambda *a: jnp.concatenate(a), *(
        toy.sample_tasks(k) for k in jax.random.split(key, 8)))

def end(algorithm, devices):
    mesh = distributed.task_mesh(jax.devices()[:devices]) if devices > 1 else None
    learner = make_learner(algorithm, toy.problem(), toy.CONFIGS[algorithm], 12, mesh)
    state = jax.tree.map(
        lambda a: a.astype(jnp.float64) if a.dtype == jnp.float32 else a,
        learner.init(jax.random.key(0)))
    state = distributed.replicate(state, mesh)
    run = jax.jit(meta_steps(learner, sample_tasks, jax.random.key(1), 5))
    state, metrics = run(state, np.int32(0))
    return (*jax.tree.leaves(state.prior), metrics.meta_gradient_norm)

worst = {}
for algorithm in sys.argv[1:]:
    one = end(algorithm, 1)
    for devices in (2, 8):
        for a, b in zip(one, end(algorithm, devices), strict=True):
            error = np.abs(np.asarray(a) - np.asarray(b)) / (np.abs(np.asarray(a)) + 1e-2)
            name = f"{algorithm} on {devices}"
            # What is not finite stays so, which Python's max would lose.
            worst[name] = float(np.maximum(worst.get(name, 0.0), error.max()))

def capped(mesh):
    config = dataclasses.replace(toy.CONFIGS["maml"], max_meta_gradient_norm=0.1)
    learner = make_learner("maml", toy.problem(), config, 12, mesh)
    tasks = sample_tasks(jax.random.key(3))
    tasks = tasks._replace(query=jax.tree.map(lambda a: a.at[5].set(jnp.nan), tasks.query))
    state = distributed.replicate(learner.init(jax.random.key(0)), mesh)
    state, metrics = jax.jit(learner.update)(state, jax.random.key(1), tasks)
    return np.append(np.asarray(state.prior.mean), metrics.lost_tasks)
one = capped(None)
assert one[-1] == np.float32(1 / 32)
for devices in (2, 8):
    error = capped(distributed.task_mesh(jax.devices()[:devices])) - one
    worst[f"a lost task on {devices}"] = float(np.abs(error).max())

def failed(mesh):
    rollouts = toy.problem()._replace(is_surrogate=True)
    learner = make_learner("maml", rollouts, toy.CONFIGS["maml"], 12, mesh)
    tasks = sample_tasks(jax.random.key(3))
    tasks = tasks._replace(query=jax.tree.map(lambda a: a.at[5:7].set(jnp.nan), tasks.query))
    state = distributed.replicate(learner.init(jax.random.key(0)), mesh)
    return jax.jit(learner.update)(state, jax.random.key(1), tasks)[1].failed_task
for devices in (2, 8):
    found = failed(distributed.task_mesh(jax.devices()[:devices]))
    worst[f"a task that fails on {devices}"] = abs(float(found) - 5)

mesh = distributed.task_mesh(jax.devices())
def seeds(mesh):
    learner = make_learner("maml", toy.problem(), toy.CONFIGS["maml"], 12, mesh)
    many = many_runs(lambda _: learner, sample_tasks, 5)
    keys = jax.vmap(jax.random.key)(jnp.arange(2))
    state = distributed.replicate(many.init(keys, {}), mesh)
    return jax.jit(lambda s: many.run(s, keys, {}, np.int32(0)))(state)[0].prior.mean
a, b = np.asarray(seeds(None)), np.asarray(seeds(mesh))
worst["2 seeds on 8"] = float((np.abs(a - b) / (np.abs(a) + 1e-2)).max())

def divided(mesh):
    learner = make_learner("maml", toy.problem(), toy.CONFIGS["maml"], 12)
    many = many_runs(lambda _: learner, toy.sample_tasks, 5, mesh)
    keys = jax.vmap(jax.random.key)(jnp.arange(8))
    run = jax.jit(lambda s: many.run(s, keys, {}, np.int32(0)))
    state = distributed.replicate(many.init(keys, {}), mesh)
    program = run.lower(state).compile()
    text = program.as_text()
    exchanged = [name for name in ("all-reduce", "all-gather", "all-to-all", "collective-permute")
                 if name in text]
    return np.asarray(program(state)[0].prior.mean), exchanged
a, nothing = divided(None)
for devices in (2, 8):
    b, nothing = divided(distributed.seed_mesh(jax.devices()[:devices]))
    worst[f"8 seeds divided among {devices}"] = float(
        (np.abs(a - b) / (np.abs(a) + 1e-2)).max()) + len(nothing)
print(json.dumps(worst))
"""


@functools.cache
def differences(*algorithms: str) -> dict[str, float]:
    """The largest relative difference to one device, by algorithm and number of devices."""
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM, *algorithms],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize("devices", [2, 8])
@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(name, marks=() if name in QUICK else pytest.mark.slow, id=name)
        for name in ALGORITHMS
    ],
)
def test_many_devices_end_where_one_ends(algorithm, devices):
    # Sums over tasks in another order: float64 rounding, which 5 meta-steps of Adam amplify.
    together = QUICK if algorithm in QUICK else (algorithm,)
    assert differences(*together)[f"{algorithm} on {devices}"] < 1e-9


# In float32. And 1 more for each kind of exchange among the devices, of which there is none.
@pytest.mark.parametrize(
    "case",
    [
        "2 seeds on 8",
        "8 seeds divided among 2",
        "8 seeds divided among 8",
        "a lost task on 2",
        "a lost task on 8",
        "a task that fails on 2",
        "a task that fails on 8",
    ],
)
def test_seeds_and_lost_tasks_on_many_devices_are_as_on_one(case):
    assert differences(*QUICK)[case] < 1e-3
