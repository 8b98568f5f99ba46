"""RESULTS.md says what the stored results say, and nothing else."""

import pytest

from experiments.report import BEGIN, END, bring_benchmark, render, replaced
from experiments.report_inputs import find_results
from gembml.training import InputError
from tests.programs import ROOT


def test_the_tables_of_results_md_are_those_of_the_stored_results(tmp_path):
    text = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    stored = ROOT / "experiments" / "results"
    bring_benchmark([str(stored)], tmp_path)
    report = render(find_results([str(stored)]), tmp_path)
    assert replaced(text, report, "experiments/results") == text


def test_the_benchmark_is_that_of_the_first_directory_that_has_one(tmp_path):
    empty, first, second, output = (tmp_path / name for name in ("empty", "first", "second", "out"))
    for directory in (empty, first, second, output):
        directory.mkdir()
    for directory in (first, second, output):
        (directory / "benchmark.json").write_text(directory.name, encoding="utf-8")
    bring_benchmark([str(empty), str(output)], output)
    assert (output / "benchmark.json").read_text(encoding="utf-8") == "out"
    bring_benchmark([str(empty), str(first), str(second)], output)
    assert (output / "benchmark.json").read_text(encoding="utf-8") == "first"


def test_only_what_stands_between_the_markers_is_replaced():
    text = f"Before.\n{BEGIN}\nold\n{END}\nAfter.\n"
    expected = f"Before.\n{BEGIN}\n![new](figures/a.png)\n{END}\nAfter.\n"
    assert replaced(text, "![new](a.png)", "figures") == expected


@pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}", f"{BEGIN}\n{BEGIN}\n{END}"])
def test_a_file_without_both_markers_in_order_is_refused(text):
    with pytest.raises(InputError, match=r"--into must name a file that holds one .* then one"):
        replaced(text, "", ".")
