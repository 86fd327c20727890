"""Write a page for looking at the rollouts of a run (see `cs336_alignment/rollout_log/`)."""

from cs336_alignment.rollout_log.command import main
from cs336_basics.command_line import run_command

if __name__ == "__main__":
    run_command(main)
