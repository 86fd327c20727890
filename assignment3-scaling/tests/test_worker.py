"""The `train` backend: real training by real workers that finish, run out of time, diverge, stop, and are killed."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import torch

from cs336_scaling.schemas.edition_2026 import TrainingConfig
from cs336_scaling.server.accounts import add_user, find_account
from cs336_scaling.server.experiment_run import ExperimentRun
from cs336_scaling.server.leases import LeaseBook, LeaseLost
from cs336_scaling.server.services import Services
from cs336_scaling.server.settings import ServerSettings, TrainSettings
from cs336_scaling.server.sgd import SGD
from cs336_scaling.server.training_text import prepare_text
from cs336_scaling.server.worker import Worker, experiment_folder
from cs336_scaling.server.worker_pool import WorkerPool

from .training_configs import adamw, schedule, tiny_config

TRAIN = TrainSettings(
    tokenizer_vocab_size=300, sequence_length=64, validation_tokens=1024, micro_batch_tokens=256, device="cpu",
    train_bytes=60_000, valid_bytes=20_000,
)  # fmt: skip
FLAGS = [
    flag
    for name in ("tokenizer_vocab_size", "sequence_length", "validation_tokens", "micro_batch_tokens", "device",
                 "train_bytes", "valid_bytes")
    for flag in (f"--{name.replace('_', '-')}", str(getattr(TRAIN, name)))
]  # fmt: skip
PROGRAM = Path(__file__).parents[1] / "scripts" / "server.py"
GUARD_SECONDS = 600
"""Against hanging; no measure of speed."""
LONG = tiny_config(total_train_tokens=512 * 20_000, n_evals=1000, max_runtime_seconds=40_000)
"""A validation every 20 steps, and minutes until the end: no kill comes too late."""


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    """A data folder with the tokenized text."""
    folder = tmp_path_factory.mktemp("text")
    prepare_text(ServerSettings(data_dir=folder, backend="train", train=TRAIN))
    return folder / "text"


@pytest.fixture(autouse=True)
def one_thread():
    """Sums are ordered by the number of threads; a run is repeatable only with the same one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class Bench:
    """A server's database and one user, without the web."""

    def __init__(self, data_dir, text, **train):
        shutil.copytree(text, data_dir / "text")
        self.settings = ServerSettings(data_dir=data_dir, backend="train", train=replace(TRAIN, **train))
        self.services = Services.open(self.settings)
        self.account = find_account(self.services.database, add_user(self.services.database, self.settings, "ada"))
        self.data = prepare_text(self.settings)

    def submit(self, body):
        config = TrainingConfig.model_validate(body)
        return self.services.experiments.submit(self.account, config).experiment_id

    def get(self, experiment_id):
        return self.services.experiments.get(self.account, experiment_id)

    def used(self):
        return self.services.experiments.budget(self.account).used_seconds

    def work(self, should_stop=lambda: False, leases=None, name="here"):
        """A worker in this process, until nothing waits."""
        Worker(self.settings, leases or self.services.leases, self.data, name, should_stop).work(drain=True)

    def work_until_validations(self, experiment_id, count, **how):
        self.work(lambda: len(self.get(experiment_id).val_losses) >= count, **how)

    def later(self, seconds=1e6):
        """The leases, seen by somebody whose clock is ahead: whoever has not reported is dead to it."""
        train = self.settings.train
        return LeaseBook(self.services.database, train.lease_seconds, train.max_attempts, lambda: time.time() + seconds)


@pytest.fixture
def bench(tmp_path, text):
    """A server's database and one user, without the web."""
    made = Bench(tmp_path, text)
    yield made
    made.services.database.close()


def _start_worker(settings, *flags):
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), "worker", "--data-dir", str(settings.data_dir), *FLAGS, *flags],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def _wait_for(look, *alive):
    """Look until it is true; processes that are named must not end before."""
    deadline = time.monotonic() + GUARD_SECONDS
    while time.monotonic() < deadline:
        if found := look():
            return found
        for process in alive:
            assert process.poll() is None, f"the process ended with {process.returncode}"
        time.sleep(0.1)
    raise AssertionError("it did not happen in time")


