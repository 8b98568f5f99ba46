"""Appendix C.1: the measurements behind the figure, a tiny run end to end, and bad flags."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gradient_errors, meta_gradient_run, variance_ratio
from experiments.report import render
from experiments.report_inputs import find_results
from gembml import Gaussian, gem_gradient
from tests.programs import ROOT

pytestmark = pytest.mark.usefixtures("float64")
TINY = meta_gradient_run.Options(
    seed=0, runs=2, problems=6, inner_steps=[2, 40], learning_rate=0.02, tasks=500, repeats=60
)


@pytest.fixture(scope="module")
def workdir(request, tmp_path_factory):
    """A run whose regimes all share one program: exact expectations compile fast."""
    request.getfixturevalue("float64")
    directory = tmp_path_factory.mktemp("meta_gradient_error")
    exact = gradient_errors.REGIMES["exact"].expectation
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(gradient_errors.ESTIMATORS, "L2_elbo_difference")
        for name, regime in gradient_errors.REGIMES.items():
            patch.setitem(gradient_errors.REGIMES, name, regime._replace(expectation=exact))
        meta_gradient_run.run_meta_gradient_error(
            TINY, workdir=str(directory), command="python -m experiments.meta_gradient_error"
        )
    return directory


def test_a_run_leaves_results_table_and_figure(workdir):
    results = json.loads((workdir / "results.json").read_text())
    assert results["experiment"] == "meta_gradient_error"
    assert results["device"].startswith("CPU")
    assert set(results["metrics"]) == {"error", "bound", "worst_start", "variance_ratio"}
    errors = results["metrics"]["error"]
    assert list(errors) == list(gradient_errors.REGIMES)
    for by_steps in errors["exact"].values():
        assert by_steps["40"]["low"] <= by_steps["40"]["median"] <= by_steps["40"]["high"]
        assert by_steps["40"]["median"] < by_steps["2"]["median"]
    # Equal expectations, so only the rates tell the regimes apart.
    assert errors["one_sample"] == errors["exact"]
    assert errors["one_sample_decaying"]["L1_gem"]["40"] != errors["exact"]["L1_gem"]["40"]
    # Both regimes of the figure: far from convergence and near it.
    exact = errors["exact"]
    assert exact["L1_gem"]["2"]["median"] < exact["L1_elbo"]["2"]["median"]
    assert exact["L1_gem"]["40"]["median"] > exact["L1_elbo"]["40"]["median"]
    bound = results["metrics"]["bound"]
    assert [found["valid_violated"] for found in bound.values()] == [0.0] * 3
    assert (bound["0"]["infinite"], bound["0"]["error"]) == (1.0, 1.0)  # Q = P(theta | Theta)
    assert results["metrics"]["worst_start"]["error_over_printed"] > 1
    assert (workdir / "appendix_figure_1.png").read_bytes().startswith(b"\x89PNG")
    assert "I_m / (I_m − I_k)" in (workdir / "table.md").read_text(encoding="utf-8")


def test_the_report_has_a_section_for_it(workdir, tmp_path):
    report = render(find_results([str(workdir)]), tmp_path)
    assert "### Error of the meta-gradient (appendix C.1, A.2 and A.3)" in report
    assert "(appendix_figure_1.png)" in report
    assert "--workdir=DIR" in report
    assert (tmp_path / "appendix_figure_1.png").exists()


def test_steps_of_rate_0_change_nothing():
    instances = gradient_errors.sample_instances(jax.random.key(0), 4)
    expectation = gradient_errors.REGIMES["exact"].expectation
    rates = gradient_errors.step_sizes(6, 6, 0.01, decaying=True)
    alone = gradient_errors.error_of("L1_gem", expectation, 6)(instances, jnp.asarray(rates))
    padded_rates = gradient_errors.step_sizes(6, 8, 0.01, decaying=True)
    padded = gradient_errors.error_of("L1_gem", expectation, 8)
    np.testing.assert_allclose(padded(instances, jnp.asarray(padded_rates)), alone, rtol=1e-9)


@pytest.mark.parametrize(("variance", "k"), [(0.01, 5), (0.1, 2), (1.0, 5)])
def test_simulated_variance_ratios_equal_the_exact_ones(variance, k):
    moments = variance_ratio.simulate(np.random.default_rng(0), 2000, 1000, 10, [k], variance)
    l1 = variance_ratio.maximise_l1(moments[10])
    l2 = variance_ratio.maximise_l2(moments[10], moments[k])
    assert l2.converged.all()
    for name in variance_ratio.PARAMETERS:
        simulated = variance_ratio.variance_ratio(getattr(l1, name), getattr(l2, name))
        exact = variance_ratio.exact_ratio(name, 10, k, variance)
        # The interval is 1.96 standard errors of the log: five, and 3% for 2000 tasks.
        five = (simulated.high / simulated.ratio) ** (5 / 1.96) * 1.03
        assert simulated.ratio / five < exact < simulated.ratio * five


def test_limits_of_the_exact_ratio():
    printed = variance_ratio.printed_ratio(10, 4)
    noisy, clear = 1e-9, 1e3
    np.testing.assert_allclose(variance_ratio.exact_ratio("mean", 10, 4, noisy), printed, 1e-6)
    of_variance = variance_ratio.exact_ratio("variance", 10, 4, noisy)
    np.testing.assert_allclose(of_variance, printed * 10 / 14, 1e-6)
    np.testing.assert_allclose(
        variance_ratio.exact_ratio("mean", 10, 4, clear), printed * (1 + 4 * clear), 1e-6
    )
    assert variance_ratio.exact_ratio("variance", 10, 4, clear) > printed


def test_the_l2_estimate_is_a_root_of_gradient_em_with_exact_posteriors():
    # Means of the first k and of all m data of each task, as one replicate's moments hold them.
    random, m, k = np.random.default_rng(0), 10, 4
    data = random.standard_normal((500, 1)) + random.standard_normal((500, m))
    means = {j: data[:, :j].mean(axis=1) for j in (k, m)}
    moments = {
        j: variance_ratio.Moments(np.array([v.mean()]), np.array([(v**2).mean()]), j)
        for j, v in means.items()
    }
    found = variance_ratio.maximise_l2(moments[m], moments[k])
    prior = Gaussian(jnp.array(found.mean[0]), jnp.array(0.5 * np.log(found.variance[0])))

    def gradient(j: int) -> Gaussian:
        precision = jnp.exp(-2 * prior.log_std) + j
        mean = (jnp.exp(-2 * prior.log_std) * prior.mean + j * means[j]) / precision
        posteriors = Gaussian(mean, jnp.full_like(mean, -0.5 * jnp.log(precision)))
        return jax.tree.map(jnp.mean, jax.vmap(lambda q: gem_gradient(prior, q))(posteriors))

    difference = jax.tree.map(jnp.subtract, gradient(m), gradient(k))
    np.testing.assert_allclose(difference.mean, 0.0, atol=1e-8)
    np.testing.assert_allclose(difference.log_std, 0.0, atol=1e-8)


# One process that imports the program once and forks a child for each flag.
CHILDREN = """
import os, sys
from experiments import command_line, meta_gradient_error
common, *flags = sys.argv[1:]
for flag in flags:
    if os.fork() == 0:
        sys.argv = ["meta_gradient_error.py", common, flag]
        command_line.run(meta_gradient_error.main)
    print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""


def test_bad_flags_end_with_exit_code_2_and_one_sentence(tmp_path):
    refused = {
        "--inner_steps=1,1": "--inner_steps must be different whole numbers of at least 1",
        "--problems=5": "--problems must be at least 6",
        "--learning_rate=nan": "--learning_rate must be above 0, not nan.",
        "--seed=many": "--seed takes a whole number, not 'many'.",
        "--workdir=": "--workdir=DIR is needed",
    }
    finished = subprocess.run(
        [sys.executable, "-c", CHILDREN, f"--workdir={tmp_path / 'run'}", *refused],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.stdout.split() == ["2"] * len(refused), finished
    lines = finished.stderr.splitlines()
    for line, sentence in zip(lines, refused.values(), strict=True):
        assert line.startswith(f"error: {sentence}")
    assert list(tmp_path.iterdir()) == []
