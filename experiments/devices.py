"""Flags for many devices and processes, the same in every program that trains."""

import functools
import os
import socket

import jax
from absl import flags
from jax.sharding import Mesh

from gembml import distributed
from gembml.training import InputError

_DEVICES = flags.DEFINE_string(
    "devices",
    None,
    "devices that share the seeds, or else a meta-step's tasks: a number, or all; unset: 1 or all",
)
_CPU_DEVICES = flags.DEFINE_integer("cpu_devices", None, "make this process's CPU so many devices")
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "HOST:PORT of process 0, to train with several processes"
)
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "how many processes there are")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "which of them this is, from 0 on")
_DISTRIBUTED = flags.DEFINE_boolean(
    "distributed", False, "find the other processes from the cluster: Slurm or Open MPI"
)
_TIMEOUT = flags.DEFINE_float("coordinator_timeout", 60, "seconds to wait for the others to start")
_LOST_AFTER = flags.DEFINE_float("lost_after", 60, "seconds of silence that mean a lost process")


def _integer(flag: str, value: int | None, least: int, most: int) -> int:
    if value is None or not least <= value <= most:
        raise InputError(f"--{flag} must be at least {least} and at most {most}, not {value}.")
    return value


def _connect() -> None:
    """Join the other processes, if the flags speak of any."""
    alone = (_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value) == (None, None, None)
    for flag in (_TIMEOUT, _LOST_AFTER):
        if not 3 <= flag.value <= 86_400:
            raise InputError(
                f"--{flag.name} must be at least 3 and at most 86400 seconds, not {flag.value:g}."
            )
    join = functools.partial(
        distributed.connect, timeout=_TIMEOUT.value, lost_after=_LOST_AFTER.value
    )
    if _DISTRIBUTED.value:
        if not alone:
            raise InputError(
                "--distributed finds the processes itself: leave --coordinator, --num_processes "
                "and --process_id out."
            )
        if not {"SLURM_STEP_NODELIST", "OMPI_MCA_orte_hnp_uri"} & set(os.environ):
            raise InputError(
                "--distributed needs processes started by Slurm's srun or by Open MPI, and this is "
                "none: name --coordinator, --num_processes and --process_id."
            )
        join(None, None, None)
        return
    if alone:
        return
    if _COORDINATOR.value is None:
        raise InputError("--num_processes and --process_id need --coordinator=HOST:PORT.")
    host, _, port = _COORDINATOR.value.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise InputError(
            f"--coordinator must be HOST:PORT, as in 10.0.0.1:1234, not {_COORDINATOR.value!r}."
        )
    count = _integer("num_processes", _NUM_PROCESSES.value, 2, 100_000)
    index = _integer("process_id", _PROCESS_ID.value, 0, count - 1)
    if index == 0:
        _check_free(int(port))
    join(_COORDINATOR.value, count, index)


def _check_free(port: int) -> None:
    """Refuse a port that is taken: JAX would end without a word."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            raise InputError(
                f"--coordinator: port {port} cannot be opened here ({error.strerror}): name "
                "another."
            ) from error


def run_mesh(meta_batch: int, seeds: int) -> Mesh | None:
    """The devices that the flags ask for, or None for one; joins the other processes first.

    They share the seeds if their number divides that of the seeds, since whole runs need nothing
    from each other; otherwise a meta-step's tasks.

    Raises:
      InputError: if there are not so many, or they divide neither.
    """
    if _CPU_DEVICES.value is not None:
        jax.config.update("jax_num_cpu_devices", _integer("cpu_devices", _CPU_DEVICES.value, 1, 64))
    asked = _DEVICES.value
    if asked not in (None, "all") and not (asked.isdecimal() and int(asked)):
        raise InputError(f"--devices must be a number of at least 1, or all, not {asked!r}.")
    _connect()
    processes = distributed.team().count
    devices = jax.devices()
    every = asked == "all" or (asked is None and processes > 1)
    number = len(devices) if every else int(asked or 1)
    if number > len(devices):
        raise InputError(
            f"--devices={number} asks for more than there are: {len(devices)} "
            f"{devices[0].platform.upper()} device{'s' if len(devices) > 1 else ''}."
        )
    if processes > 1 and number != len(devices):
        raise InputError(
            f"--devices must be all with several processes, which have {len(devices)} in all, "
            f"not {number}."
        )
    if number == 1:
        return None
    if seeds % number == 0:
        return distributed.seed_mesh(devices[:number])
    if meta_batch % number:
        raise InputError(
            f"{number} devices must divide config.meta_batch, and here it is {meta_batch}"
            + (f"; or --seeds, which is {seeds}." if seeds > 1 else ".")
        )
    return distributed.task_mesh(devices[:number])
