"""Rollouts with their rewards, sampled by all processes together."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from cs336_alignment.grading.reward import RewardFunction
from cs336_alignment.online.questions import Question
from cs336_alignment.rollouts import RolloutEngine, SamplingParameters
from cs336_alignment.rollouts.weight_sync import named_weights
from cs336_alignment.training.replica import Replica


@dataclass(frozen=True)
class ScoredRollout:
    """One response and what it is worth.

    Attributes:
        prompt, response: texts.
        token_ids: of the response, as they were sampled.
        answer: the true one.
        reward, format_reward, answer_reward: of the reward function.
        finish_reason: "stop", or "length" for a response that was cut off.
    """

    prompt: str
    response: str
    token_ids: list[int]
    answer: str
    reward: float
    format_reward: float
    answer_reward: float
    finish_reason: str

    def record(self, step: int, **more: Any) -> dict[str, Any]:
        """The entry of `rollouts.jsonl`."""
        return {
            "step": step,
            "prompt": self.prompt,
            "response": self.response,
            "answer": self.answer,
            "reward": self.reward,
            "format_reward": self.format_reward,
            "answer_reward": self.answer_reward,
            **more,
            "length": len(self.token_ids),
            "finish_reason": self.finish_reason,
        }


ResponseScores = Callable[[Sequence[str], Sequence[str]], list[float]]
"""From prompts and their responses to a score of each."""


class Collector:
    """Samples with the newest weights of a policy, and scores; all processes call each method together.

    Args:
        engine: this process's; None if only the first process samples, and this is another.
        replica: whose weights are sampled from.
        reward_fn: scores a response.
        shared: whether each process samples its share of the questions; else the first one samples for all.
    """

    def __init__(self, engine: RolloutEngine | None, replica: Replica, reward_fn: RewardFunction, shared: bool) -> None:
        self.engine, self.replica, self.reward_fn, self.shared = engine, replica, reward_fn, shared
        self._is_stale = True
        self.seconds = 0.0

    def weights_changed(self) -> None:
        """Whatever is sampled next is sampled with the policy as it then is."""
        self._is_stale = True

    def collect(
        self, questions: Sequence[Question], sampling: SamplingParameters, score: ResponseScores | None = None
    ) -> list[list[ScoredRollout]]:
        """Sample and score responses; in every process those of all processes.

        Args:
            questions: the same in every process.
            sampling: how; with a seed that is the same in every process.
            score: what replaces the reward function's "reward"; None keeps it.

        Returns:
            For each question, in order, its rollouts. `seconds` is then the time that this took.
        """
        started = time.perf_counter()
        if self._is_stale:
            self._load_weights()
        mine: list[list[ScoredRollout]] = []
        if self.engine is not None and (share := self._share(questions)):
            answered = self.engine.generate([question.prompt for question in share], sampling)
            mine = [
                [self._scored(rollout, question) for rollout in group]
                for question, group in zip(share, answered, strict=True)
            ]
            if score is not None:
                mine = _rewarded(mine, score)
        everything = self.replica.gather(mine)
        self.seconds = time.perf_counter() - started
        return everything

    def _share(self, questions: Sequence[Question]) -> Sequence[Question]:
        if not self.shared:
            return questions
        parts = np.array_split(np.arange(len(questions)), self.replica.world_size)
        return [questions[index] for index in parts[self.replica.rank]]

    def _load_weights(self) -> None:
        if self.engine is not None:
            self.engine.load_weights(self.replica.wrapped)
        else:
            for _ in named_weights(self.replica.wrapped):
                pass  # shards are gathered from all processes
        self._is_stale = False

    def _scored(self, rollout: Any, question: Question) -> ScoredRollout:
        rewards = self.reward_fn(rollout.text, question.answer)
        return ScoredRollout(
            prompt=rollout.prompt,
            response=rollout.text,
            token_ids=rollout.token_ids,
            answer=question.answer,
            reward=rewards["reward"],
            format_reward=rewards["format_reward"],
            answer_reward=rewards["answer_reward"],
            finish_reason=rollout.finish_reason,
        )

    def close(self) -> None:
        """Close the engine."""
        if self.engine is not None:
            self.engine.close()


def _rewarded(groups: list[list[ScoredRollout]], score: ResponseScores) -> list[list[ScoredRollout]]:
    flat = [rollout for group in groups for rollout in group]
    scores = iter(score([rollout.prompt for rollout in flat], [rollout.response for rollout in flat]))
    return [[replace(rollout, reward=next(scores)) for rollout in group] for group in groups]


def rollout_metrics(rollouts: Sequence[ScoredRollout]) -> dict[str, float]:
    """Means over rollouts: the rewards, the length in tokens, that of right and of wrong responses, and the share that
    was cut off. A mean over nothing is NaN."""

    def mean(values: Sequence[float]) -> float:
        return float(np.mean(values)) if len(values) else float("nan")

    lengths = np.array([len(rollout.token_ids) for rollout in rollouts])
    is_right = np.array([rollout.answer_reward > 0 for rollout in rollouts], dtype=bool)
    return {
        "reward": mean([rollout.reward for rollout in rollouts]),
        "format_reward": mean([rollout.format_reward for rollout in rollouts]),
        "answer_reward": mean([rollout.answer_reward for rollout in rollouts]),
        "response_length": mean(lengths),
        "response_length_right": mean(lengths[is_right]),
        "response_length_wrong": mean(lengths[~is_right]),
        "cut_off": mean([rollout.finish_reason == "length" for rollout in rollouts]),
    }


def derived_seed(*numbers: int) -> int:
    """A seed for sampling, of numbers that say what for: the run's seed, a step."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def greedy_or_sampled(sampling: SamplingParameters, temperature: float, seed: int) -> SamplingParameters:
    """The same for evaluation: one response to each question."""
    return replace(sampling, temperature=temperature, num_samples=1, seed=seed)
