"""Time and memory of a meta-step by inner steps, from the command line to the report."""

import dataclasses
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import pytest

from experiments.few_shot_presets import preset
from experiments.report import render
from experiments.report_inputs import find_results
from experiments.tradeoffs_point import Point, measure
from gembml.options import OptionError
from tests.programs import Programs

SMALL = ("--config.filters=2", "--config.layers=2", "--config.meta_batch=1", "--config.queries=2")


@pytest.fixture(scope="module")
def tradeoffs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    """Runs the program quickly, many times."""
    with Programs(tmp_path_factory.mktemp("programs"), "tradeoffs") as server:
        yield server


def point(algorithm: str = "maml", max_seconds: float = 60.0, **changes: Any) -> Point:
    small = {"filters": 2, "layers": 2, "meta_batch": 1, "queries": 2, "inner_steps": 6}
    config = preset("tuned", algorithm, "mini_imagenet", 5, 1)
    return Point(algorithm, dataclasses.replace(config, **small | changes), 12, 1, max_seconds)


def test_a_run_gives_a_report_and_a_second_one_measures_what_is_missing(tradeoffs, tmp_path):
    arguments = (*SMALL, "--image_size=12", f"--workdir={tmp_path / 'run'}", "--inner_steps=1")
    first = tradeoffs.run(*arguments, "--algorithms=gem_bml_plus")
    assert first.code == 0, first.stderr
    assert "GEM-BML+, 1 inner step: " in first.stdout
    second = tradeoffs.run(*arguments, "--algorithms=gem_bml_plus,maml", "--max_seconds=1e-9")
    assert second.code == 0, second.stderr
    assert "GEM-BML+" not in second.stdout
    assert "MAML, 1 inner step: not timed: the first meta-step took " in second.stdout

    results = json.loads((tmp_path / "run" / "results.json").read_text())
    shared = {name: results[name] for name in ("experiment", "ways", "shots", "queries")}
    assert shared == {"experiment": "tradeoffs", "ways": 5, "shots": 1, "queries": 2}
    assert (results["filters"], results["image_size"], results["meta_batch"]) == (2, 12, 1)
    gem, maml = results["rows"]
    assert (gem["algorithm"], gem["inner_steps"], gem["query_steps"]) == ("gem_bml_plus", 1, 1)
    assert gem["ms_per_meta_step"] > 0
    assert gem["temporary_bytes"] > 0
    assert (maml["ms_per_meta_step"], maml["device_peak_bytes"]) == (None, None)
    assert maml["temporary_bytes"] > 0
    assert (tmp_path / "run" / "figure_2b.png").read_bytes().startswith(b"\x89PNG")

    inputs = find_results([str(tmp_path)])
    assert inputs.skipped == []
    text = render(inputs, tmp_path)
    assert "Not timed, by inner steps: MAML with 1 (the first meta-step took " in text
    assert "Further inner steps on the query set: as many: GEM-BML+; the others take none." in text

    other = tradeoffs.run(*arguments, "--algorithms=maml", "--config.layers=1")
    assert other.code == 2
    assert "holds another run, which differs in options.layers" in other.stderr


def test_memory_of_maml_grows_with_inner_steps_and_that_of_first_order_maml_does_not():
    # From 6 steps on: shorter loops that are differentiated are unrolled.
    sizes = {
        (name, steps): measure(point(name, inner_steps=steps)).temporary_bytes or 0
        for name in ("maml", "fomaml")
        for steps in (6, 12)
    }
    assert 0 < sizes["fomaml", 12] < 1.05 * sizes["fomaml", 6]
    assert sizes["maml", 12] - sizes["maml", 6] > 50_000


def test_a_point_that_cannot_be_built_is_refused():
    with pytest.raises(OptionError, match=r"tasks_at_once must divide the 3 tasks"):
        measure(point(meta_batch=3, tasks_at_once=2))
    with pytest.raises(OptionError, match=r"5 poolings leave nothing of an image"):
        measure(point(layers=5))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--algorithms=pretrain"], "--algorithms must be one of gem_bml_plus, gem_bml, "),
        (["--config.inner_steps=3"], "is what is compared, and written --inner_steps=1,5"),
        (["--inner_steps=0"], "--inner_steps must be different whole numbers of at least 1"),
        (["--algorithms=maml", "--config.layers=5", "--image_size=12"], "5 poolings leave nothing"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_refused_in_one_sentence(
    tradeoffs, tmp_path: pathlib.Path, arguments, sentence
):
    finished = tradeoffs.run(f"--workdir={tmp_path / 'run'}", *arguments)
    assert (finished.code, finished.stdout) == (2, "")
    assert finished.stderr.startswith("error: ")
    assert finished.stderr.count("\n") == 1
    assert sentence in finished.stderr
