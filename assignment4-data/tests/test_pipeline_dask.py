"""The pipeline on a real Dask cluster of two workers, one of which is killed during the run; and as Slurm jobs."""

import os
import signal
from pathlib import Path

import pytest
from distributed import Client, LocalCluster

from .pipeline_runs import (
    PIPE_NAME,
    documents,
    filtered_units,
    finish,
    hold,
    json_lines,
    shards,
    squeezed,
    start,
    wait_until,
    write_inputs,
)

FILES = 4
pytestmark = pytest.mark.slow


def run_to_the_end(inputs: Path, out: Path, *arguments: str) -> None:
    code, _, errors = finish(start(inputs, out, "--workers", "1", *arguments))
    assert code == 0, errors


def test_a_dask_worker_is_killed_during_the_run(tmp_path):
    inputs, out = tmp_path / "inputs", tmp_path / "out"
    write_inputs(inputs, FILES)
    pipe, content = inputs / PIPE_NAME, json_lines(documents(1000, 5))
    os.mkfifo(pipe)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None, silence_logs="CRITICAL") as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pids = client.run(os.getpid)
        assert len(set(pids.values())) == 2
        process = start(
            inputs, out, "--dedup", "both", "--executor", "dask", "--dask_scheduler", cluster.scheduler_address
        )
        wait_until(lambda: len(filtered_units(out)) == FILES, "the units that nothing holds", process)
        wait_until(lambda: any(client.processing().values()), "the unit that the pipe holds", process)
        (busy,) = (worker for worker, tasks in client.processing().items() if tasks)
        os.kill(pids[busy], signal.SIGKILL)
        wait_until(lambda: busy not in client.scheduler_info()["workers"], "the scheduler to miss the worker", process)
        descriptor = hold(pipe, process)
        os.set_blocking(descriptor, True)
        os.write(descriptor, content)
        os.close(descriptor)
        code, output, errors = finish(process)
        assert code == 0, errors
        assert "| input files done | 5 |" in squeezed(output)
        assert set(client.run(os.getpid)), "the cluster goes on"
    pipe.unlink()
    pipe.write_bytes(content)
    run_to_the_end(inputs, tmp_path / "local", "--dedup", "both")
    assert shards(out) == shards(tmp_path / "local")


@pytest.mark.parametrize(
    "flags",
    [
        ("--executor", "dask"),
        ("--executor", "slurm", "--slurm_cluster", "local", "--slurm_option", "timeout_min=30"),
    ],
    ids=["a Dask cluster of its own", "Slurm jobs"],
)
def test_every_executor_gives_the_same_result(tmp_path, flags):
    inputs = tmp_path / "inputs"
    write_inputs(inputs, 2)
    run_to_the_end(inputs, tmp_path / "local", "--dedup", "none")
    run_to_the_end(inputs, tmp_path / "other", "--dedup", "none", *flags)
    assert shards(tmp_path / "local") == shards(tmp_path / "other")
