"""How an experiment ends, and what that costs: one place for both backends and for every kind of failure."""

from cs336_scaling.server.tables import ExperimentRow


def charge(runtime_seconds: float, max_runtime_seconds: float, timed_out: bool) -> float:
    """Seconds to pay: the real runtime within [1, max_runtime_seconds]; all of the latter for a time-out."""
    return max_runtime_seconds if timed_out else min(max(runtime_seconds, 1.0), max_runtime_seconds)


def end_experiment(row: ExperimentRow, failure_reason: str | None, message: str, now: float) -> None:
    """End an unfinished experiment in the caller's transaction: its reservation becomes a charge.

    Args:
        row: with its final `runtime_seconds` and validations.
        failure_reason: None if it is completed. After "error", which is the server's fault, the same configuration may
            be submitted again.
        message: one sentence about a failure.
        now: seconds since 1970.
    """
    row.status = "completed" if failure_reason is None else "failed"
    row.charged_seconds = charge(row.runtime_seconds, row.max_runtime_seconds, failure_reason == "timed_out")
    row.failure_reason, row.message, row.finished_at = failure_reason, message, now
    row.worker = row.lease = row.lease_expires_at = None
    if failure_reason == "error":
        row.config_hash = None
