"""Asking math-verify whether two answers are equal, with a time limit that holds on every string.

math-verify bounds its time by a signal handler, which works in the main thread alone and cannot interrupt long integer
arithmetic. Here it runs in processes of its own that the operating system ends. They are started when first needed, by
`subprocess` and not by `multiprocessing`, since daemonic worker processes may have no children of that kind.
"""

import atexit
import json
import os
import subprocess
import sys
from functools import lru_cache
from threading import Lock, Semaphore

TIME_LIMIT = 3.0
"""Seconds of processor time for one comparison; beyond them the answers count as different."""
MAX_LENGTH = 500
"""Characters; longer answers are not handed to math-verify."""


class _Worker:
    """One process that compares; it may end at any question."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cs336_alignment.grading.symbolic_worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            encoding="utf-8",
        )
        if self._process.stdout.readline() != "ready\n":  # what its imports take does not count as time of a question
            raise RuntimeError(f"math-verify's process ended at its start with code {self._process.wait()}")

    def ask(self, answer: str, gold: str, seconds: float) -> bool | None:
        """Whether the two are equal; None if the process has ended over it."""
        try:
            print(json.dumps([answer, gold, seconds]), file=self._process.stdin, flush=True)
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        return json.loads(reply) if reply.endswith("\n") else None

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class _IdleWorkers:
    """The workers of this process that are not asked at the moment; at most one for each CPU is asked at a time."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._workers: list[_Worker] = []
        self.slots = Semaphore(os.cpu_count() or 1)

    def take(self) -> _Worker:
        with self._lock:
            while self._workers:
                worker = self._workers.pop()
                if worker.is_alive():
                    return worker
                worker.close()
        return _Worker()

    def put_back(self, worker: _Worker) -> None:
        with self._lock:
            self._workers.append(worker)

    def close(self) -> None:
        with self._lock:
            for worker in self._workers:
                worker.close()
            self._workers.clear()

    def forget(self) -> None:
        """In a forked child: the parent's workers are not ours, and a thread that is not here may hold its lock."""
        self.__init__()


_idle = _IdleWorkers()
os.register_at_fork(after_in_child=_idle.forget)
atexit.register(_idle.close)


@lru_cache(maxsize=4_096)
def symbolically_equal(answer: str, gold: str, seconds: float = TIME_LIMIT) -> bool:
    """Whether math-verify finds `answer` equal to `gold` within the time limit. From any thread or process.

    Args:
        answer: LaTeX or plain text, any string.
        gold: the right answer.
        seconds: the limit of processor time; answers that need more count as different.

    Raises:
        RuntimeError: if the process with math-verify cannot be started.
    """
    # math-verify reads \frac{1}{2 as 1/2 and f' as f.
    misread = answer.count("{") != answer.count("}") or answer.count("'") != gold.count("'")
    if misread or max(len(answer), len(gold)) > MAX_LENGTH:
        return False
    with _idle.slots:
        worker = _idle.take()
        equal = worker.ask(answer, gold, seconds)
        if equal is None:
            worker.close()
        else:
            _idle.put_back(worker)
    return bool(equal)
