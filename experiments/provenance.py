"""Where a number was measured: device, versions and the code's revision beside every result."""

import os
import pathlib
import platform
import subprocess
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


def _git(*arguments: str) -> str:
    directory = pathlib.Path(__file__).parent
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _revision() -> dict[str, str]:
    try:
        changed = ", changed" if _git("status", "--porcelain", "--untracked-files=no") else ""
        return {"revision": _git("rev-parse", "--short=12", "HEAD") + changed}
    except (OSError, subprocess.CalledProcessError):
        return {}  # no checkout


# Of the code as it was loaded: a checkout may change under a long run.
_LOADED = _revision()


def provenance() -> dict[str, Any]:
    """``device`` and ``versions`` for a ``results.json``, and ``revision`` in a git checkout."""
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
        **_LOADED,
    }