def test_an_experiment_is_really_trained_and_charged_its_runtime(bench):
    experiment_id = bench.submit(tiny_config(optimizer_config=adamw(lr_scheduler=schedule(peak_value=0.01))))
    assert bench.get(experiment_id).status_type == "queued"
    assert bench.get(experiment_id).queue_position == 1
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.status_type, seen.failure_reason, seen.message) == ("completed", None, "")
    assert seen.val_steps == [10, 20, 30, 40]
    assert seen.final_val_loss == seen.val_losses[-1] < seen.val_losses[0] < 6.5
    assert seen.charged_seconds == max(1.0, seen.runtime_seconds)
    assert bench.used() == seen.charged_seconds
    assert not experiment_folder(bench.settings, experiment_id).exists(), "checkpoints go when they are not needed"


def test_sgd_is_torchs():
    torch.manual_seed(0)
    ours, theirs = (torch.nn.Parameter(torch.arange(6.0).reshape(2, 3)) for _ in range(2))
    mine = SGD([{"params": [ours], "weight_decay": 0.1}], 0.05, 0.9)
    peer = torch.optim.SGD([theirs], lr=0.05, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        gradient = torch.randn(2, 3)
        for parameter, optimizer in ((ours, mine), (theirs, peer)):
            parameter.grad = gradient.clone()
            optimizer.step()
    torch.testing.assert_close(ours, theirs)


def test_experiments_with_sgd_train_and_go_on_bit_for_bit(bench):
    body = tiny_config(optimizer_config={"type": "sgd", "momentum": 0.9, "lr_scheduler": schedule(peak_value=0.3)})
    config = TrainingConfig.model_validate(body)
    whole = ExperimentRun(config, bench.settings.train, bench.data, bench.settings.data_dir / "whole")
    while not whole.finished:
        whole.advance()
    folder = bench.settings.data_dir / "halves"
    first = ExperimentRun(config, bench.settings.train, bench.data, folder)
    while first.step < 25:
        first.advance()
    first.save()
    second = ExperimentRun(config, bench.settings.train, bench.data, folder)
    assert second.step == 25
    while not second.finished:
        second.advance()
    assert second.val_losses == whole.val_losses
    assert whole.val_losses[-1] < whole.val_losses[0]


def test_all_experiments_are_measured_on_the_same_windows(bench):
    """Neither val_batch_size nor the order of work changes a loss."""
    small = bench.submit(tiny_config(val_batch_size=1))
    large = bench.submit(tiny_config(val_batch_size=64))
    bench.work()
    assert bench.get(small).val_losses == pytest.approx(bench.get(large).val_losses, rel=1e-5)


def test_shorter_sequences_train_as_many_tokens(bench):
    config = TrainingConfig.model_validate(tiny_config())
    run = ExperimentRun(config, bench.settings.train, bench.data, bench.settings.data_dir / "run")
    while not run.finished:
        run.advance()
    assert run._trainer.tokens == config.total_train_tokens
    assert run.step == config.num_steps


def test_a_time_out_is_charged_in_full_and_keeps_what_came_before(bench, monkeypatch):
    monkeypatch.setattr(ExperimentRun, "seconds", property(lambda run: 1e9 if run.step >= 45 else 0.5))
    experiment_id = bench.submit(LONG)
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.status_type, seen.failure_reason) == ("failed", "timed_out")
    assert seen.val_steps == [20, 40]
    assert len(seen.val_losses) == 2
    assert seen.charged_seconds == bench.used() == 40_000


def test_a_last_validation_that_comes_too_late_does_not_count(bench, monkeypatch):
    monkeypatch.setattr(ExperimentRun, "seconds", property(lambda run: 1e9 if run.step == 40 else 0.5))
    experiment_id = bench.submit(tiny_config())
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.failure_reason, seen.val_steps, seen.charged_seconds) == ("timed_out", [10, 20, 30], 600)


def test_time_runs_out_in_the_middle_of_a_step(bench, monkeypatch):
    """The step waits for the end of its own experiment, which must come without it."""
    experiment_id = bench.submit(LONG | {"max_runtime_seconds": 1})

    def endless_step(_run):
        _wait_for(lambda: bench.get(experiment_id).status_type == "failed")
        return True

    monkeypatch.setattr(ExperimentRun, "advance", endless_step)
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.failure_reason, seen.charged_seconds, seen.val_losses) == ("timed_out", 1.0, [])


def test_a_long_step_does_not_cost_the_lease(tmp_path, text, monkeypatch):
    bench = Bench(tmp_path, text, lease_seconds=3.0)
    experiment_id = bench.submit(tiny_config())
    real_step = ExperimentRun.advance

    def long_step(run):
        if run.step == 0:
            time.sleep(3.6)
            bench.services.leases.reclaim()
            assert bench.get(experiment_id).status_type == "running"
        return real_step(run)

    monkeypatch.setattr(ExperimentRun, "advance", long_step)
    bench.work()
    assert bench.get(experiment_id).status_type == "completed"
    bench.services.database.close()


