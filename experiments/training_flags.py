"""The flags of every program that trains one algorithm by its presets."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from absl import flags

from experiments import command_line
from experiments.algorithm_table import algorithm_table
from gembml import ALGORITHMS

flags.disclaim_key_flags()  # they are the program's own, and listed by its --help


class Training(NamedTuple):
    """What the flags say."""

    algorithm: str
    preset: str
    workdir: str
    meta_steps: int
    seed: int


def training_flags(presets: Mapping[str, Any], meta_steps: int) -> Callable[[int], Training | None]:
    """Define the flags; ``meta_steps`` is the default.

    Returns:
      ``read(seeds)``, which checks them for a run of so many seeds, from --seed on. It returns None
      if --list asks for the table of algorithms, which it prints, and raises InputError for a value
      that is not allowed.
    """
    algorithm = flags.DEFINE_string("algorithm", "gem_bml_plus", f"one of {', '.join(ALGORITHMS)}")
    preset = flags.DEFINE_string("preset", "tuned", f"one of {', '.join(presets)}")
    steps = flags.DEFINE_integer("meta_steps", meta_steps, "meta-steps in all")
    seed = flags.DEFINE_integer("seed", 0, "seed of the prior and of the training tasks")
    workdir = flags.DEFINE_string("workdir", None, "directory of the run; resumed if it holds it")
    table = flags.DEFINE_boolean("list", False, "print the table of algorithms and do nothing else")

    def read(seeds: int) -> Training | None:
        if table.value:
            print(algorithm_table())
            return None
        command_line.choose("algorithm", ALGORITHMS, algorithm.value)
        command_line.choose("preset", presets, preset.value)
        return Training(
            algorithm.value,
            preset.value,
            command_line.given("workdir", workdir.value),
            command_line.in_range("meta_steps", steps.value, 1),
            command_line.in_range("seed", seed.value, 0, 2**32 - seeds),
        )

    return read
