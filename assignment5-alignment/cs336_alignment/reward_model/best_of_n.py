"""Best of n: of n responses to a question, the one that the reward model likes best.

With n samples ranked by score, s_1 <= … <= s_n, and values v_1 … v_n (right or wrong), the mean value of the best of k,
over all choices of k among them, is

    sum_i v_i C(i - 1, k - 1) / C(n, k)

since s_i is the best of C(i - 1, k - 1) choices. Choosing so moves the policy away from the one that samples by at most
log k - (k - 1) / k nats of KL divergence (Beirami et al. 2024, arXiv:2401.01879, theorem 1).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cs336_alignment.evaluation.pass_at_k import mean_interval, pass_at_k
from cs336_alignment.grading.reward import RewardFunction
from cs336_alignment.online.questions import Question
from cs336_alignment.rollouts import RolloutEngine, SamplingParameters
from cs336_basics.report import Table


@dataclass(frozen=True)
class ScoredSamples:
    """Responses to one question.

    Attributes:
        scores: of the reward model.
        right: whether each answers rightly, as 0 or 1.
    """

    scores: list[float]
    right: list[float]


def best_of_k(samples: ScoredSamples, k: int) -> float:
    """The chance that the best-scored of k of the samples is right; of equal scores the earlier one counts as lower.

    Args:
        samples: of one question.
        k: 1 to the number of samples.
    """
    number = len(samples.scores)
    ranked = np.asarray(samples.right, dtype=float)[np.argsort(samples.scores, kind="stable")]
    weights = np.array([math.comb(below, k - 1) for below in range(number)]) / math.comb(number, k)
    return float(ranked @ weights)


def sample_and_score(
    engine: RolloutEngine,
    questions: Sequence[Question],
    parameters: SamplingParameters,
    reward_fn: RewardFunction,
    score: Callable[[Sequence[str], Sequence[str]], list[float]],
) -> list[ScoredSamples]:
    """Sample responses to each question, and let the reward model and the grader judge them.

    Args:
        engine: of the policy.
        questions: prompts and true answers.
        parameters: how to sample, and how many.
        reward_fn: the grader; its "answer_reward" counts.
        score: of prompts and their responses, under the reward model.
    """
    groups = engine.generate([question.prompt for question in questions], parameters)
    flat = [rollout for group in groups for rollout in group]
    scores = iter(score([rollout.prompt for rollout in flat], [rollout.text for rollout in flat]))
    return [
        ScoredSamples(
            scores=[next(scores) for _ in group],
            right=[float(reward_fn(rollout.text, question.answer)["answer_reward"] > 0) for rollout in group],
        )
        for question, group in zip(questions, groups, strict=True)
    ]


def best_of_table(samples: Sequence[ScoredSamples]) -> Table:
    """For k = 1, 2, 4 … n: how often the reward model's choice is right, and how often any of the k is."""
    number = len(samples[0].scores)
    rows = []
    for k in sorted({2**power for power in range(number.bit_length()) if 2**power <= number} | {number}):
        chosen = [best_of_k(one, k) for one in samples]
        possible = [pass_at_k(number, int(sum(one.right)), k) for one in samples]
        kl = math.log(k) - (k - 1) / k
        rows.append([k, float(np.mean(chosen)), *mean_interval(chosen), float(np.mean(possible)), kl])
    header = ["k", "best of k is right", "at least", "at most", "one of k is right (pass@k)", "KL at most (nats)"]
    return Table(header, rows, caption=f"{len(samples)} questions, {number} samples each; 95% confidence intervals.")