def test_a_divergence_fails_with_a_sentence(bench):
    exploding = adamw(lr_scheduler=schedule(peak_value=10.0, warmup_frac=0), weight_decay=10.0, grad_clip_norm=None)
    experiment_id = bench.submit(tiny_config(optimizer_config=exploding, model_seed=2))
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.status_type, seen.failure_reason) == ("failed", "diverged")
    assert "learning rate" in seen.message
    assert 1 <= seen.charged_seconds <= 600


def test_what_the_machine_cannot_do_fails_and_may_be_submitted_again(bench, monkeypatch):
    def out_of_memory(_run):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nand much more")

    monkeypatch.setattr(ExperimentRun, "advance", out_of_memory)
    experiment_id = bench.submit(tiny_config())
    bench.work()
    seen = bench.get(experiment_id)
    assert (seen.status_type, seen.failure_reason) == ("failed", "error")
    assert seen.message == "training failed: DefaultCPUAllocator: can't allocate memory"
    assert seen.charged_seconds == 1.0
    monkeypatch.undo()
    again = bench.submit(tiny_config())
    bench.work()
    assert bench.get(again).status_type == "completed"


def test_a_worker_that_lost_its_lease_stops_and_reports_nothing(bench):
    experiment_id = bench.submit(LONG)
    thief = []

    def steal_after_two_validations():
        if not thief and len(bench.get(experiment_id).val_losses) == 2:
            thief.append(bench.later().claim("thief"))
        return False

    bench.work(steal_after_two_validations)
    assert thief[0].experiment_id == experiment_id
    assert len(bench.get(experiment_id).val_losses) <= 3, "at most one more validation was on its way"
    bench.services.leases.renew(thief[0], 7.0, [], [])
    assert bench.get(experiment_id).runtime_seconds == 7.0


def test_an_experiment_that_kills_its_workers_fails_with_the_true_runtime(bench):
    experiment_id = bench.submit(LONG)
    for _ in range(bench.settings.train.max_attempts):
        claim = bench.later().claim("victim")
        assert claim.experiment_id == experiment_id
        bench.services.leases.renew(claim, 12.5, [], [])
    bench.later(2e6).reclaim()
    seen = bench.get(experiment_id)
    assert (seen.status_type, seen.failure_reason, seen.charged_seconds) == ("failed", "error", 12.5)
    assert "3 workers died" in seen.message
    with pytest.raises(LeaseLost):
        bench.services.leases.finish(claim, 20.0, [], [])
    assert bench.submit(LONG) != experiment_id


def test_the_pool_starts_dead_workers_again_and_takes_their_experiments_back(tmp_path, text):
    bench = Bench(tmp_path, text, max_attempts=1000)
    experiment_id = bench.submit(LONG)
    dead, enough = [], threading.Event()

    class Witness:
        """The leases; each worker that died is made to have held the experiment."""

        def reclaim(self, worker):
            bench.services.leases.claim(worker)
            before = bench.get(experiment_id).status_type
            bench.services.leases.reclaim(worker)
            dead.append((worker, before, bench.get(experiment_id).status_type))
            if len(dead) == 2:
                enough.set()

    refused = ["--data-dir", str(tmp_path), "--lease-seconds", "0"]  # such a worker ends as soon as it starts
    with open(tmp_path / "log", "w") as log, WorkerPool(1, refused, Witness(), log):
        assert enough.wait(GUARD_SECONDS)
    (first, *states), (second, *again) = dead[:2]
    assert first != second
    assert states == again == ["running", "queued"]
    assert (tmp_path / "log").read_text().count("lease_seconds is 0.0") >= 2
    bench.services.database.close()


def _undisturbed(tmp_path, text, count):
    bench = Bench(tmp_path, text)
    experiment_id = bench.submit(LONG)
    bench.work_until_validations(experiment_id, count)
    losses = bench.get(experiment_id).val_losses[:count]
    bench.services.database.close()
    return losses


