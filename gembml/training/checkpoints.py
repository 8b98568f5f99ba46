"""Checkpoints by orbax, verified on reading."""

import hashlib
import json
import pathlib
import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from gembml.training.errors import InputError

# One directory per step, `<step>/state` and `<step>/about.json`; orbax writes elsewhere and renames
# when done, and about.json, written last, makes the checkpoint count.
_ABOUT = "about.json"


class Restored(NamedTuple):
    """A checkpoint that was read and verified."""

    step: int
    state: Any
    seconds: float
    """Training time up to here, over all the run's processes."""
    carried: Any = None
    """What else was saved, JSON."""


def _digest(state: Any) -> str:
    """A checksum of all numbers of a pytree."""
    sha = hashlib.sha256()
    for leaf in jax.tree.leaves(state):
        array = np.asarray(leaf)
        sha.update(f"{array.dtype}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _arrays(state: Any) -> list[list[str]]:
    """Name, type and shape of every array of a pytree."""
    return [
        [jax.tree_util.keystr(path), f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"]
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    ]


def _checkpointer() -> ocp.StandardCheckpointer:
    """Orbax, of this process alone: by default it would wait for the run's other processes."""
    if jax.process_count() == 1:
        return ocp.StandardCheckpointer()
    index = jax.process_index()
    return ocp.StandardCheckpointer(
        multiprocessing_options=ocp.options.MultiprocessingOptions(
            primary_host=index, active_processes={index}, barrier_sync_key_prefix=f"of_{index}"
        )
    )


def _on_host(state: Any) -> Any:
    """Arrays that orbax does not take for one process's part of a distributed one."""
    return state if jax.process_count() == 1 else jax.tree.map(np.asarray, state)


class Checkpoints:
    """The newest ``keep`` checkpoints of a run, in one directory."""

    def __init__(self, directory: pathlib.Path, keep: int = 3) -> None:
        self._directory = directory.absolute()
        self._keep = keep

    def steps(self) -> list[int]:
        """The steps that have a complete checkpoint, ascending."""
        return sorted(
            int(path.parent.name)
            for path in self._directory.glob(f"*/{_ABOUT}")
            if path.parent.name.isdigit()
        )

    def save(self, step: int, state: Any, seconds: float, carried: Any = None) -> None:
        """Write a checkpoint, with ``carried`` as JSON, then drop the oldest beyond ``keep``."""
        self._directory.mkdir(parents=True, exist_ok=True)
        target = self._directory / str(step)
        if target.exists():  # left incomplete by a killed process, or found corrupt
            shutil.rmtree(target)
        with _checkpointer() as checkpointer:
            checkpointer.save(target / "state", _on_host(state))
        about = {
            "step": step,
            "seconds": seconds,
            "sha256": _digest(state),
            "arrays": _arrays(state),
            "carried": carried,
        }
        partial = target / (_ABOUT + ".partial")
        partial.write_text(json.dumps(about))
        partial.rename(target / _ABOUT)
        for old in self.steps()[: -self._keep]:
            shutil.rmtree(self._directory / str(old))

    def read(self, step: int, template: Any) -> Restored:
        """The checkpoint of ``step``, of arrays like those of ``template``; writes nothing.

        Raises:
          InputError: if it holds other arrays.
          Exception: of any kind, if it is damaged.
        """
        directory = self._directory / str(step)
        about = json.loads((directory / _ABOUT).read_text())
        self._check_arrays(step, about, template)
        with _checkpointer() as checkpointer:
            state = checkpointer.restore(directory / "state", _on_host(template))
        if _digest(state) != about["sha256"]:
            raise ValueError("its checksum does not match")
        return Restored(step, state, float(about["seconds"]), about.get("carried"))

    def _check_arrays(self, step: int, about: dict[str, Any], template: Any) -> None:
        """Refuse a checkpoint that is not of arrays like those of ``template``; old ones may be."""
        saved, wanted = about.get("arrays"), _arrays(template)
        if saved is not None and saved != wanted:
            differ = [(a, b) for a, b in zip(saved, wanted, strict=False) if a != b]
            there, here = differ[0] if differ else ([f"{len(saved)}"], [f"{len(wanted)}"])
            raise InputError(
                f"The checkpoint of step {step} in {self._directory} was written by code with "
                f"other arrays ({' '.join(there)} there, {' '.join(here)} here): use that code, or "
                "another directory."
            )

    def restore(self, template: Any) -> tuple[Restored | None, list[str]]:
        """The newest checkpoint that reads back right, and a sentence for each that does not.

        What does not read back is moved aside, to ``STEP.damaged``: the run goes on below its step
        and must be free to write there. So it is for the process that trains, and none else.

        Raises:
          InputError: if one holds other arrays than ``template``; nothing is moved. (One of a
            version that did not record its arrays is taken to be damaged.)
        """
        for step in self.steps():
            try:
                about = json.loads((self._directory / str(step) / _ABOUT).read_text())
            except ValueError:
                continue  # damaged: below
            self._check_arrays(step, about, template)
        complaints = []
        for path in sorted(self._directory.glob("*")):
            if path.name.isdigit() and not (path / _ABOUT).exists():
                complaints.append(f"The checkpoint of step {path.name} is incomplete: ignored.")
                shutil.rmtree(path)
        for step in reversed(self.steps()):
            try:
                return self.read(step, template), complaints
            # A damaged file can surface as any error of any layer below.
            except Exception as error:
                reason = str(error).split("\n", maxsplit=1)[0][:200]
                complaints.append(
                    f"The checkpoint of step {step} is damaged ({type(error).__name__}: {reason}): "
                    f"going on from {'the one before' if self.steps()[0] < step else 'the start'}."
                )
                aside = self._directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
        return None, complaints
