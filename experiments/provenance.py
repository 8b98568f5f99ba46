"""Where a number was measured: the device and the versions beside every result."""

import os
import platform
from importlib import metadata
from typing import Any

import jax


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def provenance() -> dict[str, Any]:
    """``device`` and ``versions`` for a ``results.json``."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        # The cores that this process may use, which a container or taskset can restrict.
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        name = f"CPU, {_cpu_model()}, {cores} core{'s' if cores != 1 else ''}"
    else:
        name = device.device_kind
    packages = ("jax", "jaxlib", "flax", "optax", "distrax", "numpy")
    return {
        "device": name,
        "versions": {
            "python": platform.python_version(),
            "gembml": metadata.version("gembml"),
            **{package: metadata.version(package) for package in packages},
        },
    }