@pytest.mark.slow
def test_killed_workers_cost_nothing_and_the_run_goes_on_bit_for_bit(tmp_path, text):
    undisturbed = _undisturbed(tmp_path / "undisturbed", text, 6)
    bench = Bench(tmp_path / "killed", text)
    experiment_id = bench.submit(LONG)
    worker = _start_worker(bench.settings)
    _wait_for(lambda: len(bench.get(experiment_id).val_losses) >= 2, worker)
    worker.kill()
    worker.wait()
    dead = bench.get(experiment_id)
    assert dead.status_type == "running", "nobody has missed it yet"
    assert bench.used() == 40_000
    checkpoints = sorted(experiment_folder(bench.settings, experiment_id).glob("checkpoint_*.pt"))
    assert checkpoints, "there is something to go on from"
    bench.later().reclaim()
    assert bench.get(experiment_id).status_type == "queued"
    assert bench.get(experiment_id).val_losses == dead.val_losses
    count = max(6, len(dead.val_losses) + 1)
    bench.work_until_validations(experiment_id, count)
    resumed = bench.get(experiment_id)
    assert resumed.val_losses[:6] == undisturbed
    assert resumed.status_type == "queued", "given back when the worker was asked to stop"
    assert bench.used() == 40_000
    bench.services.database.close()


@pytest.mark.slow
def test_a_stopped_worker_gives_back_and_a_damaged_checkpoint_is_passed_over(bench):
    experiment_id = bench.submit(LONG)
    worker = _start_worker(bench.settings)
    _wait_for(lambda: len(bench.get(experiment_id).val_losses) >= 2, worker)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == 0
    stopped = bench.get(experiment_id)
    assert (stopped.status_type, stopped.queue_position) == ("queued", 1)
    newest = max(experiment_folder(bench.settings, experiment_id).glob("*.pt"), key=lambda path: path.stat().st_mtime)
    newest.write_bytes(newest.read_bytes()[:1000])
    count = len(stopped.val_losses) + 1
    bench.work_until_validations(experiment_id, count)
    assert bench.get(experiment_id).val_losses[: count - 1] == stopped.val_losses
    assert len(bench.get(experiment_id).val_losses) >= count


def _serve(data_dir):
    process = subprocess.Popen(
        [
            sys.executable,
            str(PROGRAM),
            "serve",
            "--backend",
            "train",
            "--data-dir",
            str(data_dir),
            "--port",
            "0",
            *FLAGS,
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    key = None
    for line in process.stdout:
        if found := re.search(r"key.*: (\S+)$", line):
            key = found[1]
        if found := re.search(r"(http://\S+)/dashboard", line):
            return process, found[1], key
    raise AssertionError(f"the server ended with {process.wait()}")


def _children(process):
    listed = subprocess.run(["pgrep", "-P", str(process.pid)], stdout=subprocess.PIPE, text=True, check=False)
    return [int(word) for word in listed.stdout.split()]


@pytest.mark.slow
def test_killing_the_worker_and_then_the_server_loses_neither_experiment_nor_budget(tmp_path, text):
    shutil.copytree(text, tmp_path / "text")
    server, url, key = _serve(tmp_path)
    client = httpx.Client(headers={"X-API-Key": key}, timeout=GUARD_SECONDS, verify=False)

    def look():
        return client.get(f"{url}/experiment/{experiment_id}").json()

    def used():
        return client.get(f"{url}/budget").json()["used_seconds"]

    try:
        experiment_id = client.post(f"{url}/submit", json=LONG).json()["experiment_id"]
        first = _wait_for(lambda: look()["val_losses"], server)
        (worker,) = _wait_for(lambda: _children(server))
        os.kill(worker, signal.SIGKILL)
        second = _wait_for(lambda: [pid for pid in _children(server) if pid != worker], server)
        more = _wait_for(lambda: len(look()["val_losses"]) > len(first) + 1 and look()["val_losses"], server)
        assert more[: len(first)] == first
        assert used() == 40_000
        server.kill()
        server.wait()
        # Its worker notices, saves, and puts the experiment back for the next server.
        bench = Services.open(ServerSettings(data_dir=tmp_path, backend="train", train=TRAIN))
        account = find_account(bench.database, key)
        _wait_for(lambda: bench.experiments.get(account, experiment_id).status_type == "queued")
        orphaned = bench.experiments.get(account, experiment_id).val_losses
        bench.database.close()
        server.stdout.close()
        server, url, _ = _serve(tmp_path)
        last = _wait_for(lambda: len(look()["val_losses"]) > len(orphaned) and look()["val_losses"], server)
        assert last[: len(orphaned)] == orphaned
        assert used() == 40_000
        assert second
        server.send_signal(signal.SIGTERM)
        server.wait(GUARD_SECONDS)
        assert _children(server) == []
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
        client.close()
