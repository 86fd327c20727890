"""The study: its decisions in a world whose laws are known, and the real thing, killed on the way."""

import math
import os
import signal
import sqlite3
import subprocess
import sys
from itertools import pairwise

import pytest

from cs336_basics.command_line import UsageError
from cs336_scaling.client.answers import Experiment
from cs336_scaling.compute import training_flops
from cs336_scaling.fitting.iso_flops import fit_isoflops
from cs336_scaling.study.command import build_parser, main, run_study, study_plan
from cs336_scaling.study.plan import Study, StudyPlan, follow
from cs336_scaling.study.results import write_results
from cs336_scaling.study.sizes import LADDER, REFERENCE_WIDTH, SHAPES, flops_of, nearest_rung, window


class KnownWorld:
    """Losses by E + A/N^alpha + B/D^beta with C = flops_of, a best rate that falls as 1/width, and a steady speed.

    It trains nothing and remembers what it was asked, as a server does.
    """

    def __init__(self, alpha=0.5, beta=0.5, best_rate=6e-3, flops_per_second=1e10, overhead=0.5):
        self.alpha, self.beta, self.best_rate = alpha, beta, best_rate
        self.speed, self.overhead = flops_per_second, overhead
        self.asked, self.fail, self.stop_after = [], lambda config: False, math.inf

    def loss(self, config):
        width = config.architecture_config.hidden_size
        rate = config.optimizer_config.lr_scheduler.peak_value * width / REFERENCE_WIDTH
        tokens = config.total_train_tokens
        effective = flops_of(config) / (6 * tokens)  # parameters whose 6 N D are these FLOPs
        wrong_rate = 1 + 0.1 * math.log(rate / self.best_rate) ** 2
        return 1.5 + (30 / effective**self.alpha * 10 + 30 / tokens**self.beta * 10) * wrong_rate

    def __call__(self, configs):
        results = []
        for config in configs:
            if len(self.asked) >= self.stop_after:
                raise KeyboardInterrupt
            self.asked.append(config)
            failed = self.fail(config)
            seconds = self.overhead + flops_of(config) / self.speed
            assert seconds < config.max_runtime_seconds
            results.append(
                Experiment(
                    experiment_id=str(len(self.asked)),
                    status_type="failed" if failed else "completed",
                    training_config=config,
                    final_val_loss=None if failed else self.loss(config),
                    runtime_seconds=seconds,
                    charged_seconds=seconds,
                    failure_reason="diverged" if failed else None,
                    message="the loss became NaN" if failed else "",
                )
            )
        return results


def quiet(sentence):
    """Tell nobody."""


@pytest.mark.parametrize("budget", [400.0, 1000.0, 8000.0])
def test_profiles_bracket_their_minima_within_the_budget(budget):
    study = follow(StudyPlan(budget), KnownWorld(), quiet)
    assert 0.5 * budget < study.cost() <= budget
    fit = fit_isoflops(study.table())
    assert len(fit.optima) == 4
    assert all(optimum.inside for optimum in fit.optima)
    for profile in range(4):
        runs = sorted((run for run in study.profile_runs() if run.profile == profile), key=lambda run: run.rung.index)
        lowest = min(range(len(runs)), key=lambda index: runs[index].loss)
        assert 0 < lowest < len(runs) - 1
        assert all(run.flops == pytest.approx(runs[0].flops, rel=0.05) for run in runs)


@pytest.mark.parametrize(("alpha", "beta"), [(0.5, 0.5), (0.45, 0.55)])
def test_the_law_is_found(alpha, beta):
    """Against the closed form: N_opt grows as C^(beta / (alpha + beta)) (Hoffmann et al. 2022, equation 4)."""
    study = follow(StudyPlan(20_000.0, profiles=5), KnownWorld(alpha, beta), quiet)
    runs = study.profile_runs()
    # The world's N are the parameters whose 6 N D are the run's FLOPs; attention makes them differ from the real ones.
    table = study.table()
    effective = table.flops / (6 * table.tokens)
    fit = fit_isoflops(type(table)(effective, table.tokens, table.flops, table.loss))
    assert fit.exponents[0] == pytest.approx(beta / (alpha + beta), abs=0.05)
    assert len(runs) == len(table)


def test_a_budget_of_flops_is_kept_and_does_not_depend_on_speed():
    plan = StudyPlan(1e13, unit="FLOPs")
    fast, slow = KnownWorld(), KnownWorld(flops_per_second=3e9)
    study = follow(plan, fast, quiet)
    follow(plan, slow, quiet)
    assert 0.5e13 < study.cost() <= 1e13
    shapes = [(config.architecture_config, config.total_train_tokens) for config in fast.asked]
    assert shapes == [(config.architecture_config, config.total_train_tokens) for config in slow.asked]


@pytest.mark.parametrize("stop_after", [0, 3, 4, 7, 9, 15])
def test_an_interrupted_study_makes_the_same_runs_again(stop_after):
    whole = KnownWorld()
    follow(StudyPlan(600.0), whole, quiet)
    broken = KnownWorld()
    broken.stop_after = stop_after
    with pytest.raises(KeyboardInterrupt):
        follow(StudyPlan(600.0), broken, quiet)
    assert broken.asked == whole.asked[:stop_after]


