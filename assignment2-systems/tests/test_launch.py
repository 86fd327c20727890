"""The Slurm launcher: really run by submitit's local executor, preempted and requeued; and what it would tell Slurm."""

import os
import shutil
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from cs336_basics.command_line import UsageError
from cs336_basics.run_log import read_metrics
from cs336_systems.parallel_training.slurm import build_parser, main, submit

FLAGS = [
    "--data_dir", "data", "--vocab_size", "40", "--d_model", "32", "--num_layers", "1", "--num_heads", "2",
    "--context_len", "16", "--batch_size", "4", "--save_intervals", "1000000", "--log_intervals", "1",
    "--val_interval", "1000000", "--val_batches", "1", "--device", "cpu", "--no_wandb", "--run_dir", "run",
    "--save_ckp_path", "run", "--parallel", "ddp", "--train_steps", "1000000",
]  # fmt: skip


@pytest.fixture
def run_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    Path("data").mkdir()
    for name in ("train", "valid"):
        np.random.default_rng(0).integers(40, size=2000).astype("uint16").tofile(f"data/{name}.dat")
    return tmp_path


def _wait_for(condition, job):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if condition():
            return
        assert not job.done(), job.stderr()
        time.sleep(0.05)
    raise AssertionError("it did not happen in time")


def _last_step():
    metrics = Path("run/metrics.jsonl")
    entries = read_metrics(metrics) if metrics.exists() else []
    return entries[-1]["step"] if entries else 0


def _tasks(job):
    children = psutil.Process(int(job.job_id)).children()
    return [child for child in children if "submitit.core._submit" in child.cmdline()]


@pytest.mark.slow
def test_a_preempted_job_is_queued_again_and_goes_on_from_where_it_stopped(run_folder):
    given = build_parser().parse_args(["--local", "--tasks_per_node", "2", "--log_dir", "jobs"])
    job = submit(given, FLAGS)
    _wait_for(lambda: _last_step() >= 5, job)
    first = _tasks(job)
    assert len(first) == 2
    for task in first:
        task.send_signal(signal.SIGUSR2)
    _wait_for(lambda: list(Path("run").glob("checkpoint_*.pt")), job)
    stopped_at = int(next(Path("run").glob("checkpoint_*.pt")).stem.split("_")[1])
    _wait_for(lambda: _last_step() > stopped_at + 3, job)
    second = _tasks(job)
    assert not {task.pid for task in first} & {task.pid for task in second}
    for task in second:
        task.send_signal(signal.SIGTERM)  # as when somebody cancels the job: it saves, and that is all
    result, _ = job.results()
    assert result.interrupted
    assert result.steps > stopped_at + 3
    assert result.checkpoint_path.name == f"checkpoint_{result.steps}.pt"
    assert [entry["step"] for entry in read_metrics("run/metrics.jsonl")] == list(range(result.steps + 1))
    assert "Requeued job" in job.stdout()


def test_what_slurm_is_told(run_folder, monkeypatch, capsys):
    """Stand-ins for Slurm's programs, which are not here, keep the batch file that they are given."""
    Path("bin").mkdir()
    for name, body in (("srun", "true"), ("sbatch", f'cp "$1" {run_folder}/batch.sh; echo "Submitted batch job 77"')):
        Path("bin", name).write_text(f"#!/bin/sh\n{body}\n")
        Path("bin", name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{run_folder}/bin", prepend=os.pathsep)
    main(
        ["--partition", "h100", "--account", "cs336", "--nodes", "2", "--gpus_per_node", "4", "--minutes", "90",
         "--signal_delay_s", "300", "--mem_gb", "64", "--log_dir", "jobs", *FLAGS, "--batch_size", "16"]
    )  # fmt: skip
    batch = Path("batch.sh").read_text()
    for line in (
        "--partition=h100", "--account=cs336", "--nodes=2", "--gpus-per-node=4", "--ntasks-per-node=4", "--time=90",
        "--signal=USR2@300", "--mem=64GB", "--cpus-per-task=4", "--job-name=cs336",
    ):  # fmt: skip
        assert f"#SBATCH {line}\n" in batch
    assert "submitit.core._submit" in batch
    assert "job 77: output in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--local", "--nodes", "2"], "nodes is 2; allowed with --local is 1"),
        (["--local", "--tasks_per_node", "0"], "tasks_per_node is 0"),
        (["--local", "--minutes", "1"], "signal_delay_s is 120; allowed is less than 60"),
        (["--local", "--tasks_per_node", "3", *FLAGS], "batch_size 4 cannot be shared by 3"),
        (["--local", "--tasks_per_node", "2", *FLAGS, "--parallel", "none"], "2 processes need a strategy"),
        (["--local", *FLAGS, "--max_lr", "-1"], "max_lr is -1"),
    ],
)
def test_bad_values_are_named_before_anything_is_submitted(arguments, named, run_folder):
    with pytest.raises(UsageError, match=named):
        main(arguments)
    assert not Path("run").exists()


@pytest.mark.skipif(shutil.which("srun") is not None, reason="there is Slurm here")
def test_without_slurm_the_way_out_is_named(run_folder):
    with pytest.raises(UsageError, match=r"there is no Slurm here .* give --local"):
        main(FLAGS)
