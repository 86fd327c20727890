"""The form that every reward function has."""

from collections.abc import Callable

RewardFunction = Callable[[str, str], dict[str, float]]
"""From a response and its ground truth to "reward" (the total), "format_reward" and "answer_reward"."""