def test_the_sweep_finds_the_rate_and_the_check_corrects_it():
    study = follow(StudyPlan(600.0), KnownWorld(best_rate=4e-3), quiet)
    assert study.reference_lr == 4e-3
    assert any("It holds" in sentence for sentence in study.decisions)
    misled = follow(StudyPlan(600.0, rates=(2e-3,)), KnownWorld(best_rate=4e-3), quiet)
    assert misled.reference_lr == 4e-3
    assert {run.purpose for run in misled.trained} >= {"learning rate", "profile", "check"}
    assert "check" not in {run.purpose for run in misled.profile_runs()}


def test_failed_runs_are_left_out_and_too_many_are_said():
    world = KnownWorld()
    world.fail = lambda config: config.architecture_config.hidden_size == 48
    study = follow(StudyPlan(600.0), world, quiet)
    assert all(run.loss is not None for run in study.profile_runs())
    assert any(run.loss is None for run in study.trained)
    world = KnownWorld()
    world.fail = lambda config: True
    with pytest.raises(UsageError, match="no run of the learning-rate sweep succeeded: the loss became NaN"):
        follow(StudyPlan(600.0), world, quiet)


def test_the_ladder_is_even_and_runs_have_the_flops_asked_for():
    sizes = [rung.parameters for rung in LADDER]
    ratios = [after / before for before, after in pairwise(sizes)]
    assert min(ratios) > 1.15
    assert max(ratios) < 2.0
    assert [(rung.architecture.num_hidden_layers, rung.architecture.hidden_size) for rung in LADDER] == list(SHAPES)
    for rung in LADDER[:12]:
        config = rung.config(3e11, 4e-3, 100.0)
        assert flops_of(config) == pytest.approx(3e11, rel=0.04)
        assert flops_of(config) < training_flops(config)  # shorter sequences, less attention
        rate = config.optimizer_config.lr_scheduler.peak_value
        assert rate * rung.architecture.hidden_size == pytest.approx(4e-3 * REFERENCE_WIDTH, rel=1e-3)
    assert nearest_rung(1.05 * sizes[3]) == LADDER[3]
    assert window(LADDER[0], 5) == list(LADDER[:5])
    assert window(LADDER[-1], 5) == list(LADDER[-5:])
    assert window(LADDER[4], 3) == list(LADDER[3:6])


def test_results_are_tables_plots_and_a_report(tmp_path):
    study = follow(StudyPlan(1000.0), KnownWorld(), quiet)
    page = write_results(study, tmp_path, samples=20)
    assert "quadratic minimum" in page
    assert "90 % interval" in page
    for name in ("isoflops.png", "optima.png", "loss.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for sentence in study.decisions[:3]:
        assert sentence.split("(")[0] in html
    rows = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(rows) == 1 + len(study.profile_runs())
    with pytest.raises(UsageError, match="no run of a profile"):
        write_results(Study(StudyPlan(1.0)), tmp_path, samples=20)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--budget", "0"], "budget is 0"),
        (["--budget_flops", "nan"], "budget is nan"),
        (["--sizes", "2"], "at least 2 of 3"),
        (["--workers", "0"], "workers is 0"),
    ],
)
def test_flags_out_of_range(flags, sentence, tmp_path):
    with pytest.raises(UsageError, match=sentence):
        main([*flags, "--out", str(tmp_path)])


DIES = """
import os, signal, sys
from pathlib import Path
from cs336_scaling.study.command import build_parser, run_study, study_plan

def say(sentence):
    if sentence.startswith("Profile 2:"):
        os.kill(os.getpid(), signal.SIGKILL)

run_study(study_plan(build_parser().parse_args(["--smoke"])), Path(sys.argv[1]), 1, "cpu", True, say)
"""


@pytest.mark.slow
def test_the_real_study_goes_on_after_a_kill(tmp_path, capsys):
    """Server, worker and training are real; the study kills itself between its two profiles."""

    def experiments():
        with sqlite3.connect(tmp_path / "smoke/server/training_api.sqlite") as database:
            query = "SELECT id, status, charged_seconds FROM experiments ORDER BY number"
            return database.execute(query).fetchall()

    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    died = subprocess.run([sys.executable, "-c", DIES, str(tmp_path / "smoke")], env=environment, capture_output=True)
    assert died.returncode == -signal.SIGKILL, died.stderr.decode()
    before = experiments()
    assert before
    assert {status for _, status, _ in before} == {"completed"}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main(["--smoke", "--workers", "1", "--bootstrap", "20", "--out", str(tmp_path)])
    after = experiments()
    assert after[: len(before)] == before  # nothing was trained or paid again
    assert len(after) > len(before)
    assert {status for _, status, _ in after} == {"completed"}
    assert "isoFLOP" in capsys.readouterr().out
    assert (tmp_path / "smoke/report.html").is_file()
    study = run_study(study_plan(build_parser().parse_args(["--smoke"])), tmp_path / "smoke", 1, "cpu", True, quiet)
    losses = [min(run.loss for run in study.profile_runs() if run.profile == profile) for profile in (0, 1)]
    assert losses[1] < losses[0] < math.log(512)  # it learned, and more compute taught more
    assert experiments() == after
