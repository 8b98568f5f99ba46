"""The meta-step on 1, 2 and 8 devices: the same prior, whatever the algorithm.

In a process of its own, since JAX counts a CPU's devices when it starts.
"""

import json
import subprocess
import sys

import pytest

from tests.programs import ROOT

_PROGRAM = """
import json, sys
import jax
jax.config.update("jax_num_cpu_devices", 8)
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
    state = distributed.replicate(learner.init(jax.random.key(0)), mesh)
    run = jax.jit(meta_steps(learner, sample_tasks, jax.random.key(1), 5))
    state, metrics = run(state, np.int32(0))
    return (*jax.tree.leaves(state.prior), metrics.meta_gradient_norm)

worst = {}
for algorithm in sys.argv[1:]:
    one = end(algorithm, 1)
    for devices in (2, 8):
        for a, b in zip(one, end(algorithm, devices), strict=True):
            error = np.abs(np.asarray(a) - np.asarray(b)) / (np.abs(np.asarray(a)) + 1e-2)
            worst[f"{algorithm} on {devices}"] = max(
                worst.get(f"{algorithm} on {devices}", 0.0), float(error.max()))

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


@pytest.fixture(scope="module")
def differences() -> dict[str, float]:
    """The largest relative difference to one device, by algorithm and number of devices."""
    finished = subprocess.run(
        [sys.executable, "-c", _PROGRAM, "gem_bml_plus", "maml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    "case",
    [
        *(f"{algorithm} on {n}" for algorithm in ("gem_bml_plus", "maml") for n in (2, 8)),
        "2 seeds on 8",
        # And 1 more for each kind of exchange among the devices, of which there is none.
        *(f"8 seeds divided among {n}" for n in (2, 8)),
    ],
)
def test_many_devices_end_where_one_ends(differences, case):
    # Sums over tasks in another order: float32 rounding, which 5 meta-steps of Adam amplify.
    assert differences[case] < 1e-3
