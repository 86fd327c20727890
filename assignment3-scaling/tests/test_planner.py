"""The planner: its plans in simulated worlds and through the real server, kills, budgets, its command."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cs336_basics.command_line import UsageError
from cs336_scaling.client.flops import ScalingClient2025
from cs336_scaling.client.wall_clock import ScalingClient2026
from cs336_scaling.planner.api import ApiWallClock
from cs336_scaling.planner.baselines import fixed_ratio, random_search
from cs336_scaling.planner.command import main
from cs336_scaling.planner.flops_space import FlopsSpace
from cs336_scaling.planner.ledger import Ledger
from cs336_scaling.planner.simulated import SimulatedFlops, SimulatedWallClock
from cs336_scaling.planner.space import Choice
from cs336_scaling.planner.strategy import Planner
from cs336_scaling.planner.wall_clock_space import WallClockSpace
from cs336_scaling.simulate.world import World

from .api_server import running_server

SCRIPT = Path(__file__).parents[1] / "scripts/plan.py"
SEED = 1003  # a tuning world; the benchmark's are 0 to 19
SMALL = 2e17  # a tenth of the budget: enough for all stages


class _Counting:
    """A laboratory that keeps what was asked of it."""

    def __init__(self, laboratory):
        self._laboratory, self.asked = laboratory, []

    def budget(self):
        return self._laboratory.budget()

    def submit(self, config):
        self.asked.append(config)
        return self._laboratory.submit(config)


@pytest.fixture(scope="module")
def small_plan():
    laboratory = _Counting(SimulatedFlops(World.from_seed(SEED), SMALL))
    return Planner(FlopsSpace(1e18), laboratory).run(), laboratory


def test_a_plan_is_close_to_the_true_optimum(small_plan):
    plan, laboratory = small_plan
    world = World.from_seed(SEED)
    true = float(world.expected_loss([plan.config])[0])
    assert true / world.optimum(train_flops=1e18).loss < 1.01
    assert plan.predicted_loss == pytest.approx(true, rel=0.02)
    assert plan.low < plan.predicted_loss < plan.high
    assert plan.used <= plan.total
    assert plan.used == pytest.approx(sum(config.train_flops for config in laboratory.asked))
    assert {step.stage for step in plan.steps} == {"sweep", "transfer", "profile", "refinement"}
    assert plan.config.train_flops == 10**18


def test_no_configuration_is_asked_for_twice(small_plan):
    _, laboratory = small_plan
    assert len(set(laboratory.asked)) == len(laboratory.asked)


def test_it_stops_when_it_is_as_exact_as_asked():
    plan = Planner(FlopsSpace(1e18), SimulatedFlops(World.from_seed(SEED), SMALL), precision=0.05).run()
    assert "as small as asked" in plan.stop_reason
    assert (plan.high - plan.low) / 2 / plan.predicted_loss <= 0.0505
    assert plan.used < 0.9 * plan.total


@pytest.mark.slow
def test_wall_clock_plans_through_the_real_server_end_in_time(tmp_path):
    world = World.from_seed(1001)
    with (
        running_server(tmp_path, world_seed=1001, budget_seconds=10_000) as server,
        ScalingClient2026(server.url, server.key, cache_dir=None) as client,
    ):
        plan = Planner(WallClockSpace(40_000), ApiWallClock(client, poll_seconds=0.01)).run()
        experiments = client.experiments()
        assert plan.used == pytest.approx(sum(one.charged_seconds for one in experiments))
        client.submit_final(plan.config, plan.predicted_loss)
        assert client.final_submission().training_config == plan.config
    assert len(experiments) == len(plan.steps)
    assert float(world.expected_loss([plan.config])[0]) / world.optimum(seconds=40_000).loss < 1.01
    assert float(world.expected_seconds([plan.config])[0]) < 40_000
    assert plan.used <= plan.total
    assert plan.config.max_runtime_seconds == 40_000


@pytest.mark.parametrize("method", [lambda *a: random_search(*a, seed=0), fixed_ratio])
def test_baselines_stay_in_the_budget(method):
    for space, laboratory in (
        (FlopsSpace(), SimulatedFlops(World.from_seed(SEED))),
        (WallClockSpace(), SimulatedWallClock(World.from_seed(SEED))),
    ):
        config = method(space, laboratory)
        assert 0.5 < laboratory.budget().used / laboratory.budget().total <= 1
        assert float(World.from_seed(SEED).expected_loss([config])[0]) < 4


def test_a_ledger_answers_again_and_drops_a_torn_line(tmp_path):
    config = FlopsSpace().config(Choice(256, 128), 5e-4, 1e15)
    first = _Counting(SimulatedFlops(World.from_seed(0)))
    answer = Ledger(first, tmp_path / "ledger.jsonl", {"world": 0}).submit(config)
    with open(tmp_path / "ledger.jsonl", "a", encoding="utf-8") as file:
        file.write('{"hash": "half a li')
    again = _Counting(SimulatedFlops(World.from_seed(0)))
    ledger = Ledger(again, tmp_path / "ledger.jsonl", {"world": 0})
    assert len(ledger) == 1
    assert ledger.submit(config) == answer
    assert again.asked == []
    assert ledger.budget().used == 1e15
    other = FlopsSpace().config(Choice(320, 128), 5e-4, 1e15)
    ledger.submit(other)
    assert len(Ledger(again, tmp_path / "ledger.jsonl", {"world": 0})) == 2
    with pytest.raises(UsageError, match="belongs to another plan"):
        Ledger(again, tmp_path / "ledger.jsonl", {"world": 1})
    (tmp_path / "other.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(UsageError, match="no ledger"):
        Ledger(again, tmp_path / "other.jsonl", {"world": 0})


KILLED = """
import os, signal, sys
from cs336_scaling.planner import api
from cs336_scaling.planner.command import main

