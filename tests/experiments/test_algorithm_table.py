"""What ``--list`` prints."""

import pytest

from experiments import style
from experiments.algorithm_table import algorithm_table
from experiments.search_grid import grid
from experiments.sinusoid_presets import PRESETS, preset
from gembml import ALGORITHMS


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_algorithm_is_listed_with_its_choices_and_has_a_preset_a_label_and_a_grid(name):
    row = ALGORITHMS[name]
    line = next(line for line in algorithm_table().splitlines() if line.split()[:1] == [name])
    assert all(
        cell in line for cell in (row.family, row.estimator.name, row.objective, row.reference)
    )
    assert row.build.__doc__
    assert name in PRESETS["tuned"]
    preset("tuned", name, "default")
    assert name in style.LABELS
    assert [len(rates) for rates in grid(name)] == [3, 3]
