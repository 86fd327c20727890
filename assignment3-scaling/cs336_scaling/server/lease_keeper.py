"""A thread that keeps a worker's lease alive while the main thread trains, and watches the clock.

A single optimizer step may take longer than a lease, or than what is left of the time: so signs of life, and the end at
`max_runtime_seconds`, do not wait for it.
"""

import sys
import threading
from collections.abc import Callable
from types import TracebackType

from sqlalchemy.exc import OperationalError
from tenacity import retry, retry_if_exception_type, stop_after_delay, wait_exponential

from cs336_scaling.server.backends import timed_out_message
from cs336_scaling.server.leases import Claim, LeaseBook, LeaseLost

_patient = retry(
    retry=retry_if_exception_type(OperationalError),
    wait=wait_exponential(0.1, max=5),
    stop=stop_after_delay(120),
    reraise=True,
)
"""A database that is busy or away for a moment costs no experiment."""


class LeaseKeeper:
    """While this context is open, the lease is renewed, and the experiment is ended when its time is up.

    Args:
        leases: where the lease is.
        claim: the lease.
        seconds: the run's clock.
        interval: seconds between two signs of life.

    Attributes:
        over: set once the experiment is not this worker's any more: ended, given back, or lost.
    """

    def __init__(self, leases: LeaseBook, claim: Claim, seconds: Callable[[], float], interval: float) -> None:
        self._leases, self._claim, self._seconds, self._interval = leases, claim, seconds, interval
        self.over = threading.Event()
        self._lock = threading.Lock()
        self._val_losses: list[float] = []
        self._val_steps: list[int] = []
        self._thread = threading.Thread(target=self._keep, name="lease keeper", daemon=True)

    def __enter__(self) -> "LeaseKeeper":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._thread.join()

    @property
    def out_of_time(self) -> bool:
        """Whether the run's clock has reached `max_runtime_seconds`."""
        return self._seconds() >= self._claim.config.max_runtime_seconds

    def report(self, val_losses: list[float], val_steps: list[int]) -> None:
        """Tell of the validations so far; those that came too late do not count."""
        with self._lock:
            if not self.out_of_time:
                self._val_losses, self._val_steps = val_losses, val_steps
        self._tell(self._leases.renew, last=False)

    def complete(self) -> None:
        """End the experiment with what was reported; without the last validation, which came too late, as timed out."""
        if len(self._val_losses) < self._claim.config.n_evals:
            self.time_out()
        else:
            self._tell(self._leases.finish)

    def fail(self, reason: str, message: str) -> None:
        """End the experiment as failed."""
        self._tell(self._leases.finish, reason, message)

    def time_out(self) -> None:
        """End the experiment because its time is up."""
        self.fail("timed_out", timed_out_message(self._claim.config.max_runtime_seconds))

    def give_back(self) -> None:
        """Leave the experiment to the next worker."""
        self._tell(self._leases.give_back)

    def _tell(self, report: Callable[..., None], *details: str, last: bool = True) -> None:
        """Make one report, unless it is over; reports of the two threads never overlap."""
        with self._lock:
            if self.over.is_set():
                return
            try:
                _patient(report)(self._claim, self._seconds(), self._val_losses, self._val_steps, *details)
            except LeaseLost:
                self.over.set()
            else:
                if last:
                    self.over.set()

    def _keep(self) -> None:
        while True:
            left = self._claim.config.max_runtime_seconds - self._seconds()
            if self.over.wait(min(self._interval, max(left, 0.0))):
                return
            try:
                if self.out_of_time:
                    self.complete()
                else:
                    self._tell(self._leases.renew, last=False)
            except OperationalError as error:
                print(f"no sign of life of {self._claim.experiment_id}: {error.orig}", file=sys.stderr)
