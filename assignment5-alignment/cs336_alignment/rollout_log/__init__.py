"""A page for looking at a run's rollouts: `write_rollout_page(run_folder)` makes it from `rollouts.jsonl`."""

from cs336_alignment.rollout_log.page import write_rollout_page

__all__ = ["write_rollout_page"]
