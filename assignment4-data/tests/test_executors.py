"""Every kind of executor behaves like concurrent.futures.Executor; left by an exception, it stops what runs."""

import functools
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import BrokenExecutor
from pathlib import Path

import pytest

from cs336_basics.command_line import UsageError
from cs336_data.executors import DaskExecutor, LocalExecutor, SlurmExecutor, make_executor

from .pipeline_runs import wait_until
from .worker_functions import announce_and_wait, divide, kill_itself, process_id

KINDS = ["local", "slurm", "dask"]


def open_executor(kind: str, folder: Path, workers: int = 1):
    return make_executor(kind, workers, slurm_folder=folder / "slurm", slurm_cluster="local")


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return b") Z" not in Path(f"/proc/{pid}/stat").read_bytes() if Path("/proc").exists() else True


@pytest.mark.parametrize("kind", KINDS)
def test_results_errors_and_order(kind, tmp_path):
    with open_executor(kind, tmp_path) as executor:
        assert list(executor.map(divide, [8, 9], [2, 4])) == [4.0, 2.25]
        failing = executor.submit(divide, 1, divisor=0)
        assert isinstance(failing.exception(), ZeroDivisionError)
        assert executor.submit(process_id).result() != os.getpid()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(process_id)


@pytest.mark.parametrize("kind", KINDS)
def test_an_exception_stops_what_runs_and_what_waits(kind, tmp_path):
    def started() -> list[int]:
        return [int(path.stem) for path in tmp_path.glob("*.started")]

    with pytest.raises(KeyboardInterrupt), open_executor(kind, tmp_path) as executor:
        futures = [executor.submit(announce_and_wait, str(tmp_path)) for _ in range(3)]
        wait_until(started, "a task to start")
        raise KeyboardInterrupt
    wait_until(lambda: not any(map(is_running, started())), "the task to end")
    assert len(started()) == 1, "a task that waited was started although the executor was being stopped"
    wait_until(lambda: all(future.done() for future in futures), "the futures to end")


def test_slurm_runs_no_more_jobs_at_a_time_than_workers(tmp_path):
    with SlurmExecutor(2, tmp_path, cluster="local") as executor:
        pids = list(executor.map(process_id, range(3)))
    assert len(set(pids)) == 3, "every job is a process of its own"


def test_a_killed_slurm_job_is_an_error_of_its_task(tmp_path, monkeypatch):
    monkeypatch.setattr("submitit.core.core.Job._results_timeout_s", 1)  # how long a late result is waited for
    with SlurmExecutor(1, tmp_path, cluster="local") as executor:
        doomed = executor.submit(kill_itself)
        assert "has not produced any output" in str(doomed.exception())


def test_a_lost_local_worker_breaks_the_pool_at_once():
    with LocalExecutor(1) as executor, pytest.raises(BrokenExecutor):
        executor.submit(kill_itself).result()


def test_local_workers_do_not_outlive_a_killed_parent(tmp_path):
    program = (
        "import sys; from cs336_data.executors import LocalExecutor; from worker_functions import announce_and_wait\n"
        "if __name__ == '__main__':\n"
        "    with LocalExecutor(1) as executor: executor.submit(announce_and_wait, sys.argv[1]).result()\n"
    )
    script = tmp_path / "program.py"
    script.write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent)}
    parent = subprocess.Popen([sys.executable, script, tmp_path], env=environment)
    wait_until(lambda: list(tmp_path.glob("*.started")), "the worker to start")
    parent.kill()
    parent.wait()
    (worker,) = (int(path.stem) for path in tmp_path.glob("*.started"))
    wait_until(lambda: not is_running(worker), "the orphan to end")


def test_a_dask_cluster_that_runs_already(tmp_path):
    from distributed import LocalCluster

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster:
        with DaskExecutor(1, cluster.scheduler_address) as executor:
            assert list(executor.map(functools.partial(divide, 12), [3, 4])) == [4, 3]
        with DaskExecutor(1, cluster.scheduler_address) as executor:
            assert executor.submit(divide, 1, 4).result() == 0.25, "the cluster outlives its users"


def test_bad_arguments(tmp_path):
    with pytest.raises(UsageError, match="executor 'ray' is unknown: it must be one of local, slurm, dask"):
        make_executor("ray")
    with pytest.raises(UsageError, match="0 workers are too few"):
        make_executor("local", 0)
    with pytest.raises(UsageError, match="no Dask scheduler answers at 'nowhere:1:2'"):
        make_executor("dask", dask_scheduler="nowhere:1:2")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"colour": 1}, "submitit does not take colour=1: Parameter 'colour' need to be prefixed by an executor name"),
        ({"timeout_min": "soon"}, "submitit does not take timeout_min='soon': Parameter \"timeout_min\" expected type"),
    ],
)
def test_a_wrong_slurm_parameter_is_one_sentence(tmp_path, parameters, message):
    with pytest.raises(UsageError) as caught:
        SlurmExecutor(1, tmp_path, "local", parameters)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_slurm_the_error_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="Slurm cannot be used on this machine"):
        make_executor("slurm", slurm_folder=tmp_path)


def test_the_default_number_of_workers_is_the_number_of_cores():
    with make_executor("local") as executor:
        assert executor._max_workers == len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else True
    assert multiprocessing.active_children() == []
