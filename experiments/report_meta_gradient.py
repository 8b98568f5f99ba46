"""The report's section of appendix C.1, with A.2 and A.3: tables, figure and what they say."""

import math
import pathlib
from typing import Any

from experiments.appendix_figure_1 import appendix_figure_1
from experiments.report_groups import generalised
from experiments.report_inputs import Results
from experiments.report_tables import table

_REGIMES = {
    "exact": "exact",
    "one_sample": "one sample",
    "antithetic_pair": "antithetic pair",
    "one_sample_decaying": "one sample, rate to 0",
}
_ESTIMATORS = {
    "L1_gem": "L1, Gradient-EM",
    "L1_elbo": "L1, ELBO gradient",
    "L2_gem": "L2, Gradient-EM",
    "L2_elbo": "L2, ELBO gradient",
    "L2_elbo_difference": "L2, ELBO gradient as L1 − L1",
}
_COLUMNS = 6  # numbers of inner steps in a table


def _digits(value: float | None) -> str:
    return "∞" if value is None else f"{value:.2g}" if value < 0.001 else f"{value:#.3g}"


def _percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def _interval(found: dict[str, Any], name: str) -> str:
    return f"{_digits(found[name])} [{_digits(found['low'])}, {_digits(found['high'])}]"


def _shown(steps: list[int]) -> list[str]:
    """At most ``_COLUMNS`` of the steps, evenly, the last among them."""
    stride = -(-len(steps) // _COLUMNS)
    return [str(step) for step in steps[::-1][::stride][::-1]]


def _error_table(results: Results) -> str:
    shown = _shown(results["inner_steps"])
    header = [
        "expectations",
        "estimator",
        *(f"{step} step{'' if step == '1' else 's'}" for step in shown),
        "diverged",
    ]
    rows = []
    for regime, by_name in results["metrics"]["error"].items():
        for name, by_steps in by_name.items():
            cells = [_interval(by_steps[step], "median") for step in shown]
            diverged = max(found["diverged"] for found in by_steps.values())
            rows.append([_REGIMES[regime], _ESTIMATORS[name], *cells, _percent(diverged)])
    return table(header, rows, left=2)


def _bound_table(bound: dict[str, Any]) -> str:
    header = ["inner steps", "error of Gradient-EM, L1", "M √(2 KL), printed", "M √χ², valid"]
    header += ["χ² infinite", "printed bound violated", "valid bound violated"]
    rows = [
        [
            step,
            *(_digits(found[name]) for name in ("error", "printed", "valid")),
            *(_percent(found[n]) for n in ("infinite", "printed_violated", "valid_violated")),
        ]
        for step, found in bound.items()
    ]
    return table(header, rows)


def _ratio_table(results: Results) -> str:
    header = ["estimated", "σ² / noise variance", "k of m", "simulated", "I_m / (I_m − I_k)"]
    header += ["printed m / (m − k)"]
    rows = []
    for variance, by_parameter in results["metrics"]["variance_ratio"].items():
        for parameter, by_split in by_parameter.items():
            for k, found in by_split.items():
                cells = [_interval(found, "simulated"), _digits(found["exact"])]
                split = f"{k} of {results['data_per_task']}"
                name = {"mean": "mean μ", "variance": "variance σ²"}[parameter]
                rows.append([name, variance, split, *cells, _digits(found["printed"])])
    return table(header, rows, left=3)


def tables(results: Results) -> str:
    """The three tables: errors, bound, variance ratio."""
    parts = [_error_table(results), _bound_table(results["metrics"]["bound"])]
    return "\n\n".join([*parts, _ratio_table(results)])


def _elbo_lower(by_name: dict[str, Any], objective: str) -> str:
    """After which numbers of steps the ELBO gradient's median is below Gradient-EM's."""

    def median(name: str, step: str) -> float:
        value = by_name[f"{objective}_{name}"][step]["median"]
        return math.inf if value is None else value

    steps = by_name[f"{objective}_gem"]
    lower = [step for step in steps if median("elbo", step) < median("gem", step)]
    if not lower:
        return "after no measured number of steps"
    return f"after {', '.join(lower)} step{'' if lower == ['1'] else 's'}"


def _explanation(results: Results) -> list[str]:
    errors, worst = results["metrics"]["error"], results["metrics"]["worst_start"]
    count = results["runs"] * results["problems"]
    last = str(results["inner_steps"][-1])
    ends = {name: errors["one_sample"][name][last] for name in ("L1_gem", "L1_elbo", "L2_gem")}
    decayed = errors["one_sample_decaying"]
    bound = results["metrics"]["bound"]
    converged = min(
        found["converged"]
        for by_parameter in results["metrics"]["variance_ratio"].values()
        for by_split in by_parameter.values()
        for found in by_split.values()
    )
    largest = max(found["largest_error_over_printed"] for found in bound.values())
    return [
        f"Relative error |g − g*| / |g*| in (mean, log_std) of the prior, median over {count:,} "
        f"problems ({results['runs']} random runs of {results['problems']}) with its 95% interval "
        "by order statistics; bars in the figure, where shading is the middle half of the "
        f"problems. Plain gradient steps of {results['learning_rate']:g} on (mean, log_std), both "
        "posteriors by sequential Bayes, float64. Diverged runs count as infinite; their share is "
        "the largest over numbers of steps. The paper gives a figure without numbers.",
        "**Both regimes.** Far from convergence Gradient-EM is closer to the exact gradient. Where "
        "expectations are exact the ELBO gradient overtakes it near convergence (its median is "
        f"lower {_elbo_lower(errors['exact'], 'L1')} for L1, "
        f"{_elbo_lower(errors['exact'], 'L2')} for L2): the ELBO is flat in λ at its optimum, so "
        "that the error of its derivative is quadratic in the distance to the optimum, that of "
        "Gradient-EM linear. For L2 as the paper's chain of two loops only the "
        "second one ends in a flat place, and the advantage is small; the difference of two L1 "
        "bounds has it in full. Where one sample is drawn per step the ELBO gradient also takes "
        "the gradient of one noisy sample at the end, which no number of steps averages: after "
        f"{last} steps its error is {_digits(ends['L1_elbo']['median'])} for L1 against "
        f"{_digits(ends['L1_gem']['median'])} of Gradient-EM, and it is lower "
        f"{_elbo_lower(errors['one_sample'], 'L1')} for L1, "
        f"{_elbo_lower(errors['one_sample'], 'L2')} for L2. An antithetic pair, which makes the "
        "gradient of the mean exact here, lies between the two regimes: the ELBO gradient is "
        f"lower {_elbo_lower(errors['antithetic_pair'], 'L1')} for L1, "
        f"{_elbo_lower(errors['antithetic_pair'], 'L2')} for L2. At a constant rate the "
        "posterior's own noise leaves a floor to Gradient-EM too; with the rate decaying to 0 "
        "(cosine, dashed) its error goes on falling, to "
        f"{_digits(decayed['L1_gem'][last]['median'])} after {last} steps, the ELBO gradient's "
        f"to {_digits(decayed['L1_elbo'][last]['median'])}.",
        "**Bound of A.3.** The printed bound M √(2 KL(Q ‖ P)) does not follow from its proof. On "
        f"these problems the error is at most {largest:.2f} of it; with one weight, a wide prior, "
        f"a posterior of {worst['v']:g} times the prior's variance and no inner step the error is "
        f"{worst['error_over_printed']:.2f} times the bound. The valid one, M √χ²(Q ‖ P), is "
        "infinite as long as one weight's variance is at least twice the exact posterior's, and "
        "agrees with the printed one near convergence.",
        "**Variance of the L2 estimator (A.2).** Exactly it is I_m / (I_m − I_k) times L1's, I_j "
        "the information on Θ of a task's first j data. The printed m / (m − k) takes I_j to be "
        "proportional to j. That holds for the prior's mean when noise dominates (k σ² far below "
        "the noise's variance), is too small by the factor 1 + k σ² / noise variance otherwise, "
        "and does not hold for the prior's variance in either limit. Simulated: "
        f"{results['repeats']:,} estimates of (μ, σ²) from {results['tasks']:,} tasks each, the "
        f"same tasks for L1 and L2, of which at least {_percent(converged)} converged; with a "
        "finite number of tasks the ratio lies above its limit where L2 has little information.",
    ]


def meta_gradient_error(runs: list[Results], output: pathlib.Path) -> str:
    """Appendix C.1: the error of the meta-gradient's estimators."""
    parts = ["### Error of the meta-gradient (appendix C.1, A.2 and A.3)"]
    for index, results in enumerate(runs):
        name = f"appendix_figure_1{f'_{index + 1}' if index else ''}.png"
        appendix_figure_1(results, output / name)
        protocol, regimes, bound, ratio = _explanation(results)
        parts += [
            f"![Error of estimated meta-gradients against inner steps]({name})",
            f"{protocol} {results['device']}, {results['cpu_seconds']:,.0f} s of one core's time.",
            regimes,
            _error_table(results),
            bound,
            _bound_table(results["metrics"]["bound"]),
            ratio,
            _ratio_table(results),
        ]
        if results.get("command"):
            parts.append(f"```sh\n{generalised(results['command'], workdir='DIR')}\n```")
    return "\n\n".join(parts)
