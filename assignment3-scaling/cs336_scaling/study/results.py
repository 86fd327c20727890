"""What the study found: tables, plots and an HTML report."""

import csv
import json
from collections.abc import Mapping
from pathlib import Path

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.machine import machine_description
from cs336_basics.report import Figure, Section, Table, Text, write_report
from cs336_scaling.fitting.iso_flops import IsoFlopFit
from cs336_scaling.fitting.methods import DESCRIPTIONS
from cs336_scaling.fitting.plots import plot_loss, plot_optima, plot_profiles
from cs336_scaling.fitting.study import MethodResult, study_runs
from cs336_scaling.markdown_table import markdown_table
from cs336_scaling.study.plan import Study

CONFIDENCE = 0.9
METHODS = ("quadratic", "lowest", "chinchilla")


def fit(study: Study, samples: int) -> tuple[dict[str, MethodResult], dict[str, str]]:
    """The profiles fitted by each method that they allow, with the reasons of those that they do not.

    Args:
        study: a finished one.
        samples: bootstrap resamples.

    Raises:
        UsageError: no method applies.
    """
    table = study.table()
    if not len(table):
        raise UsageError("no run of a profile succeeded, so there is nothing to fit")
    return study_runs(table, METHODS, [10 * float(table.flops.max())], samples=samples)


def exponent_rows(results: Mapping[str, MethodResult]) -> tuple[list[str], list[list[str]]]:
    """Header and rows: the exponents of each method with their intervals."""
    header = ["method", "N_opt ∝ C^a: a", "90 % interval", "D_opt ∝ C^b: b", "90 % interval", "resamples fitted"]
    rows = []
    for name, result in results.items():
        row = [DESCRIPTIONS[name]]
        for which, value in zip(("exponent_parameters", "exponent_tokens"), result.law.exponents, strict=True):
            interval = result.resampled.interval(which, CONFIDENCE)
            row += [f"{value:.3f}", f"{interval.low:.3f} to {interval.high:.3f}"]
        fitted = max((len(values) for values in result.resampled.values.values()), default=0)
        rows.append([*row, f"{fitted} of {fitted + result.resampled.failed}"])
    return header, rows


def optimum_rows(results: Mapping[str, MethodResult]) -> tuple[list[str], list[list[object]]]:
    """Header and rows: each budget's best size by the quadratic minimum, or by the lowest run where there is none."""
    header = ["method", "C (FLOPs)", "N_opt", "D_opt", "D/N", "loss", "inside the range"]
    rows: list[list[object]] = []
    for name, result in results.items():
        if isinstance(result.law, IsoFlopFit):
            rows += [
                [
                    DESCRIPTIONS[name], f"{one.flops:.2e}", round(one.parameters), round(one.tokens),
                    f"{one.tokens / one.parameters:.1f}", f"{one.loss:.4f}", one.inside,
                ]
                for one in result.law.optima
            ]  # fmt: skip
    return header, rows


def run_rows(study: Study) -> tuple[list[str], list[list[object]]]:
    """Header and rows: every run of the study, in its order."""
    header = [
        "purpose", "profile", "parameters", "layers", "width", "peak lr", "tokens", "FLOPs", "loss", "seconds",
        "status",
    ]  # fmt: skip
    rows: list[list[object]] = []
    for run in study.trained:
        config = run.experiment.training_config
        shape = config.architecture_config
        rows.append([
            run.purpose, None if run.profile is None else run.profile + 1, run.rung.parameters,
            shape.num_hidden_layers, shape.hidden_size, config.optimizer_config.lr_scheduler.peak_value,
            config.total_train_tokens, f"{run.flops:.3e}", None if run.loss is None else f"{run.loss:.4f}",
            f"{run.experiment.runtime_seconds:.1f}", run.experiment.failure_reason or run.experiment.status_type,
        ])  # fmt: skip
    return header, rows


def write_results(study: Study, out: Path, samples: int) -> str:
    """Fit, and write `report.html`, `study.md`, `runs.csv`, `study.json` and the plots to `out`.

    Args:
        study: a finished one.
        out: the folder.
        samples: bootstrap resamples.

    Returns:
        The main tables in Markdown.

    Raises:
        UsageError: the profiles cannot be fitted.
    """
    results, reasons = fit(study, samples)
    table = study.table()
    laws = [result.law for result in results.values()]
    iso = [law for law in laws if isinstance(law, IsoFlopFit)]
    largest = 10 * float(table.flops.max())
    plots = {
        "isoflops": (plot_profiles(table, iso), "Final validation loss against model size, by compute budget."),
        "optima": (
            plot_optima(laws, float(table.flops.min()), largest), "Compute-optimal size and data against compute."
        ),
        "loss": (plot_loss(table, laws, largest), "Loss against compute, and the compute-optimal loss by each method."),
    }  # fmt: skip
    for name, (png, _) in plots.items():
        with atomic_write(out / f"{name}.png") as file:
            file.write(png)
    notes = [f"Left out: {reason}." for reason in reasons.values()]
    exponents, optima, runs = exponent_rows(results), optimum_rows(results), run_rows(study)
    level = f"Percentiles of {samples} bootstrap resamples of the runs within each profile."
    sections = [
        Section("Exponents", [Table(*exponents, caption=level), Text("\n\n".join(notes))]),
        Section("Optima", [Table(*optima), *(Figure(png, caption) for png, caption in plots.values())]),
        Section("Decisions", [Text("\n\n".join(study.decisions))]),
        Section("Runs", [Table(*runs)]),
        Section("Machine", [Table(["what", "value"], [[name, str(v)] for name, v in machine_description().items()])]),
    ]
    write_report(out / "report.html", "IsoFLOP study", sections, f"{len(study.trained)} runs that were really trained")
    page = "\n\n".join([markdown_table(*exponents), *notes, markdown_table(*optima)])
    with atomic_write(out / "study.md", "w") as file:
        file.write(page + "\n\n" + markdown_table(*runs) + "\n")
    with atomic_write(out / "runs.csv", "w") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["parameters", "tokens", "flops", "loss"])
        writer.writerows(zip(*(column.tolist() for column in vars(table).values()), strict=True))
    with atomic_write(out / "study.json", "w") as file:
        content = {name: result.law.coefficients() for name, result in results.items()}
        json.dump({"coefficients": content, "decisions": study.decisions}, file, indent=1, ensure_ascii=False)
    return page
