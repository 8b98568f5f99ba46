"""Few-shot image classification: Section 5.2, tables 2 and 3 of the paper.

    python -m experiments.few_shot --dataset=omniglot --data_dir=DIR --ways=5 --shots=1 \
        --algorithm=gem_bml_plus --workdir=DIR

Trains on episodes of ``--dataset`` and writes into ``--workdir`` what 600 test episodes of unseen
classes say: ``results.json``, figures, metrics (JSON lines and TensorBoard) and checkpoints. The
same command goes on where it was stopped. ``--dataset=image_folder`` takes folders of images of the
user's own, one per class.
"""

import pathlib
from typing import Any

from absl import flags

from experiments import command_line  # before jax: it sets XLA's flags

# isort: split
from experiments import devices
from experiments.few_shot_presets import PRESETS, FewShotConfig, preset
from experiments.few_shot_run import run_experiment
from experiments.training_flags import training_flags
from gembml import distributed
from gembml.tasks import datasets, omniglot
from gembml.training import InputError

_DATASET = flags.DEFINE_string("dataset", "omniglot", f"one of {', '.join(datasets.DATASETS)}")
_DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "folder of the data; unset: the folder that GEMBML_DATA_DIR names, if any"
)
_SPLIT = flags.DEFINE_string(
    "split", None, f"omniglot: one of {', '.join(omniglot.SPLITS)} (unset: random_1100)"
)
_ALLOW_PICKLE = flags.DEFINE_boolean(
    "allow_pickle", False, "mini_imagenet: read pickles, which can run any code that is in them"
)
_IMAGE_SIZE = flags.DEFINE_integer("image_size", None, "image_folder: pixels a side (unset: 84)")
_CHANNELS = flags.DEFINE_integer("channels", None, "image_folder: 1 (grey) or 3 (unset: 3)")
_WAYS = flags.DEFINE_integer("ways", 5, "classes per task")
_SHOTS = flags.DEFINE_integer("shots", 1, "support images per class")
_read = training_flags(PRESETS, meta_steps=60_000)


def summary(results: dict[str, Any]) -> str:
    """The results as a few lines for the terminal."""
    metrics = results["metrics"]
    modes = {results["config"]["normalisation"]: metrics}
    if "support_statistics" in results:
        modes["support"] = results["support_statistics"]
    lines = []
    for mode, values in modes.items():
        lines.append(f"batch norm: {mode}")
        lines.append(f"{'adaptation steps':>18}" + "".join(f"{s:>9}" for s in values["accuracy"]))
        for name in ("accuracy", "accuracy_ci95", "nll", "ece", "mce"):
            cells = (
                f"{'diverged':>9}" if value is None else f"{value:>9.4f}"
                for value in values[name].values()
            )
            lines.append(f"{name:>18}" + "".join(cells))
    return "\n".join(lines)


def _either(name: str, holder: flags.FlagHolder) -> int:
    """``--NAME`` or ``--config.NAME``, on which the preset depends.

    Raises:
      InputError: if both are given and differ.
    """
    in_config = flags.FLAGS[f"config.{name}"].value
    if in_config is None:
        return holder.value
    if flags.FLAGS[name].present and holder.value != in_config:
        raise InputError(
            f"--{name}={holder.value} and --config.{name}={in_config} are one option: give one."
        )
    return in_config


def data_options() -> dict[str, Any]:
    """The options of the data set that the flags give; it refuses those that it does not have."""
    given = {
        "split": _SPLIT.value,
        "allow_pickle": _ALLOW_PICKLE.value or None,
        "image_size": _IMAGE_SIZE.value,
        "channels": _CHANNELS.value,
    }
    return {name: value for name, value in given.items() if value is not None}


# What the split is called where there is no flag for it.
_SPLITS = {"omniglot": "random_1100", "mini_imagenet": "ravi_larochelle"}


def main(argv: list[str]) -> None:
    """Run the program that the flags describe."""
    command_line.no_arguments(argv)
    if (run := _read(1)) is None:
        return
    command_line.choose("dataset", datasets.DATASETS, _DATASET.value)
    ways = command_line.in_range("ways", _either("ways", _WAYS), 2, 1_000)
    shots = command_line.in_range("shots", _either("shots", _SHOTS), 1, 1_000)
    config = command_line.override(
        preset(run.preset, run.algorithm, _DATASET.value, ways, shots), run.algorithm
    )
    mesh = devices.run_mesh(config.meta_batch, 1)
    splits = datasets.load(
        _DATASET.value,
        pathlib.Path(_DATA_DIR.value).expanduser() if _DATA_DIR.value else None,
        **data_options(),
    )
    results = run_experiment(
        run.algorithm,
        _DATASET.value,
        _SPLIT.value or _SPLITS.get(_DATASET.value, "own"),
        splits,
        config,
        seed=run.seed,
        meta_steps=run.meta_steps,
        workdir=run.workdir,
        command=command_line.command("experiments.few_shot"),
        mesh=mesh,
    )
    if distributed.team().first:
        print(summary(results))
        print(f"Results and figures: {pathlib.Path(run.workdir) / 'results.json'}")


if __name__ == "__main__":
    command_line.define_config_flags(FewShotConfig)
    command_line.run(main)
