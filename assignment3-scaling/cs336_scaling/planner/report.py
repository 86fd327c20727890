"""The planner's reasoning as an HTML report, and the plan as JSON."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from cs336_basics.atomic_file import atomic_write
from cs336_basics.command_line import UsageError
from cs336_basics.report import Figure, Section, Table, Text, write_report
from cs336_scaling.fitting.chinchilla import fit_chinchilla
from cs336_scaling.fitting.iso_flops import fit_isoflops
from cs336_scaling.fitting.runs import Runs
from cs336_scaling.planner.plots import plot_foresight, plot_learning_rates, plot_losses
from cs336_scaling.planner.space import Space
from cs336_scaling.planner.strategy import Plan, Step
from cs336_scaling.planner.surrogate import PRIORS

STAGES = {
    "probe": "Short runs that tell how fast the machine is; they are not fitted.",
    "sweep": "Learning rates and batch sizes at the smallest scale.",
    "transfer": "The best ones again at other sizes: how do they move with scale?",
    "profile": "IsoFLOP profiles: model sizes at equal cost, each with the learning rate and batch foretold for it.",
    "refinement": "Each run is the one that takes away most of the target's uncertainty per cost.",
}


def _row(step: Step, space: Space) -> list[object]:
    settings = step.settings
    result = step.problem or f"{step.outcome.loss:.4f}"
    return [
        f"{space.reserve(step.config):.3g}", f"{settings.blocks[0]:.3g}", f"{settings.tokens[0]:.3g}",
        f"{settings.batch[0]:.3g}", f"{settings.lr[0]:.3g}", f"{step.predicted:.4f}", result, step.reason,
    ]  # fmt: skip


def _stage_section(stage: str, plan: Plan, space: Space) -> Section:
    steps = [step for step in plan.steps if step.stage == stage]
    header = [
        f"cost at most ({space.unit})", "block parameters", "tokens", "batch (tokens)", "learning rate", "foretold",
        "loss", "why",
    ]  # fmt: skip
    cost = sum(step.outcome.cost for step in steps)
    caption = f"{len(steps)} runs, {cost:.3g} {space.unit}, {100 * cost / plan.total:.1f} % of the budget."
    rows = [_row(step, space) for step in steps]
    return Section(stage.capitalize(), [Text(STAGES[stage]), Table(header, rows, caption)])


def second_opinions(plan: Plan) -> list[list[str]]:
    """What simpler fits say of the target, from the planner's runs near their best learning rates.

    Compute is 6 · block parameters · tokens, so these are comparable where embeddings count little.
    """
    usable = [step for step in plan.steps if not step.problem and step.stage in ("profile", "refinement")]
    flops = float(6 * plan.settings.blocks[0] * plan.settings.tokens[0])
    rows = []
    for fit, chosen in (
        (fit_isoflops, [step for step in usable if step.stage == "profile"]),
        (
            fit_chinchilla,
            [s for s in usable if abs(np.log(s.settings.lr[0] / plan.surrogate.best_lr(s.settings)[0])) < 0.5],
        ),
    ):
        columns = [
            np.array([float(getattr(step.settings, name)[0]) for step in chosen]) for name in ("blocks", "tokens")
        ]
        losses = np.array([step.outcome.loss for step in chosen])
        try:
            law = fit(Runs.of(losses, *columns))
        except UsageError as error:
            rows.append([f"no fit: {error}", "–", "–"])
            continue
        rows.append([law.method_name, f"{law.optimal(flops)[0]:.3g}", f"{law.optimal_loss(flops):.3f}"])
    return rows


def plan_json(plan: Plan, space: Space) -> dict[str, Any]:
    """The plan as plain values."""
    return {
        "edition": space.edition,
        "target": space.target,
        "unit": space.unit,
        "config": plan.config.model_dump(mode="json"),
        "predicted_loss": plan.predicted_loss,
        "interval_90": [plan.low, plan.high],
        "expected_regret": plan.expected_regret,
        "budget_total": plan.total,
        "budget_used": plan.used,
        "runs": len(plan.steps),
        "stop_reason": plan.stop_reason,
        "coefficients": dict(zip(PRIORS, plan.surrogate.theta.tolist(), strict=True)),
    }


def write_plan(plan: Plan, space: Space, folder: Path) -> None:
    """Write `plan.json` and `report.html` into a folder."""
    settings = plan.settings
    summary = Table(["quantity", "value"], [
        ["target", f"{space.target:.3g} {space.unit}"],
        ["block parameters", f"{settings.blocks[0]:.4g}"],
        ["tokens", f"{settings.tokens[0]:.4g}"],
        ["batch (tokens)", f"{settings.batch[0]:.4g}"],
        ["peak learning rate", f"{settings.lr[0]:.4g}"],
        ["predicted loss", f"{plan.predicted_loss:.4f}"],
        ["90 % interval", f"{plan.low:.4f} to {plan.high:.4f}"],
        ["expected regret", f"{100 * plan.expected_regret:.3f} % of the loss"],
        ["budget used", f"{plan.used:.4g} of {plan.total:.4g} {space.unit} ({100 * plan.used / plan.total:.1f} %)"],
        ["stopped because", plan.stop_reason],
    ])  # fmt: skip
    sds = np.sqrt(np.diag(plan.surrogate.covariance))
    coefficients = [
        [name, f"{prior.mean:.3f} ± {prior.sd:.3f}", f"{value:.3f} ± {sd:.3f}"]
        for (name, prior), value, sd in zip(PRIORS.items(), plan.surrogate.theta, sds, strict=True)
    ]
    opinions = Table(
        ["method", "N_opt at the target's compute (block parameters)", "loss there"],
        [["the planner's model", f"{settings.blocks[0]:.3g}", f"{plan.predicted_loss:.3f}"], *second_opinions(plan)],
        "Simpler fits to the same runs; they know nothing of batch sizes and learning rates.",
    )
    config = json.dumps(plan.config.model_dump(mode="json"), indent=2)
    stages = [stage for stage in STAGES if any(step.stage == stage for step in plan.steps)]
    sections = [
        Section("The plan", [summary, Text(config, preformatted=True)]),
        Section("Losses", [Figure(plot_losses(plan), "All runs, and the prediction for the target.")]),
        *(_stage_section(stage, plan, space) for stage in stages),
        Section("Learning rates", [Figure(plot_learning_rates(plan), "How learning rates transfer over sizes.")]),
        Section("The fitted model", [
            Text("L = E + (A/N^α + B/D_eff^β) · (1 + penalty of the learning rate); cs336_scaling/planner/surrogate.py "
                 "says what each coefficient does."),
            Table(["coefficient", "prior", "posterior"], coefficients), opinions,
            Figure(plot_foresight(plan), "How well each run was foretold before it was made."),
        ]),
    ]  # fmt: skip
    with atomic_write(folder / "plan.json", "w") as file:
        json.dump(plan_json(plan, space), file, indent=2, ensure_ascii=False)
    write_report(
        folder / "report.html", f"A plan for {space.target:.3g} {space.unit}", sections, f"{space.edition} edition"
    )