train, trained = api.ApiFlops.submit, []

def submit(self, config):
    outcome = train(self, config)
    trained.append(config)
    if len(trained) == 17:
        os.kill(os.getpid(), signal.SIGKILL)  # after the run was paid, before its answer is on disk
    return outcome

api.ApiFlops.submit = submit
main(sys.argv[1:])
"""


def test_a_planner_killed_before_the_real_server_goes_on_and_ends_as_if_nothing_had_happened(
    tmp_path, small_plan, capsys
):
    with running_server(tmp_path / "server", world_seed=SEED, budget_flops=SMALL) as server:
        flags = ["--edition", "2025", "--server", server.url, "--api-key", server.key, "--budget", str(SMALL)]
        flags += ["--target", "1e18", "--out", str(tmp_path)]
        killed = subprocess.run([sys.executable, "-c", KILLED, *flags], capture_output=True)
        assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
        assert len((tmp_path / "ledger.jsonl").read_text().splitlines()) == 1 + 16
        assert not (tmp_path / "plan.json").exists()
        main(flags)
        with ScalingClient2025(server.url, server.key, cache_dir=None) as client:
            paid, runs = client.total_flops_used(), client.previous_runs()
    assert "going on after 16 runs" in capsys.readouterr().out
    plan, laboratory = small_plan
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["config"] == plan.config.model_dump(mode="json")
    assert found["predicted_loss"] == plan.predicted_loss
    assert found["budget_used"] == plan.used == paid
    assert [run.model_dump(exclude={"loss"}) for run in runs] == [config.model_dump() for config in laboratory.asked]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    for heading in ("The plan", "Sweep", "Transfer", "Profile", "Refinement", "Learning rates", "The fitted model"):
        assert f">{heading}<" in page
    assert page.count("<img") == 3


def test_the_real_server_runs_2026_experiments(tmp_path):
    space = WallClockSpace()
    config = space.config(Choice(256, 32), 1e-3, 100)
    with running_server(tmp_path, world_seed=SEED) as server:
        laboratory = ApiWallClock(ScalingClient2026(server.url, server.key, cache_dir=None), poll_seconds=0.01)
        outcome = laboratory.submit(config)
        here = SimulatedWallClock(World.from_seed(SEED)).submit(config)
        assert outcome.loss == pytest.approx(here.loss)
        assert outcome.cost == pytest.approx(here.cost, rel=1e-3)
        assert laboratory.budget().used == pytest.approx(outcome.cost)
        assert laboratory.submit(config) == outcome  # the same again costs nothing
        assert laboratory.budget().used == pytest.approx(outcome.cost)


def test_simulated_laboratories_keep_the_rules():
    world = World.from_seed(SEED)
    laboratory = SimulatedFlops(world, 1.5e15)
    config = FlopsSpace().config(Choice(256, 128), 5e-4, 1e15)
    assert laboratory.submit(config) == laboratory.submit(config)
    with pytest.raises(UsageError, match="the budget has 5e\\+14 left"):
        laboratory.submit(config.model_copy(update={"learning_rate": 6e-4}))
    clock = SimulatedWallClock(world, 100.0)
    run = WallClockSpace().config(Choice(256, 32), 1e-3, 60)
    stopped = clock.submit(run.model_copy(update={"max_runtime_seconds": 5.0}))
    assert (stopped.loss, stopped.cost, stopped.problem) == (None, 5.0, "timed_out")
    with pytest.raises(UsageError, match="the budget has 95 left"):
        clock.submit(run.model_copy(update={"max_runtime_seconds": 99.0}))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--target", "-1"], "target is -1; allowed"),
        (["--budget", "0"], "budget is 0; allowed"),
        (["--precision", "2"], "precision is 2; allowed"),
        (["--submit-final"], "needs a 2026 server"),
        (["--world", "-1"], "seed is -1; allowed"),
        (["--vocab-size", "3"], "vocab size is 3; allowed is 256 to 262144"),
        (["--poll-seconds", "-1"], "poll seconds is -1; allowed"),
        (["--widest", "8"], "allowed are 64, 8 and 1 s or more"),
        (["--edition", "2025", "--budget", "1e10"], "pays for no run of the sweep"),
    ],
)
def test_bad_flags_are_refused(flags, message, tmp_path):
    with pytest.raises(UsageError, match=message):
        main(["--out", str(tmp_path), *flags])


def test_help_does_not_show_the_key(monkeypatch, capsys):
    monkeypatch.setenv("CS336_API_KEY", "a-secret")
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "a-secret" not in capsys.readouterr().out


def test_without_a_key_a_server_is_not_asked(tmp_path, monkeypatch):
    monkeypatch.delenv("CS336_API_KEY", raising=False)
    command = [sys.executable, str(SCRIPT), "--server", "http://127.0.0.1:9", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "error: no API key; give --api-key or set CS336_API_KEY\n"
