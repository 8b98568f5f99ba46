"""Every table and figure from the runs' ``results.json``.

    python -m experiments.report DIR... --output=DIR [--into=RESULTS.md]

Finds all ``results.json`` below the given directories and writes ``report.md`` and figures into
``--output``. Time and memory of the sinusoid's tables are those of ``benchmark.json``, which
``experiments.benchmark`` writes, in the first given directory that has one, or in ``--output``.
With ``--into`` the same text also replaces what stands between the lines ``<!-- results:begin -->``
and ``<!-- results:end -->`` of that file.
"""

import os
import pathlib
import re
import shutil

from absl import flags

from experiments import command_line
from experiments.output_directory import make_directory
from experiments.report_few_shot import few_shot
from experiments.report_inputs import Inputs, find_results
from experiments.report_meta_gradient import meta_gradient_error
from experiments.report_rl import reinforcement_learning
from experiments.report_tables import SECTIONS, Section
from experiments.report_tradeoffs import tradeoffs
from gembml.training import InputError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
_SECTIONS: dict[str, Section] = {
    **SECTIONS,
    "few_shot": few_shot,
    "reinforcement_learning": reinforcement_learning,
    "tradeoffs": tradeoffs,
    "meta_gradient_error": meta_gradient_error,
}
# Sections of more than one experiment.
_TOGETHER = {"reinforcement_learning": ("navigation", "half_cheetah")}


def render(inputs: Inputs, output: pathlib.Path) -> str:
    """The report's Markdown; its figures are written into ``output``."""
    sections = []
    for experiment, section in _SECTIONS.items():
        names = _TOGETHER.get(experiment, (experiment,))
        results = [run for run in inputs.results if run["experiment"] in names]
        if results:
            sections.append(section(results, output))
    return "\n\n".join(sections)


def replaced(text: str, report: str, figures: str) -> str:
    """``text`` with ``report`` between its markers, and image links that begin with ``figures``.

    Raises:
      InputError: if the two markers are not there once each, in order.

    """
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise InputError(f"--into must name a file that holds one {BEGIN} and then one {END}.")
    prefix = "" if figures == "." else figures + "/"
    report = re.sub(r"\]\((?=[\w.-]+\.png\))", lambda _: f"]({prefix}", report)
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{report}\n{END}{rest.split(END)[1]}"


_OUTPUT = flags.DEFINE_string("output", None, "directory for report.md and the figures")
_INTO = flags.DEFINE_string("into", None, "file whose results section is replaced")


def _read(path: str) -> str:
    try:
        return pathlib.Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"--into={path} cannot be read ({error.strerror}): name a text file."
        ) from error


def bring_benchmark(directories: list[str], output: pathlib.Path) -> None:
    """Copy the first directory's ``benchmark.json`` to the output, if any has one."""
    own = output / "benchmark.json"
    for directory in directories:
        measured = pathlib.Path(directory) / "benchmark.json"
        if measured.exists():
            if measured.resolve() != own.resolve():
                shutil.copy(measured, own)
            return


def main(argv: list[str]) -> None:
    """Write the report that the flags describe."""
    if not argv[1:]:
        raise InputError("Name at least one directory that holds runs.")
    if not _OUTPUT.value:
        raise InputError("--output=DIR is needed: the directory to write to.")
    text = _read(_INTO.value) if _INTO.value else ""
    if _INTO.value:
        replaced(text, "", ".")  # missing markers show before anything is written
    inputs = find_results(argv[1:])
    for line in inputs.skipped:
        print(f"Skipped {line}")
    output = make_directory("output", _OUTPUT.value)
    bring_benchmark(argv[1:], output)
    report = render(inputs, output)
    (output / "report.md").write_text(f"# Results\n\n{report}\n", encoding="utf-8")
    count = len(inputs.results)
    print(f"{count} result{'' if count == 1 else 's'}: {output / 'report.md'}")
    if _INTO.value:
        file = pathlib.Path(_INTO.value)
        figures = os.path.relpath(output.resolve(), file.resolve().parent)
        file.write_text(replaced(text, report, pathlib.Path(figures).as_posix()), encoding="utf-8")
        print(f"Results replaced in {file}")


if __name__ == "__main__":
    command_line.run(main)
