"""The reward functions by name."""

from functools import partial
from typing import TYPE_CHECKING

from cs336_alignment.grading.reward import RewardFunction

if TYPE_CHECKING:
    from cs336_alignment.online.rollout_config import RolloutConfig

REWARD_NAMES = ("r1_zero", "question_only", "countdown")


def reward_function(config: "RolloutConfig") -> RewardFunction:
    """The function that the settings ask for; unless they name one, what the task and the prompt call for."""
    name = config.reward
    if name is None:
        fits_prompt = "question_only" if config.prompt == "question_only" else "r1_zero"
        name = "countdown" if config.task == "countdown" else fits_prompt
    # Graders load a computer algebra system, which `--help` need not wait for.
    if name == "countdown":
        from cs336_alignment.grading.countdown import countdown_reward_fn

        return countdown_reward_fn
    from cs336_alignment.drgrpo_grader import question_only_reward_fn, r1_zero_reward_fn

    function = question_only_reward_fn if name == "question_only" else r1_zero_reward_fn
    return partial(function, fast=not config.thorough_grading)
