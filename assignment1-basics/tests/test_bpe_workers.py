"""Worker processes end with their parent, however it ends; streams are mapped without being read ahead."""

import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from cs336_basics.bpe.workers import ordered_map, process_pool, usable_cores

PROGRAM = """
import os, signal, sys, time
from cs336_basics.bpe.workers import process_pool

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job would ignore it
    with process_pool(2) as pool:
        print(*{pool.submit(os.getpid).result() for _ in range(20)}, flush=True)
        pool.submit(time.sleep, 0.2).result()
        time.sleep(60)
"""


@pytest.mark.parametrize("reason", [signal.SIGKILL, signal.SIGINT])
def test_workers_end_with_a_parent_that_is_killed_or_interrupted(tmp_path, reason):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [sys.executable, str(tmp_path / "program.py")]
    with open(tmp_path / "errors", "w") as errors:
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True)
    workers = [psutil.Process(int(number)) for number in parent.stdout.readline().split()]
    assert workers
    if reason == signal.SIGINT:
        os.killpg(parent.pid, reason)  # as a terminal does it: to the workers too
    else:
        parent.send_signal(reason)
    parent.wait()
    parent.stdout.close()
    _, alive = psutil.wait_procs(workers, timeout=10)
    for worker in alive:
        worker.kill()
    assert alive == []
    assert "SpawnProcess" not in (tmp_path / "errors").read_text(), "only the parent has something to say"


def test_results_come_in_order_and_few_items_are_taken_ahead():
    taken = []

    def items():
        for number in range(30):
            taken.append(number)
            yield number

    def slow_at_first(number: int) -> int:
        time.sleep(0.002 * (30 - number))
        return number * number

    with ThreadPoolExecutor(3) as pool:
        for number, result in enumerate(ordered_map(pool, slow_at_first, items(), under_way=5)):
            assert result == number * number
            assert len(taken) <= number + 6
    assert taken == list(range(30))


def test_an_error_in_a_worker_reaches_the_caller():
    with process_pool(1) as pool, pytest.raises(ZeroDivisionError):
        list(ordered_map(pool, (1).__truediv__, [1, 0], under_way=2))


def test_each_worker_is_set_up():
    with process_pool(1, os.chdir, "/") as pool:
        assert pool.submit(os.getcwd).result() == "/"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux: elsewhere a process may use all cores")
def test_cores_that_are_not_ours_are_not_counted():
    allowed = os.sched_getaffinity(0)
    assert usable_cores() == len(allowed)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
